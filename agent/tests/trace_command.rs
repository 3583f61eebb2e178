//! `isostack-agent trace` as a process: what it asks whom, and what it says when that fails.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use serde_json::{Value, json};

const ID: &str = "0af7651916cd43dd8448eb211c80319c";

fn run(arguments: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_isostack-agent"))
        .arg("trace")
        .args(arguments)
        .env_remove("ISOSTACK_AGENT")
        .env_remove("ISOSTACK_TRACE_HEADERS")
        .env("LC_ALL", "C.UTF-8")
        .env("COLUMNS", "100")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    // Who finds the arguments wrong does not read.
    let _ = pipe.write_all(stdin.as_bytes());
    drop(pipe);
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A server that answers each path with a status and a body, and remembers what was asked.
struct Store {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

fn serve(answers: &[(&str, u16, &str)]) -> Store {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answers: Vec<_> = answers
        .iter()
        .map(|(path, status, body)| ((*path).to_owned(), *status, (*body).to_owned()))
        .collect();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = asked.clone();
    // It ends with the test's process.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            log.lock().unwrap().push(head);
            let found = answers.iter().find(|(known, ..)| *known == path);
            let (status, body) = found.map_or((404, "404 page not found\n"), |(_, s, b)| (*s, b));
            let answer = format!(
                "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    Store { address, asked }
}

impl Store {
    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn paths(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        let path = |head: &String| head.split(' ').nth(1).unwrap_or_default().to_owned();
        asked.iter().map(path).collect()
    }
}

/// Two services; the second one's span has a verdict.
fn otlp() -> Value {
    let span = |id: &str, parent: &str, from: u64, to: u64, attributes: Value| {
        json!({ "traceId": ID, "spanId": id, "parentSpanId": parent, "name": format!("op {id}"),
            "startTimeUnixNano": (1_795_000_000_000 + from).to_string() + "000000",
            "endTimeUnixNano": (1_795_000_000_000 + to).to_string() + "000000",
            "attributes": attributes })
    };
    let text = |key: &str, v: &str| json!({ "key": key, "value": { "stringValue": v } });
    let of = |service: &str, span: Value| {
        json!({ "resource": { "attributes": [text("service.name", service)] },
            "scopeSpans": [{ "spans": [span] }] })
    };
    let verdict = json!([
        text("isostack.fault", "host"),
        text("isostack.cause", "runqueue"),
        text("isostack.culprit", "shop/noisy"),
        text("isostack.confidence", "process"),
        text("isostack.summary", "90 % of 80 ms: the CPU was taken by shop/noisy"),
        { "key": "isostack.share", "value": { "doubleValue": 0.9 } },
        { "key": "isostack.split.runqueue_ms", "value": { "doubleValue": 72.0 } },
    ]);
    json!({ "resourceSpans": [
        of("web", span("00000000000000a1", "", 0, 100, json!([]))),
        of("cart", span("00000000000000a2", "00000000000000a1", 10, 90, verdict)),
    ] })
}

fn assert_is_localised(output: &Output) {
    assert!(output.status.success(), "{}", said(output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["trace_id"], ID);
    assert_eq!(report["critical_path"].as_array().unwrap().len(), 2);
    assert_eq!(report["slowest_hop"]["service"], "cart");
    assert_eq!(report["slowest_hop"]["split"]["runqueue"], 72.0);
    assert_eq!(report["verdict"]["cause"], "runqueue");
    assert_eq!(report["verdict"]["fault"], "host");
    assert_eq!(report["verdict"]["culprit"], "shop/noisy");
}

#[test]
fn a_file_and_standard_input() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), otlp().to_string()).unwrap();
    let path = file.path().to_str().unwrap();
    let upper = ID.to_uppercase();
    assert_is_localised(&run(&[&upper, "--file", path, "--output", "json"], ""));
    let piped = otlp().to_string();
    assert_is_localised(&run(&[&ID[1..], "--file", "-", "--output", "json"], &piped));
    let table = run(&[ID, "--file", path], "");
    let text = String::from_utf8(table.stdout.clone()).unwrap();
    for words in [
        "Trace 0af7",
        "cart: op",
        "80 %",
        "Culprit      shop/noisy",
        "█",
    ] {
        assert!(text.contains(words), "no {words:?} in\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "no colours into a pipe");
}

#[test]
fn trace_stores_by_either_version_of_their_api() {
    let jaeger = json!({ "result": otlp() }).to_string();
    let v3 = format!("/api/v3/traces/{ID}");
    let older = format!("/api/traces/{ID}");
    let store = serve(&[(&v3, 200, &jaeger)]);
    let json = ["--output", "json"];
    assert_is_localised(&run(&[ID, "--jaeger", &store.url(), json[0], json[1]], ""));
    // Below a path, by the older API; the page for browsers answers what is not there.
    let page = "<!doctype html><title>Jaeger UI</title>";
    let plain = otlp().to_string().replace("resourceSpans", "batches");
    let (below_v3, below) = (format!("/j{v3}"), format!("/j{older}"));
    let store = serve(&[(&below_v3, 200, page), (&below, 200, &plain)]);
    let url = format!("{}/j/", store.url());
    assert_is_localised(&run(&[ID, "--jaeger", &url, json[0], json[1]], ""));
    assert_eq!(store.paths(), [below_v3, below]);
    let tempo = json!({ "trace": otlp(), "status": "COMPLETE" }).to_string();
    let store = serve(&[(&format!("/api/v2/traces/{ID}"), 200, &tempo)]);
    let header = ["--header", "X-Scope-OrgID=team"];
    let output = run(
        &[
            ID,
            "--tempo",
            &store.url(),
            header[0],
            header[1],
            json[0],
            json[1],
        ],
        "",
    );
    assert_is_localised(&output);
    assert!(store.asked.lock().unwrap()[0].contains("x-scope-orgid: team"));
    let store = serve(&[(&older, 200, &plain)]);
    assert_is_localised(&run(&[ID, "--tempo", &store.url(), json[0], json[1]], ""));
}

/// What a Tempo 1.5.0 answered: with its trace, without one, while it starts, to who is no
/// tenant, and with damaged blocks.
#[test]
fn tempos_answers() {
    const OF_TEMPO: &str = "0ad209e7c5bbb3459a4dd4aa597ee00d";
    let answer = include_str!("data/trace_stores/tempo-1.5.0.json");
    let path = format!("/api/traces/{OF_TEMPO}");
    let asked = |answers: &[(&str, u16, &str)]| {
        let store = serve(answers);
        run(&[OF_TEMPO, "--tempo", &store.url(), "--output", "json"], "")
    };
    for (status, note) in [(200, None), (206, Some("spans may be missing"))] {
        let output = asked(&[(&path, status, answer)]);
        assert!(output.status.success(), "{}", said(&output));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["slowest_hop"]["service"], "store");
        assert_eq!(report["verdict"]["cause"], "cpu_throttle");
        let notes = report["notes"].to_string();
        assert_eq!(note.is_some(), notes != "[]", "{notes}");
        assert!(notes.contains(note.unwrap_or_default()), "{notes}");
    }
    let absent = (&*path, 404, "trace not found");
    let starting = "Ingester not ready: ingester check ready failed waiting for 15s after being \
                    ready\n";
    let ring = "error finding ingesters in Querier.FindTraceByID: empty ring\n";
    let dial = "error querying ingesters in Querier.FindTraceByID: rpc error: code = Unavailable \
                desc = connection error: desc = \"transport: Error while dialing dial tcp \
                127.0.0.1:19095: connect: connection refused\"\n";
    let echo = format!("Cannot GET {path}");
    for (answers, words, not) in [
        (vec![absent], "is not in Tempo; spans arrive", "ready"),
        (
            vec![absent, ("/ready", 200, "ready\n")],
            "is not in Tempo; spans arrive",
            "ready",
        ),
        (
            vec![absent, ("/ready", 503, starting)],
            "Tempo is not ready (Ingester not ready",
            "retention",
        ),
        (
            vec![(&*path, 401, "no org id\n")],
            "X-Scope-OrgID",
            "http_api",
        ),
        (vec![(&*path, 500, ring)], "ask again", "http_api_prefix"),
        (vec![(&*path, 500, dial)], "connection refused\"", "\\"),
        // Of another server, which repeats the path.
        (vec![(&*path, 404, &*echo)], "http_api_prefix", "not in"),
    ] {
        let output = asked(&answers);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(words), "no {words:?} in {said}");
        assert!(!said.contains(not), "{not:?} in {said}");
    }
}

#[test]
fn what_goes_wrong_is_told_with_what_to_do() {
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let v3 = format!("/api/v3/traces/{ID}");
    let older = format!("/api/traces/{ID}");
    let absent = serve(&[
        (
            &v3,
            404,
            r#"{"error":{"httpCode":404,"message":"No traces found"}}"#,
        ),
        (
            &older,
            404,
            r#"{"data":null,"errors":[{"code":404,"msg":"trace not found"}]}"#,
        ),
    ]);
    let page = serve(&[(&v3, 200, "<html>\u{1b}[2J"), (&older, 200, "<html>")]);
    let denied = serve(&[(&v3, 401, "who are you?"), (&older, 401, "who are you?")]);
    let elsewhere = serve(&[]);
    let of_agent = format!("/api/v1/traces/{ID}");
    let forgot = serve(&[(
        &of_agent,
        404,
        r#"{"error":"no span of that trace is here"}"#,
    )]);
    let failing = [
        (1, vec!["--jaeger", &nobody], "is it running there"),
        (1, vec!["--agent", &nobody], "is the agent running"),
        (1, vec!["--jaeger", absent.address_url()], "not in Jaeger"),
        (
            1,
            vec!["--jaeger", page.address_url()],
            "is it Jaeger's query address",
        ),
        (1, vec!["--jaeger", denied.address_url()], "--header"),
        (1, vec!["--jaeger", elsewhere.address_url()], "no such path"),
        (
            1,
            vec!["--tempo", elsewhere.address_url()],
            "is it Tempo's HTTP address",
        ),
        (1, vec!["--agent", forgot.address_url()], "--jaeger"),
        (
            1,
            vec!["--agent", elsewhere.address_url()],
            "isostack-agent of this version",
        ),
        (1, vec!["--file", "/nowhere/at/all"], "/nowhere/at/all"),
        (64, vec!["--jaeger", "jaeger:16686"], "http://jaeger:16686"),
        (
            64,
            vec!["--jaeger", &nobody, "--tempo", &nobody],
            "cannot be used with",
        ),
    ];
    for (code, flags, words) in failing {
        let output = run(&[&[ID], &*flags].concat(), "");
        let said = said(&output);
        assert_eq!(output.status.code(), Some(code), "{flags:?}: {said}");
        assert!(said.contains(words), "{flags:?}: no {words:?} in {said}");
        assert!(output.stdout.is_empty(), "{flags:?}");
        assert!(!said.contains('\u{1b}'), "{said:?}");
    }
    for (id, input, code, words) in [
        ("xyz", "", 64, "32 hexadecimal digits"),
        (ID, "not json", 1, "line 1"),
        (ID, "", 1, "not in -"),
        (ID, "{}", 1, "it holds no spans"),
        (
            "0af7651916cd43dd8448eb2100000001",
            &otlp().to_string(),
            1,
            "2 spans of other traces",
        ),
    ] {
        let output = run(&[id, "--file", "-"], input);
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(said(&output).contains(words), "{}", said(&output));
    }
}

impl Store {
    /// Lives as long as the test's process, as the server does.
    fn address_url(&self) -> &'static str {
        self.url().leak()
    }
}

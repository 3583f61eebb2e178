//! The HTTP port as a client meets it: a real server, real connections.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, helpers included"
)]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use isostack_agent::{
    event::{Delay, Event, Limiter, Particulars, Steal},
    export::{BindError, ExportSources, Health, HttpConfig, PrometheusConfig, Readiness, bind},
    process::ProcessKey,
    time::{MonoNs, UnixNs},
    vocabulary::{Cause, Fault},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

#[path = "support/export.rs"]
mod support;

use support::{Plan, cgroup, identity};

const START: u64 = 1_795_000_000_123_456_789;
/// Against a hang; nothing here is expected to take long.
const PATIENCE: Duration = Duration::from_secs(30);

struct Server {
    address: SocketAddr,
    sources: ExportSources,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

async fn start_with(config: HttpConfig, change: impl FnOnce(&mut ExportSources)) -> Server {
    let node = PrometheusConfig {
        node: "node-7".into(),
        ..PrometheusConfig::default()
    };
    let mut sources = support::sources(&node, vec![cgroup(71, &[(14, 5)], &[(3, 9)])]);
    change(&mut sources);
    let bound = bind(HttpConfig {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        ..config
    })
    .await
    .unwrap();
    let stop = CancellationToken::new();
    let address = bound.local_addr();
    let task = tokio::spawn(bound.serve(sources.clone(), stop.clone()));
    Server {
        address,
        sources,
        stop,
        task,
    }
}

async fn start() -> Server {
    start_with(HttpConfig::default(), |_| ()).await
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        let line = self
            .head
            .lines()
            .find_map(|l| l.strip_prefix(&format!("{name}: ")));
        line.unwrap_or("")
    }
}

impl Server {
    async fn open(&self, path: &str, headers: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    async fn ask(&self, path: &str, headers: &str) -> Answer {
        let mut bytes = Vec::new();
        let mut stream = self.open(path, headers).await;
        let read = stream.read_to_end(&mut bytes);
        tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        Answer {
            status: head[9..12].parse().unwrap(),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(path, "Host: localhost\r\n").await
    }

    /// Each batch in a second of its own, so that the stream takes all of it.
    fn record(&self, seeds: std::ops::Range<u64>) {
        let received = MonoNs(seeds.start * 1_000_000_000);
        let plans: Vec<_> = seeds.map(plan).collect();
        let (batch, judgements) = support::batch(&plans, received);
        self.sources.store.record(&batch, judgements);
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .unwrap()
            .unwrap();
        assert!(
            TcpStream::connect(self.address).await.is_err(),
            "the port is given back"
        );
    }
}

fn plan(seed: u64) -> Plan {
    Plan {
        service: "shop",
        operation: "<b>GET</b> /\u{7}\"",
        seed,
        start: START,
        duration_ms: 200,
        downstream_ms: 40,
        error: false,
        parts: vec![(Cause::CpuThrottle, 120)],
        verdict: Some((Cause::CpuThrottle, Fault::L3, "")),
        identity: identity(71, "shop", "pod-a", "web"),
    }
}

#[tokio::test]
async fn every_documented_path_answers_as_documented_and_none_is_undocumented() {
    let server = start().await;
    server.record(1..3);
    let spec = server.get("/api/v1/openapi.yaml").await.body;
    let documented: Vec<_> = spec
        .lines()
        .filter_map(|l| l.strip_prefix("  /")?.strip_suffix(':'))
        .map(|p| format!("/{p}"))
        .collect();
    let routes = include_str!("../src/export/http/routes.rs");
    let mut routed: Vec<_> = routes
        .split(".route(")
        .skip(1)
        .map(|r| r.split('"').nth(1).unwrap().to_owned())
        .collect();
    routed.sort();
    let mut sorted = documented.clone();
    sorted.sort();
    assert_eq!(sorted, routed);

    let rows = server.get("/api/v1/verdicts?limit=1").await.json();
    let trace = rows["verdicts"][0]["trace_id"].as_str().unwrap();
    for path in documented.iter().filter(|p| !p.ends_with("/stream")) {
        let answer = server.get(&path.replace("{trace_id}", trace)).await;
        assert_eq!(answer.status, 200, "{path}");
        let section = spec.split(&format!("\n  {path}:\n")).nth(1).unwrap();
        let section = section.split("\n  /").next().unwrap();
        let kind = answer
            .header("content-type")
            .split(';')
            .next()
            .unwrap()
            .to_owned();
        let by_reference =
            section.contains("#/components/responses/") && kind == "application/json";
        assert!(
            section.contains(&kind) || by_reference,
            "{path} answers {kind}"
        );
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        let policy = answer.header("content-security-policy");
        assert!(
            policy.contains("default-src 'none'") && !policy.contains("unsafe"),
            "{path}"
        );
        assert_eq!(answer.header("access-control-allow-origin"), "", "{path}");
    }
    assert_eq!(server.get("/api/v2/x").await.status, 404);
    server.stop().await;
}

#[tokio::test]
async fn a_verdict_has_the_shape_that_machines_rely_on() {
    let server = start().await;
    server.record(1..4);
    let answer = server
        .get("/api/v1/verdicts?limit=2&service=shop&cause=cpu_throttle")
        .await;
    let rows = answer.json();
    let rows = rows["verdicts"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    let row = rows[0].as_object().unwrap();
    for field in [
        "trace_id",
        "span_id",
        "service",
        "operation",
        "start_unix_nano",
        "duration_ms",
        "self_time_ms",
        "fault",
        "cause",
        "share",
        "culprit",
        "confidence",
        "layer",
        "split",
        "incident",
    ] {
        assert!(row.contains_key(field), "{field} in {row:?}");
    }
    assert_eq!(
        row["start_unix_nano"],
        START.to_string(),
        "a string, every digit of it"
    );
    assert_eq!(row["operation"], "<b>GET</b> /\u{7}\"");
    assert_eq!(row["fault"], "L-3");
    assert_eq!(row["share"], 0.75);
    assert_eq!(row["self_time_ms"], 160.0);
    assert_eq!(row["layer"], "L-3");
    assert_eq!(row["confidence"], "process");
    let split = row["split"].as_object().unwrap();
    let sum: f64 = split.values().map(|v| v.as_f64().unwrap()).sum();
    assert_eq!(sum, 160.0);
    assert_eq!(row["intervals"].as_array().unwrap().len(), 5);
    let trace = row["trace_id"].as_str().unwrap();
    let one = server
        .get(&format!("/api/v1/spans?trace_id={trace}"))
        .await
        .json();
    assert_eq!(one["spans"][0]["verdict"]["cause"], "cpu_throttle");
    let workloads = server.get("/api/v1/workloads").await.json();
    assert_eq!(workloads["workloads"][0]["verdicts"], 3);
    assert_eq!(workloads["workloads"][0]["services"][0], "shop");
    server.stop().await;
}

#[tokio::test]
async fn incidents_tell_who_was_affected_and_since_when() {
    let server = start().await;
    let none = server.get("/api/v1/incidents").await.json();
    assert_eq!(
        (&none["total"], &none["convergence"]),
        (&0.into(), &0.0.into())
    );
    server.record(1..11);
    let (mut pay, mut later) = (plan(12), plan(13));
    pay.service = "pay";
    pay.parts = vec![(Cause::CpuThrottle, 150)];
    later.start = START + 7;
    later.verdict = Some((Cause::Runqueue, Fault::Host, "hog"));
    later.parts = vec![(Cause::Runqueue, 100)];
    let (batch, judgements) = support::batch(&[pay, later], MonoNs(99_000_000_000));
    server.sources.store.record(&batch, judgements);

    let all = server.get("/api/v1/incidents").await.json();
    assert_eq!((&all["total"], &all["verdicts"]), (&2.into(), &12.into()));
    let convergence = all["convergence"].as_f64().unwrap();
    assert!((convergence - (1.0 - 2.0 / 12.0)).abs() < 1e-9);
    let rows = all["incidents"].as_array().unwrap();
    assert_eq!(rows[0]["culprit"], "hog", "the latest first");
    let quota = &rows[1];
    assert_eq!(
        (&quota["verdicts"], &quota["lost_ms"]),
        (&11.into(), &1350.0.into())
    );
    assert_eq!(quota["start_unix_nano"], START.to_string());
    let end = (START + 200_000_000).to_string();
    assert_eq!(
        (&quota["last_seen_unix_nano"], &quota["end_unix_nano"]),
        (&end.clone().into(), &end.into())
    );
    let services = quota["services"].as_array().unwrap();
    assert_eq!(
        (&services[0]["service"], &services[0]["verdicts"]),
        (&"pay".into(), &1.into())
    );
    assert_eq!(services[1]["operations"][0], "<b>GET</b> /\u{7}\"");
    assert_eq!(quota["worst_ms"], 150.0);
    let worst = quota["trace_id"].as_str().unwrap();
    let span = server
        .get(&format!("/api/v1/spans?trace_id={worst}"))
        .await
        .json();
    assert_eq!(span["spans"][0]["service"], "pay");

    for (query, count) in [
        ("service=pay", 1),
        ("cause=runqueue", 1),
        ("limit=1", 1),
        ("service=x", 0),
    ] {
        let some = server
            .get(&format!("/api/v1/incidents?{query}"))
            .await
            .json();
        assert_eq!(
            some["incidents"].as_array().unwrap().len(),
            count,
            "{query}"
        );
    }
    let page = server.get("/metrics").await.body;
    for series in [
        "isostack_incidents_total{service=\"shop\",cause=\"cpu_throttle\",fault=\"L-3\"} 1",
        "isostack_incidents_total{service=\"shop\",cause=\"runqueue\",fault=\"host\"} 1",
    ] {
        assert!(page.contains(series), "{series}");
    }
    assert!(
        !page.contains("isostack_incidents_total{service=\"pay\""),
        "it opened none"
    );
    server.stop().await;
}

#[tokio::test]
async fn events_name_who_suffered_and_who_limited() {
    let server = start().await;
    let limiter = Limiter {
        cgroup_id: 7,
        cgroup_path: "/kubepods/burstable".into(),
        cores: 0.5,
        quota_file: "cpu.max",
        is_ancestor: true,
    };
    let delay = Delay {
        cause: Cause::CpuThrottle,
        start: MonoNs(1_000_000),
        end: MonoNs(4_500_000),
        process: ProcessKey {
            pid: 42,
            start_ticks: 1,
        },
        tid: 43,
        cpu: 1,
        cgroup_id: 71,
        particulars: Particulars::Limiter(Arc::new(limiter)),
    };
    let store = &server.sources.store;
    store.record_event(&Event::Delay(delay), UnixNs(START));
    let steal = |stolen_ns| {
        Event::Steal(Steal {
            cpu: 3,
            start: MonoNs(1),
            end: MonoNs(2),
            stolen_ns,
        })
    };
    store.record_event(&steal(0), UnixNs(START));
    store.record_event(&steal(2_000_000), UnixNs(START));
    let rows = server.get("/api/v1/events").await.json();
    let rows = rows["events"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "a poll without steal is no event");
    assert_eq!(
        (&rows[0]["cause"], &rows[0]["duration_ms"]),
        (&"steal".into(), &2.0.into())
    );
    let row = &rows[1];
    assert_eq!(row["start_unix_nano"], START.to_string());
    assert_eq!(row["duration_ms"], 3.5);
    assert_eq!(row["workload"], "shop/checkout-7d9f6c5b4-x2x9q/checkout");
    assert_eq!(row["limiter"], "/kubepods/burstable");
    let one = server.get("/api/v1/events?cause=cpu_throttle").await.json();
    assert_eq!(one["events"].as_array().unwrap().len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn a_bad_request_is_told_what_is_wrong() {
    let server = start().await;
    for (path, word) in [
        ("/api/v1/spans?limit=ten", "limit"),
        ("/api/v1/verdicts?cause=cpu_trottle", "cpu_throttle"),
        ("/api/v1/verdicts?trace_id=7", "32 hexadecimal digits"),
        ("/api/v1/events?service=shop", "limit, cause"),
        ("/api/v1/incidents?limit=0", "limit"),
        ("/api/v1/incidents?trace_id=7", "limit, service, cause"),
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, 400, "{path}");
        let said = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(said.contains(word), "{path}: {said}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_foreign_host_name_is_refused() {
    let config = HttpConfig {
        allowed_hosts: vec!["node-7".into()],
        ..HttpConfig::default()
    };
    let server = start_with(config, |_| ()).await;
    for (host, status) in [
        ("evil.example", 421),
        ("node-7:9464", 200),
        ("127.0.0.1", 200),
    ] {
        let answer = server
            .ask("/api/v1/host", &format!("Host: {host}\r\n"))
            .await;
        assert_eq!(answer.status, status, "{host}");
    }
    server.stop().await;
}

#[tokio::test]
async fn health_and_readiness_say_what_is_wrong() {
    let server = start_with(HttpConfig::default(), |sources| {
        sources.health = Arc::new(|| Health {
            failed: vec!["forwarder".into()],
        });
        sources.readiness = Arc::new(|| Readiness {
            waiting_for: vec!["sensors".into()],
        });
    })
    .await;
    let health = server.get("/healthz").await;
    assert_eq!(
        (health.status, &health.json()["failed"][0]),
        (503, &"forwarder".into())
    );
    let ready = server.get("/readyz").await;
    assert_eq!(
        (ready.status, &ready.json()["waiting_for"][0]),
        (503, &"sensors".into())
    );
    server.stop().await;
}

#[tokio::test]
async fn a_port_in_use_is_an_error_of_its_own() {
    let server = start().await;
    let config = HttpConfig {
        listen: server.address,
        ..HttpConfig::default()
    };
    let error = bind(config).await.unwrap_err();
    assert!(matches!(error, BindError::InUse(address) if address == server.address));
    assert!(error.to_string().contains(&server.address.to_string()));
    server.stop().await;
}

#[tokio::test]
async fn metrics_are_negotiated() {
    let server = start().await;
    let open = "Host: localhost\r\nAccept: application/openmetrics-text; version=1.0.0\r\n";
    let answer = server.ask("/metrics", open).await;
    assert!(
        answer
            .header("content-type")
            .starts_with("application/openmetrics-text; version=1.0.0")
    );
    assert!(answer.body.ends_with("# EOF\n"));
    assert!(
        answer
            .body
            .contains("isostack_agent_sensor_state{sensor=\"tcp\",state=\"reduced\"} 1")
    );
    let answer = server.get("/metrics").await;
    assert!(
        answer
            .header("content-type")
            .starts_with("text/plain; version=0.0.4")
    );
    server.stop().await;
}

/// Reads until the text contains `word`.
async fn read_until(stream: &mut TcpStream, text: &mut String, word: &str) {
    let mut buffer = [0; 4096];
    while !text.contains(word) {
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await;
        let n = read
            .unwrap_or_else(|_| panic!("no {word} in {text}"))
            .unwrap();
        assert_ne!(n, 0, "ended before {word}: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
}

#[tokio::test]
async fn the_stream_tells_sensors_and_verdicts_and_ends_with_the_server() {
    let config = HttpConfig {
        max_stream_clients: 1,
        ..HttpConfig::default()
    };
    let server = start_with(config, |_| ()).await;
    let mut stream = server.open("/api/v1/stream", "Host: localhost\r\n").await;
    let mut text = String::new();
    read_until(&mut stream, &mut text, "event: sensors").await;
    assert!(text.contains("text/event-stream"));
    let second = server.get("/api/v1/stream").await;
    assert_eq!(second.status, 503);
    assert_eq!(second.header("retry-after"), "30");
    server.record(77..78);
    read_until(&mut stream, &mut text, "event: verdict").await;
    read_until(&mut stream, &mut text, "\"cause\":\"cpu_throttle\"").await;
    assert_eq!(server.sources.metrics.stream_clients.get(), 1);
    let metrics = server.sources.metrics.clone();
    server.stop().await;
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(metrics.stream_clients.get(), 0);
    assert_eq!(metrics.stream_dropped.get(), 0);
}

#[tokio::test]
async fn a_stream_client_that_does_not_read_is_cut_off() {
    let config = HttpConfig {
        client_timeout: Duration::from_millis(500),
        ..HttpConfig::default()
    };
    let server = start_with(config, |_| ()).await;
    let mut stream = server.open("/api/v1/stream", "Host: localhost\r\n").await;
    read_until(&mut stream, &mut String::new(), "event: sensors").await;
    let metrics = server.sources.metrics.clone();
    let flood = async {
        let mut seed = 0;
        while metrics.http_timeouts.get() == 0 {
            server.record(seed..seed + 16);
            seed += 16;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, flood).await.unwrap();
    assert_eq!(metrics.http_timeouts.get(), 1);
    assert_eq!(metrics.stream_clients.get(), 0, "its place is free again");
    assert_eq!(server.get("/healthz").await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn connections_beyond_the_bound_are_refused_and_counted() {
    let config = HttpConfig {
        max_connections: 1,
        ..HttpConfig::default()
    };
    let server = start_with(config, |_| ()).await;
    let mut stream = server.open("/api/v1/stream", "Host: localhost\r\n").await;
    read_until(&mut stream, &mut String::new(), "event: sensors").await;
    let mut second = TcpStream::connect(server.address).await.unwrap();
    let mut nothing = Vec::new();
    let read = tokio::time::timeout(PATIENCE, second.read_to_end(&mut nothing)).await;
    assert_eq!(read.unwrap().unwrap_or(0), 0);
    assert_eq!(server.sources.metrics.http_refused.get(), 1);
    server.stop().await;
}

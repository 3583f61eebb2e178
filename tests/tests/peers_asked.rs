//! An event loop that works on two requests at once: the one waits for a peer that nobody traces,
//! the other for a timer. Only the first is told that its peer was slow.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::ensure;
use harness::{agent::Agent, http, peers, process::Process, wait};
use serde_json::Value;
use tempfile::TempDir;

/// How long the peer, and the timer, takes.
const SLOW_MS: u64 = 600;
/// Requests of each kind before, so that it is known what is usual.
const WARM: u64 = 30;
/// Pairs of slow requests.
const PAIRS: u64 = 6;

/// A server that has its answers from `answer`, a thread for each connection; it ends with the test.
fn serve(answer: fn(TcpStream) -> std::io::Result<()>) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection that breaks is for the service to tell of.
            thread::spawn(move || answer(stream));
        }
    });
    Ok(address)
}

/// Answers after as many milliseconds as it is asked for.
fn slowly(mut stream: TcpStream) -> std::io::Result<()> {
    let mut line = String::new();
    BufReader::new(stream.try_clone()?).read_line(&mut line)?;
    thread::sleep(Duration::from_millis(line.trim().parse().unwrap_or(0)));
    stream.write_all(b"done\n")
}

/// Answers each request of HTTP at once.
fn at_once(mut stream: TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    while let Some(line) = lines.next().transpose()? {
        if line.is_empty() {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
        }
    }
    Ok(())
}

struct Orders {
    address: String,
    agent: Agent,
    _process: Process,
    _state: TempDir,
}

impl Orders {
    fn start() -> anyhow::Result<Self> {
        // What another run knew as usual is not this one's.
        let state = tempfile::tempdir()?;
        let dir = state.path().display().to_string();
        let agent = Agent::start(&["--sensor-budget", "10", "--state-dir", &dir])?;
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = held.local_addr()?.to_string();
        drop(held);
        let mut command = Command::new("node");
        command.arg(peers::node()?.join("orders.mjs")).arg(&address);
        command.arg(serve(at_once)?.to_string());
        command.arg(serve(slowly)?.to_string());
        command.env("OTEL_SERVICE_NAME", "orders").env(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            format!("http://{}", agent.otlp_http),
        );
        let mut process = Process::start("orders", &mut command, None)?;
        process.wait_for_line("listening ")?;
        Ok(Self {
            address,
            agent,
            _process: process,
            _state: state,
        })
    }

    /// A request of this path that does these steps; its trace.
    fn request(&self, number: u64, path: &str, steps: &str) -> anyhow::Result<String> {
        let trace = format!("{:032x}", 0x00a5_c0de_u128 << 64 | u128::from(number));
        let header = format!("00-{trace}-00000000000000aa-01");
        let url = format!("http://{}/{path}?orders={steps}", self.address);
        let answer = http::request("GET", &url, &[("traceparent", &header)], b"")?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.body);
        Ok(trace)
    }

    /// What the agent says of the server span of a trace.
    fn server_span(&self, trace: &str) -> anyhow::Result<Value> {
        let path = format!("/api/v1/spans?trace_id={trace}");
        let is_server = |span: &&Value| span["kind"] == "server";
        wait::until("the span of a request", wait::PATIENCE, || {
            let spans = self.agent.api(&path).ok()?;
            spans["spans"].as_array()?.iter().find(is_server).cloned()
        })
    }
}

/// Milliseconds of its self time that it waited for peers.
fn socket_wait_ms(span: &Value) -> f64 {
    span["split"]["socket_wait"].as_f64().unwrap_or_default()
}

#[test]
fn only_who_asked_a_slow_peer_waited_for_it() -> anyhow::Result<()> {
    let orders = Orders::start()?;
    let mut last = String::new();
    for number in 0..WARM {
        orders.request(2 * number, "buy", "cpu:1")?;
        last = orders.request(2 * number + 1, "report", "cpu:1")?;
        // Tracked, and not all in one batch.
        thread::sleep(Duration::from_millis(25));
    }
    // What is usual is known once these are judged.
    orders.server_span(&last)?;
    let mut pairs = Vec::new();
    for pair in 0..PAIRS {
        let (peer, timer) = (
            format!("cpu:1,peer:{SLOW_MS}"),
            format!("cpu:1,sleep:{SLOW_MS}"),
        );
        let number = 1_000 + 2 * pair;
        pairs.push(thread::scope(|scope| {
            let asks = scope.spawn(|| orders.request(number, "buy", &peer));
            // Of another operation, whose slow ones do not become usual for this one. The clock of the service's spans counts in milliseconds.
            thread::sleep(Duration::from_millis(20));
            let waits = scope.spawn(|| orders.request(number + 1, "report", &timer));
            let joined = [asks, waits].map(|one| one.join().expect("it does not panic"));
            let [asks, waits] = joined;
            anyhow::Ok([asks?, waits?])
        })?);
    }
    let (mut told, mut others) = (0, 0);
    for [asks, waits] in &pairs {
        let (asks, waits) = (orders.server_span(asks)?, orders.server_span(waits)?);
        println!("{asks:#}\n{waits:#}");
        let verdict = &asks["verdict"];
        if verdict["fault"] == "downstream" && verdict["cause"] == "socket_wait" {
            assert!(socket_wait_ms(&asks) > 0.6 * SLOW_MS as f64, "{asks:#}");
            told += 1;
        }
        others += u64::from(waits["verdict"]["cause"] == "socket_wait");
    }
    // A busy machine may be in the way of one.
    assert!(told >= PAIRS - 2, "{told} of {PAIRS} were told");
    assert_eq!(others, 0, "a timer is nobody's answer");
    Ok(())
}

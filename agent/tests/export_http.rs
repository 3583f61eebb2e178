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

#[path = "export_http/answers.rs"]
mod answers;
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
        self.sources.store.record(batch, judgements);
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
            degraded: Vec::new(),
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
async fn what_a_restart_would_not_mend_leaves_it_ready() {
    let server = start_with(HttpConfig::default(), |sources| {
        sources.readiness = Arc::new(|| Readiness {
            waiting_for: Vec::new(),
            degraded: vec!["traces to http://jaeger:4317: refused".into()],
        });
    })
    .await;
    let ready = server.get("/readyz").await;
    assert_eq!((ready.status, &ready.json()["ready"]), (200, &true.into()));
    let degraded = ready.json()["degraded"][0].clone();
    assert!(degraded.as_str().unwrap().contains("refused"), "{degraded}");
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

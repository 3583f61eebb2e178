//! Two services send their spans through a real OpenTelemetry Collector: the connection of the
//! OTLP request is the collector's, and the connections that the spans name are the services'.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use anyhow::Context as _;
use harness::{
    agent::Agent,
    cgroup::Cgroup,
    peers,
    process::Process,
    service::{Language, Service},
    wait,
};
use serde_json::Value;

/// CPU time of one request.
const WORK_MS: u64 = 60;

/// A collector that passes on to `to`, and its address. `dir` is for what it needs.
fn collector(dir: &Path, to: &str) -> anyhow::Result<(Process, String)> {
    // By the name that its distributions have.
    let program = dir.join("otelcol");
    fs::copy(peers::collector()?, &program)?;
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = free.local_addr()?.to_string();
    drop(free);
    let config = dir.join("config.yaml");
    let text = format!(
        "receivers:
  otlp: {{protocols: {{grpc: {{endpoint: \"{address}\"}}}}}}
processors:
  batch: {{timeout: 200ms}}
exporters:
  otlp: {{endpoint: \"{to}\", compression: none, tls: {{insecure: true}}}}
service:
  pipelines:
    traces: {{receivers: [otlp], processors: [batch], exporters: [otlp]}}
  telemetry:
    metrics: {{level: none}}
    logs: {{level: error}}
"
    );
    fs::write(&config, text)?;
    let mut command = Command::new(program);
    command.arg(format!("--config=file:{}", config.display()));
    let process = Process::start("collector", &mut command, None)?;
    wait::until("the collector", wait::PATIENCE, || {
        TcpStream::connect(&address).ok()
    })
    .with_context(|| process.output())?;
    Ok((process, address))
}

/// Whether spans of a service were joined by their connection, or then by the thread.
fn is_joined(agent: &Agent, service: &str) -> bool {
    let Ok(spans) = agent.api(&format!("/api/v1/spans?service={service}&limit=500")) else {
        return false;
    };
    let is_joined =
        |span: &Value| span["confidence"] == "socket" || span["confidence"] == "thread_inferred";
    let spans = spans["spans"].as_array();
    spans.is_some_and(|spans| spans.iter().any(is_joined))
}

#[test]
fn behind_a_collector_spans_are_of_who_holds_their_connections() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let state = dir.path().join("state").display().to_string();
    let agent = Agent::start(&["--state-dir", &state])?;
    let (collector, address) = collector(dir.path(), &agent.otlp_grpc)?;
    let endpoint = format!("http://{address}");
    let groups = ["free", "limited"].map(|name| Cgroup::create(&format!("isostack-test-{name}")));
    let [free, limited] = groups;
    let (free, limited) = (free?, limited?);
    let quick = Service::start(Language::Python, "quick", &endpoint, Some(&free))?;
    let slow = Service::start(Language::Python, "slow", &endpoint, Some(&limited))?;
    limited.limit_cpu(20)?;
    let verdict = wait::until("a verdict by way of the collector", wait::PATIENCE, || {
        for service in [&quick, &slow] {
            service.request(WORK_MS).ok()?;
        }
        thread::sleep(Duration::from_millis(500));
        let path = "/api/v1/verdicts?service=slow&cause=cpu_throttle";
        let verdict = agent.api(path).ok()?["verdicts"].get(0).cloned()?;
        let is_joined = |service| is_joined(&agent, service);
        ["quick", "slow"]
            .into_iter()
            .all(is_joined)
            .then_some(verdict)
    })
    .with_context(|| format!("{}\n{}", agent.process.output(), collector.output()))?;
    assert_eq!(verdict["fault"], "L-3", "{verdict:#}");
    let summary = verdict["summary"].as_str().unwrap_or_default();
    assert!(summary.contains("isostack-test-limited"), "{verdict:#}");
    // Before their threads are known, the connection is all there is.
    let by_socket = agent.metric("isostack_agent_join_total{confidence=\"socket\"}");
    assert!(by_socket.is_some_and(|n| n > 0.0), "{by_socket:?}");
    // The one is not told what holds the other back, and nobody is taken for the collector.
    let others = agent.api("/api/v1/verdicts?service=quick&cause=cpu_throttle")?;
    assert_eq!(
        others["verdicts"].as_array().map(Vec::len),
        Some(0),
        "{others:#}"
    );
    let workloads = agent.api("/api/v1/workloads")?.to_string();
    assert!(!workloads.contains("otelcol"), "{workloads}");
    Ok(())
}

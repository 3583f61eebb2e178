//! `isostack-agent trace` finds the slow hop of a request through three services, by what a
//! real Jaeger has of it and by what the agent remembers; `top` sees who is held back.

use std::{
    net::{Ipv4Addr, TcpListener},
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, ensure};
use harness::{
    agent::Agent, artifact, cgroup::Cgroup, http, jaeger::Jaeger, peers, process::Process, wait,
};
use serde_json::Value;

/// Share of one CPU under the quota, in percent.
const QUOTA_PERCENT: u64 = 10;

/// Two event loops in JavaScript and a pool of threads in Python, each calling the next.
struct Chain {
    address: String,
    limited: Cgroup,
    agent: Agent,
    jaeger: Jaeger,
    _services: [Process; 3],
}

/// Addresses that are free now.
fn addresses() -> anyhow::Result<[String; 3]> {
    let held = [0; 3].map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
    let mut addresses = [const { String::new() }; 3];
    for (address, held) in addresses.iter_mut().zip(held) {
        *address = held?.local_addr()?.to_string();
    }
    Ok(addresses)
}

impl Chain {
    fn start() -> anyhow::Result<Self> {
        let jaeger = Jaeger::start()?;
        let agent = Agent::start(&["--export-endpoint", &jaeger.otlp_grpc()])?;
        let [web, orders, store] = addresses()?;
        let limited = Cgroup::create("isostack-test-trace")?;
        let data = tempfile::tempdir()?;
        let mut python = Command::new(peers::python()?);
        python
            .arg(artifact::root().join("tests/services/python/store.py"))
            .arg(&store)
            .arg(data.path());
        let start = |name: &str, mut command: Command, otlp: &str, cgroup| {
            command
                .env("OTEL_SERVICE_NAME", name)
                .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{otlp}"))
                .env("PYTHONUNBUFFERED", "1");
            let mut process = Process::start(name, &mut command, cgroup)?;
            process.wait_for_line("listening ")?;
            anyhow::Ok(process)
        };
        let node = |listen: &str, next: &str| {
            let mut command = Command::new("node");
            command.arg(peers::node()?.join("orders.mjs"));
            command.args([listen, next, "127.0.0.1:9"]);
            anyhow::Ok(command)
        };
        let services = [
            start("store", python, &agent.otlp_grpc, Some(&limited))?,
            start("orders", node(&orders, &store)?, &agent.otlp_http, None)?,
            start("web", node(&web, &orders)?, &agent.otlp_http, None)?,
        ];
        Ok(Self {
            address: web,
            limited,
            agent,
            jaeger,
            _services: services,
        })
    }

    /// A request of this number that takes so much CPU time in the last service.
    fn request(&self, number: u32, cpu_ms: u32) -> anyhow::Result<String> {
        let trace = format!(
            "{:032x}",
            0x00af_7651_916c_d43d_u128 << 64 | u128::from(number)
        );
        let header = format!("00-{trace}-00000000000000aa-01");
        let url = format!(
            "http://{}/buy?orders=cpu:2&store=cpu:{cpu_ms}",
            self.address
        );
        let answer = http::request("GET", &url, &[("traceparent", &header)], b"")?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.body);
        // Two of web, two of orders, one of store.
        self.jaeger.wait_for_trace(&trace, 5)?;
        Ok(trace)
    }
}

fn agent_command(arguments: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(artifact::program("isostack-agent")?);
    command.args(arguments).env_remove("ISOSTACK_AGENT");
    Ok(command)
}

fn json(output: &Output) -> anyhow::Result<Value> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}", output.status);
    serde_json::from_slice(&output.stdout).with_context(|| said.into_owned())
}

fn trace(arguments: &[&str]) -> anyhow::Result<Value> {
    let arguments = [&["trace", "--output", "json"], arguments].concat();
    json(&agent_command(&arguments)?.output()?)
}

fn assert_blames_the_store(report: &Value) {
    assert_eq!(report["slowest_hop"]["service"], "store", "{report:#}");
    assert_eq!(report["slowest_hop"]["operation"], "GET /buy", "{report:#}");
    let verdict = &report["verdict"];
    assert_eq!(verdict["service"], "store", "{report:#}");
    assert_eq!(verdict["fault"], "L-3", "{report:#}");
    assert_eq!(verdict["cause"], "cpu_throttle", "{report:#}");
    let path = report["critical_path"].as_array().into_iter().flatten();
    let services: Vec<_> = path
        .clone()
        .filter_map(|hop| hop["service"].as_str())
        .collect();
    for service in ["web", "orders", "store"] {
        assert!(services.contains(&service), "{report:#}");
    }
    let sum: f64 = path.filter_map(|hop| hop["critical_ms"].as_f64()).sum();
    let whole = report["duration_ms"].as_f64().unwrap_or_default();
    assert!((sum - whole).abs() < 1e-6 * whole, "{sum}, {whole}");
    let split = &report["slowest_hop"]["split"];
    assert!(split["cpu_throttle"].as_f64() > Some(0.0), "{report:#}");
    assert_ne!(report["slowest_hop"]["stretches"], Value::Array(Vec::new()));
}

#[test]
fn the_slow_hop_of_three_services_is_found_and_explained() -> anyhow::Result<()> {
    let chain = Chain::start()?;
    for number in 1..=5 {
        chain.request(number, 5)?;
    }
    chain.limited.limit_cpu(QUOTA_PERCENT)?;
    let page = format!("http://{}", chain.agent.http);
    let top = agent_command(&[
        "top",
        "--agent",
        &page,
        "--output",
        "json",
        "--interval",
        "2",
    ])?
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()?;
    let slow = chain.request(100, 80)?;
    chain.limited.limit_cpu(100)?;

    let top = json(&top.wait_with_output()?)?;
    let rows = top["workloads"].as_array().into_iter().flatten();
    let held_back = |row: &&Value| row["lost_ms_per_second"]["cpu_throttle"].as_f64() > Some(0.0);
    let services = |row: &Value| row["services"].to_string();
    let found: Vec<_> = rows.filter(held_back).map(services).collect();
    assert!(found.iter().any(|names| names.contains("store")), "{top:#}");

    let jaeger = chain.jaeger.query_url();
    let by_jaeger = trace(&[&slow, "--jaeger", &jaeger])?;
    assert_blames_the_store(&by_jaeger);
    assert_eq!(by_jaeger["spans_total"], 5);

    // The agent shows what it judged a moment after it sent it on.
    let by_agent = wait::until("the trace in the agent's memory", wait::PATIENCE, || {
        let report = trace(&[&slow, "--agent", &page]).ok()?;
        (report["spans_total"] == 5).then_some(report)
    })?;
    assert_blames_the_store(&by_agent);
    assert!(
        !by_agent["slowest_hop"]["workload"]
            .as_str()
            .unwrap_or_default()
            .is_empty()
    );

    // What Jaeger's page downloads.
    let file = tempfile::NamedTempFile::new()?;
    let download = http::get(&format!("{jaeger}/api/traces/{slow}"))?;
    std::fs::write(file.path(), download.body)?;
    let path = file.path().to_str().context("a path of ours")?;
    assert_blames_the_store(&trace(&[&slow, "--file", path])?);

    // From the verdict to the kernel's events behind it.
    let events = http::get(&format!(
        "{page}/api/v1/events?trace_id={slow}&cause=cpu_throttle"
    ))?
    .json()?;
    let events = events["events"].as_array().context("no events")?;
    assert!(!events.is_empty());

    // A trace that nobody has.
    let absent = agent_command(&[
        "trace",
        "ffffffffffffffffffffffffffffffff",
        "--jaeger",
        &jaeger,
    ])?
    .output()?;
    assert_eq!(absent.status.code(), Some(1));
    let said = String::from_utf8_lossy(&absent.stderr);
    assert!(said.contains("is not in Jaeger"), "{said}");
    Ok(())
}

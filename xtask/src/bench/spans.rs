//! The span path: CPU per span and added latency, the agent against a Collector with the
//! OTLP receiver, the attributes processor, batching and the OTLP exporter. Same load, same
//! sink, in turns.

use std::{
    fs,
    io::Read as _,
    net::TcpListener,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use harness::{agent::Agent, peers, process::Process, wait};
use serde_json::Value;

use super::{Programs, Row, median, usage};

const RATE: u32 = 20_000;
/// Of each run.
pub const SECONDS: u32 = 5;
/// The agent's waiting time for late events, taken off its latency.
pub const SETTLE_MS: u64 = 500;

/// One run's numbers.
pub struct Run {
    us_per_span: f64,
    /// While spans were sent and what followed.
    pub cores: f64,
    /// With [`SETTLE_MS`] and what sending takes.
    pub p50_ms: f64,
    /// Likewise.
    pub p99_ms: f64,
    highest_mb: f64,
}

pub fn measure(programs: &Programs, repeat: usize) -> anyhow::Result<Vec<Row>> {
    println!("Spans: {RATE}/s for {SECONDS} s, {repeat} times through each, in turns");
    let collector = peers::collector()?;
    let (mut ours, mut theirs, mut straight) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..repeat {
        straight.push(to_the_sink(programs)?);
        theirs.push(through_collector(programs, &collector)?);
        ours.push(through_agent(programs, &[], |_| Ok(()))?.0);
    }
    let of = |runs: &[Run], pick: fn(&Run) -> f64| median(runs.iter().map(pick).collect());
    let (our_cpu, their_cpu) = (
        of(&ours, |run| run.us_per_span),
        of(&theirs, |run| run.us_per_span),
    );
    let settle = SETTLE_MS as f64;
    // What encoding, sending and decoding a batch takes by itself.
    let (base_p50, base_p99) = (
        median(straight.iter().map(|run| run.0).collect()),
        median(straight.iter().map(|run| run.1).collect()),
    );
    let row = |name, value, unit, bar| Row {
        part: "spans",
        name,
        value,
        unit,
        bar,
    };
    Ok(vec![
        row("CPU per span, agent", our_cpu, "us", ""),
        row("CPU per span, Collector", their_cpu, "us", ""),
        row(
            "CPU per span, ratio",
            our_cpu / their_cpu,
            "",
            "at most 0.5, goal 0.33",
        ),
        row(
            "added latency p50 beyond settle, agent",
            of(&ours, |run| run.p50_ms) - settle - base_p50,
            "ms",
            "",
        ),
        row(
            "added latency p99 beyond settle, agent",
            of(&ours, |run| run.p99_ms) - settle - base_p99,
            "ms",
            "at most 5",
        ),
        row(
            "added latency p99, Collector",
            of(&theirs, |run| run.p99_ms) - base_p99,
            "ms",
            "",
        ),
        row(
            "highest resident memory, agent",
            of(&ours, |run| run.highest_mb),
            "MB",
            "",
        ),
        row(
            "highest resident memory, Collector",
            of(&theirs, |run| run.highest_mb),
            "MB",
            "",
        ),
    ])
}

/// Latency p50 and p99 in milliseconds with nothing in between.
pub fn to_the_sink(programs: &Programs) -> anyhow::Result<(f64, f64)> {
    let sink = Sink::start(programs)?;
    let address = sink.endpoint.trim_start_matches("http://").to_owned();
    send(programs, &address, SECONDS)?;
    let seen = sink.stop()?;
    let latency = |name: &str| seen[name].as_f64().context("no latency");
    Ok((latency("latency_p50_ms")?, latency("latency_p99_ms")?))
}

/// Through an agent with these flags, too; and what a look at it at the end gave.
pub fn through_agent<T>(
    programs: &Programs,
    flags: &[&str],
    look: impl FnOnce(&Agent) -> anyhow::Result<T>,
) -> anyhow::Result<(Run, T)> {
    let sink = Sink::start(programs)?;
    let settle = format!("{SETTLE_MS}ms");
    let mut all = vec!["--export-endpoint", &sink.endpoint, "--settle", &settle];
    all.extend(flags);
    let agent = programs.start_agent(&all)?;
    let run = load(programs, &agent.otlp_grpc, agent.process.pid(), sink)?;
    Ok((run, look(&agent)?))
}

fn through_collector(programs: &Programs, collector: &std::path::Path) -> anyhow::Result<Run> {
    let sink = Sink::start(programs)?;
    let listen = free_address()?;
    let config = tempfile::Builder::new().suffix(".yaml").tempfile()?;
    fs::write(config.path(), collector_config(&listen, &sink.endpoint))?;
    let mut command = Command::new(collector);
    command.arg(format!("--config=file:{}", config.path().display()));
    let collector = Process::start("collector", &mut command, None)?;
    wait::until("the Collector", wait::PATIENCE, || {
        std::net::TcpStream::connect(&listen).ok()
    })
    .with_context(|| collector.output())?;
    load(programs, &listen, collector.pid(), sink)
}

/// Sends a second to warm up, then measures.
fn load(programs: &Programs, address: &str, pid: u32, sink: Sink) -> anyhow::Result<Run> {
    send(programs, address, 1)?;
    thread::sleep(Duration::from_millis(SETTLE_MS * 2));
    let (began, before) = (Instant::now(), usage::cpu(pid)?);
    let accepted = send(programs, address, SECONDS)?;
    // What still settles or waits in a batch is part of the work.
    thread::sleep(Duration::from_millis(SETTLE_MS * 3));
    let used = usage::cpu(pid)? - before;
    let cores = used.as_secs_f64() / began.elapsed().as_secs_f64();
    let (_, highest_mb) = usage::memory_mb(pid)?;
    let seen = sink.stop()?;
    let spans = seen["spans"].as_u64().unwrap_or_default();
    ensure!(
        spans >= accepted,
        "{accepted} spans were accepted, {spans} arrived"
    );
    Ok(Run {
        cores,
        us_per_span: used.as_secs_f64() * 1e6 / accepted as f64,
        p50_ms: seen["latency_p50_ms"].as_f64().context("no latency")?,
        p99_ms: seen["latency_p99_ms"].as_f64().context("no latency")?,
        highest_mb,
    })
}

/// Number of spans that were accepted.
fn send(programs: &Programs, address: &str, seconds: u32) -> anyhow::Result<u64> {
    let output = Command::new(&programs.load)
        .args([
            "send",
            "--endpoint",
            &format!("http://{address}"),
            "--rate",
            &RATE.to_string(),
        ])
        .args(["--seconds", &seconds.to_string()])
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "span-load send failed");
    let report: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(report["refused"] == 0, "spans were refused: {report}");
    report["accepted"].as_u64().context("no count")
}

/// The receiving end; ends with its standard input.
struct Sink {
    child: Child,
    endpoint: String,
}

impl Sink {
    fn start(programs: &Programs) -> anyhow::Result<Self> {
        let address = free_address()?;
        let child = Command::new(&programs.load)
            .args(["sink", "--listen", &address])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let sink = Self {
            child,
            endpoint: format!("http://{address}"),
        };
        wait::until("the sink", wait::PATIENCE, || {
            std::net::TcpStream::connect(&address).ok()
        })?;
        Ok(sink)
    }

    fn stop(mut self) -> anyhow::Result<Value> {
        drop(self.child.stdin.take());
        let mut report = String::new();
        self.child
            .stdout
            .take()
            .context("stdout")?
            .read_to_string(&mut report)?;
        self.child.wait()?;
        serde_json::from_str(&report).context(report)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> anyhow::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

fn collector_config(listen: &str, sink: &str) -> String {
    format!(
        "receivers:
  otlp: {{protocols: {{grpc: {{endpoint: \"{listen}\"}}}}}}
processors:
  attributes: {{actions: [{{key: node, value: here, action: upsert}}]}}
  batch: {{}}
exporters:
  otlp: {{endpoint: \"{sink}\", compression: none, tls: {{insecure: true}}}}
service:
  pipelines:
    traces: {{receivers: [otlp], processors: [attributes, batch], exporters: [otlp]}}
  telemetry:
    metrics: {{level: none}}
    logs: {{level: error}}
"
    )
}

//! The join `thread` against the truth: many requests at once on few threads under a CPU quota,
//! each of which knows how long it was held up. The agent sees only what OpenTelemetry's thread
//! context publishes.

use std::{
    collections::HashMap,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use harness::{agent::Agent, artifact, cgroup::Cgroup, process::Process};
use serde_json::Value;

/// Of one CPU, in percent: three threads that never rest use it up in a fraction of a period.
const QUOTA_PERCENT: u64 = 60;
/// How long the requests run.
const SECONDS: u64 = 14;
/// So much may be told of another span, or not told, in milliseconds: what is too short to be
/// told, and how far clocks are off.
const UNTOLD_MS: f64 = 3.0;

/// What a span may consist of beside what holds it up.
const NOT_HELD_UP: &[&str] = &["on_cpu", "downstream", "unexplained"];

/// What the agent said of a span.
struct Said {
    confidence: String,
    start_ns: u64,
    held_up_ms: f64,
    row: String,
}

fn number(value: &Value) -> u64 {
    let text = value.as_str().unwrap_or_default();
    text.parse().unwrap_or_default()
}

/// Everything that the agent says of `tasks` until its end, by span.
fn listen(agent: &Agent, tasks: &mut Process) -> anyhow::Result<HashMap<String, Said>> {
    let mut said = HashMap::new();
    let mut ended = None;
    loop {
        let rows = agent.api("/api/v1/spans?limit=500")?;
        for row in rows["spans"].as_array().context("no spans")? {
            let id = row["span_id"].as_str().unwrap_or_default();
            if said.contains_key(id) {
                continue;
            }
            let split = row["split"].as_object().cloned().unwrap_or_default();
            let held_up = split
                .iter()
                .filter(|(cause, _)| !NOT_HELD_UP.contains(&cause.as_str()));
            let of_span = Said {
                confidence: row["confidence"].as_str().unwrap_or_default().to_owned(),
                start_ns: number(&row["start_unix_nano"]),
                held_up_ms: held_up.filter_map(|(_, ms)| ms.as_f64()).sum(),
                row: row.to_string(),
            };
            said.insert(id.to_owned(), of_span);
        }
        if !tasks.is_running() {
            let ended = ended.get_or_insert_with(Instant::now);
            if ended.elapsed() > Duration::from_secs(2) {
                return Ok(said);
            }
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Milliseconds that a span was held up, as it says itself: at least and at most.
type Truth = (f64, f64);

fn truth(output: &str) -> HashMap<String, Truth> {
    let lines = output
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let spans = lines.filter_map(|line| {
        let ms = |name: &str| Some(line[name].as_u64()? as f64 / 1e3);
        let held_up = (ms("least_us")?, ms("most_us")?);
        Some((line["span_id"].as_str()?.to_owned(), held_up))
    });
    spans.collect()
}

fn run(agent: &mut Agent, flags: &[&str]) -> anyhow::Result<Vec<(Said, Truth)>> {
    let cgroup = Cgroup::create("isostack-test-contexts")?;
    cgroup.limit_cpu(QUOTA_PERCENT)?;
    let mut command = Command::new(artifact::program("tasks")?);
    command
        .args(["--seconds", &SECONDS.to_string()])
        .args(flags)
        .env("OTEL_SERVICE_NAME", "tasks")
        .env(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            format!("http://{}", agent.otlp_grpc),
        );
    let mut tasks = Process::start("tasks", &mut command, Some(&cgroup))?;
    let said = listen(agent, &mut tasks)?;
    let truth = truth(&tasks.output());
    ensure!(!truth.is_empty(), "{}", tasks.output());
    // The agent learns from the first spans who sends, and then looks at the process.
    let first = said.values().map(|said| said.start_ns).min().unwrap_or(0);
    let known = first + 5_000_000_000;
    let known = said.into_iter().filter(|(_, said)| said.start_ns > known);
    Ok(known
        .filter_map(|(id, said)| Some((said, *truth.get(&id)?)))
        .collect())
}

#[test]
fn what_holds_up_a_thread_is_told_of_the_span_that_it_worked_on() -> anyhow::Result<()> {
    let mut agent = Agent::start(&[])?;
    let spans = run(&mut agent, &[])?;
    let output = agent.process.output();
    assert!(
        output.contains("Publishes its threads' contexts"),
        "{output}"
    );
    let (mut held_up, mut missed, mut anothers) = (0, 0, 0);
    let (mut told_ms, mut least_ms, mut most_ms) = (0.0, 0.0, 0.0);
    for (said, (least, most)) in &spans {
        told_ms += said.held_up_ms;
        least_ms += least;
        most_ms += most;
        if *least > 2.0 * UNTOLD_MS {
            held_up += 1;
            missed += usize::from(said.confidence != "thread" || said.held_up_ms < least / 2.0);
        }
        if said.held_up_ms > most + UNTOLD_MS {
            anothers += 1;
            println!("told {:.1} of {most:.1} ms: {}", said.held_up_ms, said.row);
        }
    }
    println!(
        "{} spans, {held_up} held up, {missed} of them missed, {anothers} told another's; told \
         {told_ms:.0} ms of {least_ms:.0} to {most_ms:.0} ms",
        spans.len()
    );
    assert!(
        spans.len() > 200 && held_up > 50,
        "too little load: {output}"
    );
    assert!(anothers * 200 <= spans.len(), "told what is another's");
    // Of a wait that is spread over two processors, the kernel says only the last part.
    assert!(missed * 10 <= held_up, "misses what is its own");
    assert!(told_ms >= 0.9 * least_ms && told_ms <= most_ms * 1.01);
    let joined = agent.metric("isostack_agent_join_total{confidence=\"thread\"}");
    assert!(joined > Some(0.0), "{joined:?}");
    Ok(())
}

#[test]
fn without_contexts_nothing_is_joined_by_thread() -> anyhow::Result<()> {
    let mut agent = Agent::start(&[])?;
    let spans = run(&mut agent, &["--silent"])?;
    assert!(spans.len() > 200, "{}", spans.len());
    for (said, _) in spans {
        assert_ne!(said.confidence, "thread");
    }
    Ok(())
}

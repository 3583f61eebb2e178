//! One run: load, inject, hold, take out, wait for the spans, score.

use std::{
    collections::HashMap,
    thread,
    time::{Duration, Instant},
};

use crate::{
    fault::{self, Effect},
    load::{Load, Request},
    plan::Spec,
    score::{self, Outcome, Window},
    service::Service,
    sink::{Span, unix_ns},
    stage::Stage,
};

/// Spans that the services make of one request, without `rates`.
const SPANS: usize = 5;
/// Spans of asking `rates`.
const SPANS_OF_RATES: usize = 2;
/// Longest wait for the last spans of a run.
const PATIENCE: Duration = Duration::from_secs(6);

/// Does one run.
///
/// # Errors
/// When the stage is broken; that an injection is refused or void is an outcome.
pub fn run(spec: &Spec, stage: &mut Stage) -> anyhow::Result<Outcome> {
    stage.check()?;
    stage.sink.clear();
    let front = stage.network.place("front").address;
    let load = Load::start(front, spec.clients, spec.pause, spec.script(false))?;
    thread::sleep(spec.lead);
    let mut active = Vec::new();
    let injected_ns = unix_ns();
    for fault in &spec.faults {
        active.push(fault::inject(fault, stage)?);
    }
    load.ask_for(spec.script(true));
    thread::sleep(spec.hold);
    let mut effects: Vec<Effect> = Vec::new();
    for active in active {
        effects.push(active.remove(stage)?);
    }
    let removed_ns = unix_ns();
    load.ask_for(spec.script(false));
    let requests = load.stop();
    let spans = spans(&requests, stage);
    let window = (!spec.faults.is_empty()).then_some(Window {
        start_ns: injected_ns,
        end_ns: removed_ns,
    });
    Ok(score::score(
        spec,
        &effects,
        window,
        &requests,
        &spans,
        &stage.sampler,
        stage.disk.name.starts_with("vd"),
    ))
}

/// Answers from which on the agent knows what is usual: twenty are needed of each path, every
/// fifth is of the slow one, and the JVM compiles.
pub const USUAL_KNOWN: usize = 150;
/// The same of the quick path only.
pub const QUICK_KNOWN: usize = 40;

/// Requests on both paths until so many are answered.
///
/// # Errors
/// When none is answered.
pub fn warm_up(spec: &Spec, stage: &mut Stage, answers: usize) -> anyhow::Result<()> {
    let front = stage.network.place("front").address;
    let load = Load::start(front, 2, Duration::from_millis(5), spec.script(false))?;
    let end = Instant::now() + Duration::from_secs(60);
    while load.answered() < answers && Instant::now() < end {
        thread::sleep(Duration::from_millis(100));
    }
    let requests = load.stop();
    let answered = requests.iter().filter(|request| request.ok).count();
    anyhow::ensure!(
        answered > 0,
        "no request is answered:\n{}",
        stage
            .services
            .iter()
            .map(|s| s.process.output())
            .collect::<Vec<_>>()
            .join("\n")
    );
    let spans = spans(&requests, stage);
    anyhow::ensure!(!spans.is_empty(), "no span came back from the agent");
    Ok(())
}

/// The spans of these requests, once all are there (or the patience is over).
fn spans(requests: &[Request], stage: &Stage) -> Vec<Span> {
    let traces: HashMap<&str, ()> = requests.iter().map(|r| (r.trace.as_str(), ())).collect();
    let asked = requests
        .iter()
        .filter(|r| r.asks_rates && r.ok && stage.has(Service::Rates));
    let all = traces.len() * SPANS + asked.count() * SPANS_OF_RATES;
    let end = Instant::now() + PATIENCE;
    loop {
        let spans = stage.sink.of(|trace| traces.contains_key(trace));
        let own = spans.iter().filter(|span| !span.is_synthetic()).count();
        if own >= all || Instant::now() >= end {
            return spans;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

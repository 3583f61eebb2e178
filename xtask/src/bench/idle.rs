//! The agent by itself: how fast it is ready, what it costs when nothing happens.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{Programs, Row, median, usage};

/// How long it is watched doing nothing.
const WATCH: Duration = Duration::from_secs(10);

pub fn measure(programs: &Programs) -> anyhow::Result<Vec<Row>> {
    println!("Idle: {} s", WATCH.as_secs());
    let mut ready = Vec::new();
    for _ in 0..3 {
        let began = Instant::now();
        let agent = programs.start_agent(&[])?;
        ready.push(began.elapsed().as_secs_f64());
        drop(agent);
    }
    let agent = programs.start_agent(&[])?;
    thread::sleep(Duration::from_secs(2));
    let before = usage::cpu(agent.process.pid())?;
    thread::sleep(WATCH);
    let used = usage::cpu(agent.process.pid())? - before;
    let (resident, _) = usage::memory_mb(agent.process.pid())?;
    let percent = used.as_secs_f64() / WATCH.as_secs_f64() * 100.0;
    let row = |name, value, unit, bar| Row {
        part: "idle",
        name,
        value,
        unit,
        bar,
    };
    Ok(vec![
        row(
            "ready after (seen by polling every 50 ms)",
            median(ready),
            "s",
            "at most 1",
        ),
        row("CPU", percent, "%", "below 1 of a core"),
        row("resident memory", resident, "MB", "at most 64"),
    ])
}

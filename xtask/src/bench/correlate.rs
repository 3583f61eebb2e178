//! The pipeline at its load: what spans and events cost, how much memory two minutes of them
//! take, and whether a span costs more the more is kept. `span-load correlate` is the pipeline
//! without anything around it.

use std::process::Command;

use anyhow::ensure;
use serde_json::Value;

use super::{Programs, Row, median};

/// Measured names, in the order of the values of a run.
const NAMES: [(&str, &str, &str); 7] = [
    (
        "10 000 spans/s with 50 000 events/s",
        "cores",
        "at most 0.3",
    ),
    ("of that the events", "cores", ""),
    ("memory of 120 s of it, all included", "MB", "at most 64"),
    ("intervals kept", "M", "6 in 120 s"),
    ("a span, events of 1 s kept", "us", ""),
    ("a span, events of 10 s kept", "us", "not more than of 1 s"),
    ("a span, events of 100 s kept", "us", "not more than of 1 s"),
];

pub fn measure(programs: &Programs, repeat: usize) -> anyhow::Result<Vec<Row>> {
    println!("Correlate: 130 s of 10 000 spans/s and 50 000 events/s, {repeat} times");
    let mut runs = Vec::new();
    for seed in 1..=repeat {
        let output = Command::new(&programs.load)
            .args(["correlate", "--seed", &seed.to_string()])
            .output()?;
        ensure!(
            output.status.success(),
            "span-load correlate failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        runs.push(values(&serde_json::from_slice(&output.stdout)?));
    }
    let rows = NAMES.iter().enumerate().map(|(at, (name, unit, bar))| Row {
        part: "correlate",
        name,
        value: median(runs.iter().map(|run| run[at]).collect()),
        unit,
        bar,
    });
    Ok(rows.collect())
}

fn values(report: &Value) -> [f64; NAMES.len()] {
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let events = number(&report["events_cores"]);
    let by_kept = &report["span_us_by_seconds_kept"];
    [
        events + number(&report["spans_cores"]),
        events,
        number(&report["memory_mb"]),
        number(&report["intervals_kept"]) / 1e6,
        number(&by_kept[0]),
        number(&by_kept[1]),
        number(&by_kept[2]),
    ]
}

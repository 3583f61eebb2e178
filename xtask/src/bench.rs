//! `cargo xtask bench`: what the agent costs, as ratios inside one run: with it against
//! without it, and its span path against a real Collector's.

mod correlate;
mod disk;
mod flood;
mod floor;
mod host;
mod identify;
mod idle;
mod logs;
mod pingpong;
mod soak;
mod spans;
mod usage;

use std::{fs, path::PathBuf};

use anyhow::ensure;
use harness::{agent::Agent, artifact};
use serde_json::{Map, Value, json};

use crate::{
    dist,
    setup::{self, Purpose},
};

/// Flags of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Args {
    /// Run only the parts whose name contains this: spans, host, idle,
    /// identify, logs, flood, correlate, soak.
    #[arg(long)]
    only: Option<String>,
    /// Repetitions of each side of a comparison; the median counts.
    #[arg(long, default_value_t = 5)]
    repeat: usize,
    /// Where the numbers go as JSON [default: target/bench.json]
    #[arg(long)]
    output: Option<PathBuf>,
}

/// One line of the table.
struct Row {
    part: &'static str,
    name: &'static str,
    value: f64,
    unit: &'static str,
    /// The bar that the project set itself, in words.
    bar: &'static str,
}

/// Measures, prints a table, writes JSON.
///
/// # Errors
/// When something cannot be built, started or measured; never because of a number.
pub fn run(args: &Args) -> anyhow::Result<()> {
    setup::need_root("cargo xtask bench (it loads eBPF programs)")?;
    ensure!(args.repeat > 0, "--repeat must be above 0");
    setup::run(Purpose::Bench)?;
    println!("Building with optimisation");
    let programs = Programs::build()?;
    let wants = |part: &str| {
        args.only
            .as_ref()
            .is_none_or(|only| part.contains(only.as_str()))
    };
    let mut rows = Vec::new();
    if wants("idle") {
        rows.extend(idle::measure(&programs)?);
    }
    if wants("spans") {
        rows.extend(spans::measure(&programs, args.repeat)?);
    }
    if wants("identify") {
        rows.extend(identify::measure(&programs, args.repeat)?);
    }
    if wants("logs") {
        rows.extend(logs::measure(&programs, args.repeat)?);
    }
    if wants("flood") {
        rows.extend(flood::measure(&programs, args.repeat)?);
    }
    if wants("correlate") {
        rows.extend(correlate::measure(&programs, args.repeat)?);
    }
    if wants("soak") {
        rows.extend(soak::measure(&programs)?);
    }
    if wants("host") {
        rows.extend(host::measure(&programs, args.repeat)?);
    }
    println!();
    let mut parts = Map::new();
    for row in &rows {
        println!(
            "{:<6} {:<44} {:>9.3} {:<5} {}",
            row.part, row.name, row.value, row.unit, row.bar
        );
        let part = parts.entry(row.part).or_insert_with(|| json!({}));
        part[row.name] = json!({"value": row.value, "unit": row.unit, "bar": row.bar});
    }
    let output = args
        .output
        .clone()
        .unwrap_or_else(|| artifact::root().join("target/bench.json"));
    fs::write(&output, format!("{:#}\n", Value::Object(parts)))?;
    println!("\n{}", output.display());
    Ok(())
}

/// The static release builds: what users run.
struct Programs {
    agent: PathBuf,
    load: PathBuf,
}

impl Programs {
    fn build() -> anyhow::Result<Self> {
        Ok(Self {
            agent: dist::static_binary("isostack-agent", false)?,
            load: dist::static_binary("span-load", false)?,
        })
    }

    /// The agent on free ports.
    fn start_agent(&self, flags: &[&str]) -> anyhow::Result<Agent> {
        Agent::start_program(&self.agent, "127.0.0.1", [0; 3], flags)
    }
}

/// The middle value.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_value() {
        assert!((median(vec![9.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!(median(Vec::new()).is_nan());
    }
}

//! The span path beside a flood of log lines: the same spans through an agent that follows a file
//! which somebody fills as fast as a busy disk, and through one that does not. The file is filled
//! both times, so that what differs is what the agent makes of it.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use harness::agent::Agent;

use super::{
    Programs, Row, logs, median,
    spans::{self, Run, SECONDS, SETTLE_MS},
};

/// Megabytes of lines in a second.
const MB_PER_S: usize = 50;
/// What is written at once.
const PIECE: Duration = Duration::from_millis(20);
/// One line in so many is out of the list of those that speak of a layer.
const SPEAKING_ONE_IN: usize = 2;
/// The file is cut to nothing when it is larger.
const MAX_FILE_BYTES: u64 = 256 << 20;

pub fn measure(programs: &Programs, repeat: usize) -> anyhow::Result<Vec<Row>> {
    println!(
        "Flood: spans beside {MB_PER_S} MB/s of log lines, followed and not, {repeat} times each, \
         in turns"
    );
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("flood.log");
    let flood = Flood::start(&path)?;
    let (mut with, mut without, mut straight) = (Vec::new(), Vec::new(), Vec::new());
    let mut lines = f64::INFINITY;
    for _ in 0..repeat {
        straight.push(spans::to_the_sink(programs)?);
        without.push(spans::through_agent(programs, &[], |_| Ok(()))?.0);
        let flags = ["--log-file", path.to_str().context("a temporary name")?];
        let (run, counted) = spans::through_agent(programs, &flags, matched)?;
        with.push(run);
        lines = lines.min(counted);
    }
    flood.stop()?;
    let of = |runs: &[Run], pick: fn(&Run) -> f64| median(runs.iter().map(pick).collect());
    let cores = |runs: &[Run]| of(runs, |run| run.cores);
    let row = |name, value, unit, bar| Row {
        part: "flood",
        name,
        value,
        unit,
        bar,
    };
    let settle = SETTLE_MS as f64;
    let base_p50 = median(straight.iter().map(|run| run.0).collect());
    let base_p99 = median(straight.iter().map(|run| run.1).collect());
    let p50 = |runs: &[Run]| of(runs, |run| run.p50_ms) - settle - base_p50;
    let p99 = |runs: &[Run]| of(runs, |run| run.p99_ms) - settle - base_p99;
    Ok(vec![
        row("added latency p50, not followed", p50(&without), "ms", ""),
        row("added latency p50, followed", p50(&with), "ms", ""),
        row("added latency p99, not followed", p99(&without), "ms", ""),
        row("added latency p99, followed", p99(&with), "ms", "at most 5"),
        row(
            "CPU of what the lines cost",
            cores(&with) - cores(&without),
            "cores",
            "at most 0.25 and what counting takes",
        ),
        row(
            "lines that said something, least",
            lines / f64::from(SECONDS),
            "/s",
            "",
        ),
    ])
}

/// Lines that the agent found to say something so far.
fn matched(agent: &Agent) -> anyhow::Result<f64> {
    let page = harness::http::get(&agent.url("/metrics"))?.body;
    let counts = page
        .lines()
        .filter(|line| line.starts_with("isostack_log_matches_total{"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    let sum = counts.sum();
    ensure!(sum > 0.0, "the agent read no line of the flood");
    Ok(sum)
}

/// Fills a file until it is stopped.
struct Flood {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Flood {
    fn start(path: &Path) -> anyhow::Result<Self> {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        let piece = piece()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let began = Instant::now();
                fill(&mut file, &piece)?;
                thread::sleep(PIECE.saturating_sub(began.elapsed()));
            }
            Ok(())
        });
        Ok(Self { stop, thread })
    }

    fn stop(self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.join();
        ended.map_err(|_| anyhow::anyhow!("the flood panicked"))?
    }
}

fn fill(file: &mut File, piece: &[u8]) -> anyhow::Result<()> {
    if file.metadata()?.len() > MAX_FILE_BYTES {
        file.set_len(0)?;
    }
    file.write_all(piece)?;
    Ok(())
}

/// The lines of [`PIECE`].
fn piece() -> anyhow::Result<Vec<u8>> {
    let mut piece = Vec::new();
    let bytes = MB_PER_S * 1_000_000 / 1000 * PIECE.as_millis() as usize;
    logs::write_lines(&mut piece, bytes as u64, SPEAKING_ONE_IN)?;
    Ok(piece)
}

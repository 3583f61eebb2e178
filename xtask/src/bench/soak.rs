//! Whether the agent keeps anything of what is gone: its memory while cgroups come and go by the
//! ten thousand, and processes by the hundred thousand.

use std::{
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use harness::cgroup::Cgroup;

use super::{Programs, Row, usage};

/// Cgroups, one after the other.
const CGROUPS: u32 = 10_000;
/// Processes that live and end in each: a shell, and what it runs.
const EACH: u32 = 10;
/// From then on everything that is kept of a few is there.
const WARM: u32 = CGROUPS / 10;
/// For what is still on its way when the last one is gone.
const SETTLE: Duration = Duration::from_secs(5);

pub fn measure(programs: &Programs) -> anyhow::Result<Vec<Row>> {
    println!("Soak: {CGROUPS} cgroups, {} processes", CGROUPS * EACH);
    let agent = programs.start_agent(&[])?;
    let pid = agent.process.pid();
    thread::sleep(SETTLE);
    let (before_mb, _) = usage::memory_mb(pid)?;
    let (used, began) = (usage::cpu(pid)?, Instant::now());

    let parent = Cgroup::create("isostack-bench-soak")?;
    (0..WARM).try_for_each(|number| live_and_end(parent.dir(), number))?;
    let (warm_mb, _) = usage::memory_mb(pid)?;
    (WARM..CGROUPS).try_for_each(|number| live_and_end(parent.dir(), number))?;
    let (used, took) = (usage::cpu(pid)? - used, began.elapsed());
    drop(parent);
    thread::sleep(SETTLE);
    let (after_mb, highest_mb) = usage::memory_mb(pid)?;

    let row = |name, value, unit, bar| Row {
        part: "soak",
        name,
        value,
        unit,
        bar,
    };
    let us_each = used.as_secs_f64() * 1e6 / f64::from(CGROUPS * EACH);
    Ok(vec![
        row("memory before", before_mb, "MB", ""),
        row("memory after 1 000 cgroups", warm_mb, "MB", ""),
        row("memory after 10 000 cgroups", after_mb, "MB", ""),
        row(
            "growth over the last 9 000",
            after_mb - warm_mb,
            "MB",
            "flat",
        ),
        row("memory at its highest", highest_mb, "MB", "at most 64"),
        row(
            "CPU of the agent",
            used.as_secs_f64() / took.as_secs_f64(),
            "cores",
            "",
        ),
        row("CPU of the agent a process", us_each, "us", ""),
        row(
            "processes a second",
            f64::from(CGROUPS * EACH) / took.as_secs_f64(),
            "/s",
            "",
        ),
    ])
}

/// A cgroup in which some processes come and go, which is removed then.
fn live_and_end(parent: &Path, number: u32) -> anyhow::Result<()> {
    const SCRIPT: &str =
        "echo 0 > \"$0\"; n=1; while [ $n -lt \"$1\" ]; do /bin/true; n=$((n+1)); done";
    let dir = parent.join(format!("short-lived-{number}"));
    fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
    let status = Command::new("sh")
        .args(["-c", SCRIPT])
        .arg(dir.join("cgroup.procs"))
        .arg(EACH.to_string())
        .status()?;
    ensure!(status.success(), "a shell in {} failed", dir.display());
    fs::remove_dir(&dir).with_context(|| dir.display().to_string())
}

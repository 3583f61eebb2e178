//! The classifier: bytes a second on one core, and memory, by `isostack-agent classify` on a
//! log in which a few lines in a hundred say something.

use std::{
    io::{BufWriter, Write},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use harness::artifact;

use super::{Programs, Row, median};

const MEGABYTES: u64 = 512;
/// One line in so many is out of the list of those that speak of a layer.
const SPEAKING_ONE_IN: usize = 50;

pub fn measure(programs: &Programs, repeat: usize) -> anyhow::Result<Vec<Row>> {
    println!("Logs: {MEGABYTES} MB, {repeat} times");
    let log = tempfile::NamedTempFile::new()?;
    let mut out = BufWriter::new(log.as_file());
    write_lines(&mut out, MEGABYTES * 1_000_000, SPEAKING_ONE_IN)?;
    out.flush()?;
    drop(out);
    let mut speeds = Vec::new();
    let mut highest_mb: f64 = 0.0;
    for _ in 0..repeat {
        let (used, resident_mb) = classify(programs, &log)?;
        speeds.push(MEGABYTES as f64 / used.as_secs_f64());
        highest_mb = highest_mb.max(resident_mb);
    }
    let row = |name, value, unit, bar| Row {
        part: "logs",
        name,
        value,
        unit,
        bar,
    };
    Ok(vec![
        row(
            "classified per CPU second",
            median(speeds),
            "MB",
            "at least 200",
        ),
        row(
            "highest resident memory",
            highest_mb,
            "MB",
            "does not grow with the input",
        ),
    ])
}

/// So many bytes of numbered lines, of which one in so many speaks of a layer.
pub fn write_lines(out: &mut impl Write, bytes: u64, speaking_one_in: usize) -> anyhow::Result<()> {
    let lines = artifact::root().join("agent/tests/data/log_lines");
    let read = |name: &str| {
        let path = lines.join(name);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    let (ordinary, speaking) = (read("ordinary.txt")?, read("speaking.txt")?);
    let list = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(str::to_owned).collect()
    };
    let (ordinary, speaking) = (list(&ordinary), list(&speaking));
    let mut written = 0;
    for index in 0.. {
        if written >= bytes {
            break;
        }
        let line = match index % speaking_one_in {
            0 => &speaking[index / speaking_one_in % speaking.len()],
            _ => &ordinary[index % ordinary.len()],
        };
        writeln!(out, "{index:010} {line}")?;
        written += line.len() as u64 + 12;
    }
    Ok(())
}

/// CPU time, and the most memory that was resident.
fn classify(programs: &Programs, log: &tempfile::NamedTempFile) -> anyhow::Result<(Duration, f64)> {
    let mut child = Command::new(&programs.agent)
        .args(["classify", "--output", "json"])
        .arg(log.path())
        .stdout(Stdio::null())
        .spawn()?;
    let pid = libc::pid_t::try_from(child.id())?;
    let mut status = 0;
    // SAFETY: all zeroes is a valid `rusage`.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both places are valid for the answer, and the child is ours and not waited for.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    ensure!(waited == pid, "wait4: {}", std::io::Error::last_os_error());
    // It was waited for already; this only tells the standard library so.
    let _ = child.try_wait();
    ensure!(
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
        "classify found nothing or failed"
    );
    let time = |t: libc::timeval| {
        Duration::new(
            t.tv_sec.unsigned_abs(),
            t.tv_usec.unsigned_abs() as u32 * 1000,
        )
    };
    let used = time(usage.ru_utime) + time(usage.ru_stime);
    Ok((used, usage.ru_maxrss as f64 * 1024.0 / 1e6))
}

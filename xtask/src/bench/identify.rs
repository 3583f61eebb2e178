//! What it costs to say of every process what it runs inside: `stack --all` on a host with
//! 10 000 more processes, half of them in containers by their path, against the same without.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context as _, ensure};
use harness::{cgroup::Cgroup, process::Process, wait};

use super::{Programs, Row, median, usage};

/// Groups, and processes in each.
const GROUPS: usize = 100;
const EACH: usize = 100;

pub fn measure(programs: &Programs, repeat: usize) -> anyhow::Result<Vec<Row>> {
    println!("Identify: {} processes in {GROUPS} groups", GROUPS * EACH);
    let empty = runs(programs, repeat)?;
    let crowd = Crowd::start()?;
    let full = runs(programs, repeat)?;
    drop(crowd);
    let row = |name, value, unit, bar| Row {
        part: "identify",
        name,
        value,
        unit,
        bar,
    };
    Ok(vec![
        row("CPU for 10 000 processes", full - empty, "s", "at most 1"),
        row("CPU of the command without them", empty, "s", ""),
    ])
}

/// CPU seconds of `stack --all`, the median of some runs.
fn runs(programs: &Programs, repeat: usize) -> anyhow::Result<f64> {
    let mut times = Vec::new();
    for _ in 0..repeat {
        let before = usage::children()?;
        let output = Command::new(&programs.agent)
            .args(["stack", "--all", "--output", "json"])
            .output()?;
        ensure!(output.status.success(), "stack --all failed");
        times.push((usage::children()? - before).as_secs_f64());
    }
    Ok(median(times))
}

/// Sleeping processes, in groups of their own.
struct Crowd {
    _shells: Vec<Process>,
    _cgroup: Cgroup,
}

impl Crowd {
    fn start() -> anyhow::Result<Self> {
        let cgroup = Cgroup::create("isostack-bench-identify")?;
        let mut shells = Vec::new();
        let script = "echo $$ > \"$0\"; n=1; while [ $n -lt \"$1\" ]; do sleep 600 & n=$((n+1)); \
                      done; wait";
        let mut groups = Vec::new();
        for number in 0..GROUPS {
            let group = if number % 2 == 0 {
                format!("services/unit-{number}.service")
            } else {
                format!("kubepods/burstable/pod00000000-0000-0000-0000-{number:012}/{number:064}")
            };
            let dir = cgroup.dir().join(group);
            fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
            let procs = dir.join("cgroup.procs");
            let mut shell = Command::new("sh");
            shell.args(["-c", script]).arg(&procs).arg(EACH.to_string());
            shells.push(Process::start("sleepers", &mut shell, None)?);
            groups.push(procs);
        }
        wait::until("10 000 processes", Duration::from_secs(120), || {
            let there: usize = groups
                .iter()
                .map(|procs| fs::read_to_string(procs).map_or(0, |text| text.lines().count()))
                .sum();
            (there >= GROUPS * EACH).then_some(())
        })?;
        Ok(Self {
            _shells: shells,
            _cgroup: cgroup,
        })
    }
}

//! What the agent's hooks cost the host: the same loops without it, with empty programs at the
//! same hooks, with every sensor and with each alone, in turns, so that a drift of the machine
//! hits all sides alike.

use std::{process::Command, thread, time::Duration};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::{Programs, Row, disk, floor::Floor, median, pingpong};

/// Long enough for a stable number, short enough to change sides often.
const ROUNDS: u32 = 60_000;

/// Reads of 4 KiB past the page cache, each of some 100 us.
const READS: u32 = 3_000;

/// The CPU that the loops are pinned to.
const CPU: usize = 1;

/// Until the agent has looked at the processes that were there before it.
const SETTLE: Duration = Duration::from_millis(500);

/// The loops, and what the project wants of the agent there.
const LOADS: [(&str, &str); 3] = [
    ("pinned pipe ping-pong", "goal 1.05"),
    ("pinned TCP round trip", "goal 1.05"),
    ("pinned 4k direct read", "goal 1.07"),
];

/// What is on the hooks while the loops run.
enum Side {
    Nothing,
    /// Programs that do nothing.
    Empty,
    Every,
    /// One sensor.
    Alone(String),
}

/// Times of each loop, nanoseconds.
type Times = [Vec<f64>; LOADS.len()];

pub fn measure(programs: &Programs, repeat: usize) -> anyhow::Result<Vec<Row>> {
    let sensors = sensors(programs)?;
    let hooks: Vec<String> = sensors
        .iter()
        .flat_map(|(_, hooks)| hooks.clone())
        .collect();
    println!(
        "Host: {repeat} times without, with {} empty programs, with the agent, with each of {} \
         sensors, in turns",
        hooks.len(),
        sensors.len()
    );
    let mut sides: Vec<(Side, Times)> = [Side::Nothing, Side::Empty, Side::Every]
        .into_iter()
        .chain(sensors.into_iter().map(|(name, _)| Side::Alone(name)))
        .map(|side| (side, Times::default()))
        .collect();
    let file = disk::DirectFile::create()?;
    for _ in 0..repeat {
        for (side, [pipe, tcp, read]) in &mut sides {
            let _floor = matches!(side, Side::Empty)
                .then(|| Floor::attach(&hooks))
                .transpose()?;
            let agent = side.flags().map(|flags| programs.start_agent(&flags));
            let _agent = agent.transpose()?;
            thread::sleep(SETTLE);
            pipe.push(pingpong::pipe_ns(CPU, ROUNDS)?);
            tcp.push(pingpong::tcp_ns(CPU, ROUNDS)?);
            read.push(file.read_ns(CPU, READS)?);
        }
    }
    let mut rows = Vec::new();
    for (load, (name, goal)) in LOADS.into_iter().enumerate() {
        rows.extend(rows_of(name, goal, &sides, |times| {
            median(times[load].clone())
        }));
    }
    Ok(rows)
}

/// The ratios of one loop, and how far the agent is above the empty programs.
fn rows_of(
    load: &str,
    goal: &'static str,
    sides: &[(Side, Times)],
    time_ns: impl Fn(&Times) -> f64,
) -> Vec<Row> {
    let row = |name: String, value, unit, bar| Row {
        part: "host",
        // A table of some dozen lines, once.
        name: name.leak(),
        value,
        unit,
        bar,
    };
    let (mut base_ns, mut floor, mut rows) = (f64::NAN, f64::NAN, Vec::new());
    for (side, times) in sides {
        let ratio = time_ns(times) / base_ns;
        match side {
            Side::Nothing => {
                base_ns = time_ns(times);
                rows.push(row(format!("{load}, without"), base_ns / 1e3, "us", ""));
            }
            Side::Empty => {
                floor = ratio;
                rows.push(row(format!("{load}, empty programs"), ratio, "", ""));
            }
            Side::Every => rows.extend([
                row(format!("{load}, every sensor"), ratio, "", goal),
                row(
                    format!("{load}, above empty programs"),
                    ratio - floor,
                    "",
                    "at most 0.03",
                ),
            ]),
            Side::Alone(sensor) => {
                rows.push(row(format!("{load}, {sensor} alone"), ratio, "", ""));
            }
        }
    }
    rows
}

impl Side {
    /// How the agent is started; not at all.
    fn flags(&self) -> Option<Vec<&str>> {
        match self {
            Self::Nothing | Self::Empty => None,
            Self::Every => Some(Vec::new()),
            Self::Alone(sensor) => Some(vec!["--sensors", sensor]),
        }
    }
}

/// The sensors that are on their hooks also while nobody sends spans, and their tracepoints.
fn sensors(programs: &Programs) -> anyhow::Result<Vec<(String, Vec<String>)>> {
    let output = Command::new(&programs.agent)
        .args(["doctor", "--output", "json"])
        .output()
        .context("isostack-agent doctor")?;
    let said: Value = serde_json::from_slice(&output.stdout).context("isostack-agent doctor")?;
    let all = said["sensors"]
        .as_array()
        .context("doctor names no sensors")?;
    let always: Vec<_> = all
        .iter()
        .filter(|sensor| sensor["state"] != "off")
        .filter_map(|sensor| {
            let hooks = always_attached(sensor["hook"].as_str()?);
            (!hooks.is_empty()).then_some((sensor["name"].as_str()?.to_owned(), hooks))
        })
        .collect();
    ensure!(
        !always.is_empty(),
        "no sensor runs here: see isostack-agent doctor"
    );
    Ok(always)
}

/// The tracepoints in what `doctor` says of a sensor's hooks, `tp_btf/a, raw_tp/b (while ..)`,
/// without those that wait for somebody who needs them.
fn always_attached(hooks: &str) -> Vec<String> {
    hooks
        .split(", ")
        .filter_map(|hook| {
            hook.strip_prefix("tp_btf/")
                .or(hook.strip_prefix("raw_tp/"))
        })
        .filter(|name| !name.contains(' '))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_somebody_is_no_hook_of_the_floor() {
        let said = "tp_btf/block_rq_complete, raw_tp/block_rq_issue, fentry/tcp_sendmsg_locked, \
                    tp_btf/sched_switch (while a limit holds I/O back)";
        assert_eq!(
            always_attached(said),
            ["block_rq_complete", "block_rq_issue"]
        );
        assert!(always_attached("/dev/kmsg").is_empty());
    }

    #[test]
    fn ratios_are_to_the_side_without_an_agent() {
        let times = |ns: f64| [vec![ns], vec![], vec![]];
        let sides = [
            (Side::Nothing, times(1000.0)),
            (Side::Empty, times(1020.0)),
            (Side::Every, times(1050.0)),
            (Side::Alone("cpu".to_owned()), times(1030.0)),
        ];
        let rows = rows_of("loop", "", &sides, |times| median(times[0].clone()));
        let values: Vec<f64> = rows.iter().map(|row| row.value).collect();
        let expected = [1.0, 1.02, 1.05, 0.03, 1.03];
        assert_eq!(values.len(), expected.len());
        for (value, expected) in values.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-9, "{values:?}");
        }
        assert_eq!(rows[4].name, "loop, cpu alone");
    }
}

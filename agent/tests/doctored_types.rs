//! Sensors on a kernel whose type information says something else than they expect: the
//! running kernel's own, with names exchanged. Needs root.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, os::unix::fs::symlink, path::Path};

use isostack_agent::{
    host::roots::Roots,
    load::{Sensors, Settings},
    metrics::AgentMetrics,
    sensor::{SensorState, SensorStatus},
};

/// What the sensors say after these names were exchanged, each for one of the same length.
fn statuses(exchanged: &[(&str, &str)]) -> Vec<SensorStatus> {
    let mut types = fs::read("/sys/kernel/btf/vmlinux").unwrap();
    for (from, to) in exchanged {
        assert_eq!(from.len(), to.len());
        let (first, second) = (places(&types, from), places(&types, to));
        assert!(!first.is_empty(), "no {from} in this kernel");
        for (places, name) in [(first, to), (second, from)] {
            for at in places {
                types[at..at + name.len()].copy_from_slice(name.as_bytes());
            }
        }
    }
    let sysfs = tempfile::tempdir().unwrap();
    for entry in fs::read_dir("/sys").unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "kernel" {
            symlink(entry.path(), sysfs.path().join(entry.file_name())).unwrap();
        }
    }
    let btf = sysfs.path().join("kernel/btf");
    fs::create_dir_all(&btf).unwrap();
    fs::write(btf.join("vmlinux"), types).unwrap();
    start(sysfs.path())
}

fn start(sysfs: &Path) -> Vec<SensorStatus> {
    let settings = Settings {
        roots: Roots {
            sysfs: sysfs.to_owned(),
            ..Roots::default()
        },
        ..Settings::default()
    };
    let sensors = Sensors::start(&settings, AgentMetrics::default(), drop).unwrap();
    let statuses = sensors.statuses();
    sensors.stop();
    statuses
}

/// Where the name stands whole among the strings.
fn places(types: &[u8], name: &str) -> Vec<usize> {
    let whole = [b"\0", name.as_bytes(), b"\0"].concat();
    let windows = types.windows(whole.len()).enumerate();
    windows
        .filter(|(_, window)| *window == whole)
        .map(|(at, _)| at + 1)
        .collect()
}

fn of<'a>(statuses: &'a [SensorStatus], name: &str) -> &'a SensorStatus {
    statuses.iter().find(|status| status.name == name).unwrap()
}

/// Whoever is not on says why.
#[track_caller]
fn assert_said(statuses: &[SensorStatus]) {
    for status in statuses {
        let is_said = status.state == SensorState::On || !status.reason.is_empty();
        assert!(is_said, "{status:?}");
    }
}

/// A tracepoint with other arguments: the verifier refuses the program, and the fallback, for
/// which the kernel has no types, works on the real one.
#[test]
fn a_changed_prototype_costs_the_hook_that_relies_on_it() {
    let statuses = statuses(&[("btf_trace_sched_switch", "btf_trace_sched_wakeup")]);
    assert_said(&statuses);
    for name in ["cpu", "wait"] {
        let status = of(&statuses, name);
        assert_eq!(status.state, SensorState::Reduced, "{status:?}");
        assert!(status.hook.starts_with("raw_tp/sched_switch"), "{status:?}");
        let why = "tp_btf/sched_switch: the kernel refused it";
        assert!(status.reason.contains(why), "{status:?}");
    }
    assert_eq!(of(&statuses, "net").state, SensorState::On);
}

#[test]
fn a_tracepoint_without_types_is_used_by_its_name() {
    let statuses = statuses(&[("btf_trace_block_rq_complete", "btf_trace_block_rq_combined")]);
    assert_said(&statuses);
    let block = of(&statuses, "block");
    assert!(block.hook.contains("raw_tp/block_rq_complete"), "{block:?}");
    assert!(block.reason.contains("unknown BTF type"), "{block:?}");
}

#[test]
fn a_member_that_is_gone_is_named_and_costs_its_sensor_only() {
    let statuses = statuses(&[("last_queued", "last_quoted"), ("bi_blkg", "bi_blog")]);
    assert_said(&statuses);
    let cpu = of(&statuses, "cpu");
    assert_eq!(cpu.state, SensorState::Off);
    assert!(cpu.reason.contains("last_queued"), "{cpu:?}");
    let block = of(&statuses, "block");
    assert_eq!(block.state, SensorState::Reduced);
    assert!(block.loses.contains("whose I/O"), "{block:?}");
    assert_eq!(of(&statuses, "tcp").state, SensorState::On);
}

/// Cut short in the middle: nothing is believed, and everything says so.
#[test]
fn broken_type_information_turns_the_sensors_off() {
    let types = fs::read("/sys/kernel/btf/vmlinux").unwrap();
    for length in [0, 7, 24, 4096, types.len() / 2] {
        let sysfs = tempfile::tempdir().unwrap();
        let btf = sysfs.path().join("kernel/btf");
        fs::create_dir_all(&btf).unwrap();
        fs::write(btf.join("vmlinux"), &types[..length]).unwrap();
        let statuses = start(sysfs.path());
        assert_said(&statuses);
        let cpu = of(&statuses, "cpu");
        assert_eq!(cpu.state, SensorState::Off, "{length} bytes");
        assert!(cpu.reason.contains("type information"), "{cpu:?}");
    }
}

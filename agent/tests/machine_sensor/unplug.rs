//! A CPU is taken away and comes back.

use std::{fs, thread, time::Duration};

use isostack_agent::{
    event::{Delay, Particulars},
    load::Settings,
    time::MonoNs,
    vocabulary::Cause,
};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::{cgroup::Group, child::Child, is_own, observed::Observed};

const ONLINE: &str = "/sys/devices/system/cpu/cpu1/online";
const S: u64 = 1_000_000_000;

/// Takes CPU 1 away; it is back when this is dropped.
struct Unplugged;

impl Unplugged {
    fn now() -> Self {
        fs::write(ONLINE, "0").unwrap();
        Self
    }
}

impl Drop for Unplugged {
    fn drop(&mut self) {
        fs::write(ONLINE, "1").unwrap();
    }
}

fn can_unplug() -> bool {
    if !is_own() {
        return false;
    }
    let can = fs::metadata(ONLINE).is_ok();
    if !can {
        println!("cannot run here: no {ONLINE}");
    }
    can
}

/// Runs so long, where it may.
fn spin(ns: u64) {
    let began = MonoNs::now();
    while MonoNs::now().since(began) < ns {
        std::hint::spin_loop();
    }
}

/// What is told of two that share CPU 0 for two seconds.
fn waits_on_one_cpu(group: &Group) -> impl Fn(&Delay) -> bool {
    let on_first = || {
        let mut first = CpuSet::new();
        first.set(0);
        sched_setaffinity(None, &first).unwrap();
        spin(2 * S);
    };
    let two = [(); 2].map(|()| Child::start(group, on_first));
    let pids = [two[0].pid(), two[1].pid()];
    for child in two {
        assert_eq!(child.wait(), 0);
    }
    move |delay| delay.cause == Cause::Runqueue && pids.contains(&delay.process.pid)
}

#[test]
fn a_cpu_that_was_taken_away_is_no_idle_one() {
    if !can_unplug() {
        return;
    }
    let observed = Observed::start("cpu", &Settings::default());
    let group = Group::new();
    let with_both = waits_on_one_cpu(&group);
    let unplugged = Unplugged::now();
    let with_one = waits_on_one_cpu(&group);
    drop(unplugged);
    thread::sleep(Duration::from_millis(200));
    let with_both_again = waits_on_one_cpu(&group);
    let seen = observed.finish(group.id());

    let part_confined = |is_of: &dyn Fn(&Delay) -> bool| {
        let length = |delay: &Delay| delay.end.since(delay.start);
        let all = || seen.delays.iter().filter(|delay| is_of(delay));
        let is_confined = |delay: &&Delay| matches!(delay.particulars, Particulars::Confined(_));
        let waited: u64 = all().map(length).sum();
        assert!(waited > S, "{waited} ns");
        all().filter(is_confined).map(length).sum::<u64>() as f64 / waited as f64
    };
    let confined = [
        part_confined(&with_both),
        part_confined(&with_one),
        part_confined(&with_both_again),
    ];
    println!("confined: {confined:?}");
    assert!(confined[0] > 0.3, "{confined:?}");
    assert!(confined[1] < 0.02, "{confined:?}");
    assert!(confined[2] > 0.3, "{confined:?}");
}

#[test]
fn throttling_is_counted_while_a_cpu_comes_and_goes() {
    if !can_unplug() {
        return;
    }
    let observed = Observed::start("cpu", &Settings::default());
    let group = Group::new();
    group.limit(20_000);
    let spinning = Child::start(&group, || spin(8 * S));
    for _ in 0..3 {
        thread::sleep(Duration::from_secs(1));
        let _unplugged = Unplugged::now();
        thread::sleep(Duration::from_secs(1));
    }
    assert_eq!(spinning.wait(), 0);
    let truth = group.throttled_ns();
    let seen = observed.finish(group.id());
    let counted = seen.cpu.unwrap().throttled.sum_ns;
    let ratio = counted as f64 / truth as f64;
    assert!(
        (0.95..=1.05).contains(&ratio),
        "{counted} of {truth}: {ratio:.3}"
    );
    let told = seen.delays.iter().filter(|d| d.cause == Cause::CpuThrottle);
    let told: u64 = told.map(|delay| delay.end.since(delay.start)).sum();
    let ratio = told as f64 / truth as f64;
    assert!(
        (0.95..=1.05).contains(&ratio),
        "{told} of {truth}: {ratio:.3}"
    );
}

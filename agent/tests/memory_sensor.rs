//! The `memory` sensor in the running kernel against the kernel's own books: `oom_kill` of
//! real cgroups, their reclaim as perf counts it. Needs root.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "quotas are for other test programs")]
#[path = "support/cgroup.rs"]
mod cgroup;
#[path = "memory_sensor/high.rs"]
mod high;
#[path = "memory_sensor/load.rs"]
mod load;
#[allow(dead_code, reason = "not every method is of use here")]
#[path = "support/observed.rs"]
mod observed;
#[path = "support/whole.rs"]
mod whole;

use std::time::Instant;

use isostack_agent::{
    event::{Delay, Particulars},
    host::{cgroup::Cgroups, roots::Roots},
    load::Settings,
    vocabulary::Cause,
};
use load::MemoryGroup;
use observed::{Observed, Seen};

const LIMIT: u64 = 24 << 20;
const OOM_KILLS: &str = "isostack_oom_kills";
const RECLAIM: &str = "isostack_memory_reclaim_seconds";

fn killed(seen: &Seen) -> Vec<&Delay> {
    let of_cause = |delay: &&Delay| delay.cause == Cause::OomKill;
    seen.delays.iter().filter(of_cause).collect()
}

/// Several threads of a victim may be marked: the process still counts once.
#[test]
fn kills_are_counted_as_the_cgroup_counts_them() {
    const VICTIMS: u64 = 6;
    let observed = Observed::start("memory", &Settings::default());
    let group = MemoryGroup::new(LIMIT);
    let before = group.oom_kills();
    let mut victims = Vec::new();
    for threads in [1, 4, 1, 4, 1, 4] {
        let victim = group.hog(threads, 4 * LIMIT);
        victims.push(victim.pid());
        assert!(victim.wait().signaled(), "it cannot have had that much");
    }
    let truth = group.oom_kills() - before;
    let seen = observed.finish(group.cpu.id());

    assert_eq!(truth, VICTIMS);
    assert_eq!(seen.counts(OOM_KILLS), [(vec!["cgroup".to_owned()], truth)]);
    let told: Vec<u32> = killed(&seen).iter().map(|d| d.process.pid).collect();
    assert_eq!(told, victims);
    for delay in killed(&seen) {
        let Particulars::Memory { memcg, .. } = delay.particulars else {
            panic!("{delay:?}");
        };
        assert!(memcg, "it was the cgroup's limit: {delay:?}");
    }
}

/// A process killed by somebody else is nobody's victim, nor is one that ends by itself.
#[test]
fn other_deaths_are_not_counted() {
    let observed = Observed::start("memory", &Settings::default());
    let group = MemoryGroup::new(LIMIT);
    assert_eq!(group.hog(2, LIMIT / 4).wait().exit_status(), Some(0));
    group.hog_and_stay(LIMIT / 4).kill();
    let seen = observed.finish(group.cpu.id());
    assert_eq!(group.oom_kills(), 0);
    assert_eq!(seen.counts(OOM_KILLS), []);
    assert!(killed(&seen).is_empty());
}

/// Page cache beyond the limit is reclaimed over and over, nobody is killed.
#[test]
fn reclaim_below_a_limit_is_counted_exactly() {
    let observed = Observed::start("memory", &Settings::default());
    let group = MemoryGroup::new(LIMIT);
    let reclaims = group.read_file(4 * LIMIT);
    let seen = observed.finish(group.cpu.id());

    let histograms = seen.histograms(RECLAIM);
    // The host itself may be short of memory meanwhile.
    let (_, histogram) = histograms.iter().find(|(l, _)| l == &["cgroup"]).unwrap();
    assert!(histogram.count() > 0 && histogram.sum_ns > 0);
    match reclaims {
        Ok(truth) => assert_eq!(histogram.count(), truth),
        Err(why) => println!("not compared with perf's count: {why}"),
    }
    assert_eq!(group.oom_kills(), 0);
}

/// Above `memory.high` a thread reclaims and is put to sleep; both are the group's pressure.
#[test]
fn sleeps_above_memory_high_are_what_the_group_was_stalled() {
    const HIGH: u64 = 32 << 20;
    let observed = Observed::start("memory", &Settings::default());
    let group = MemoryGroup::new(2 * HIGH);
    if let Err(why) = group.set_high(HIGH) {
        println!("cannot run here: {why}");
        return;
    }
    let before_ns = group.stalled_ns();
    let began = Instant::now();
    // A little above, where each sleep is a fraction of a second.
    assert_eq!(group.hog(1, HIGH + (2 << 20)).wait().exit_status(), Some(0));
    let took_ns = u64::try_from(began.elapsed().as_nanos()).unwrap();
    let after_ns = group.stalled_ns();
    let seen = observed.finish(group.cpu.id());

    let histograms = seen.histograms(RECLAIM);
    let of = |limit: &str| histograms.iter().find(|(labels, _)| labels[0] == limit);
    let (_, sleeps) = of("high").unwrap();
    assert!(sleeps.count() > 0 && sleeps.sum_ns <= took_ns);
    let (Some(before_ns), Some(after_ns)) = (before_ns, after_ns) else {
        println!("not compared with memory.pressure: this kernel counts none");
        return;
    };
    let measured_ns = sleeps.sum_ns + of("cgroup").map_or(0, |(_, reclaim)| reclaim.sum_ns);
    let ratio = measured_ns as f64 / (after_ns - before_ns) as f64;
    assert!(
        (0.9..=1.1).contains(&ratio),
        "{measured_ns} ns against {} ns of pressure, ratio {ratio:.3}",
        after_ns - before_ns
    );
}

#[test]
fn the_limit_that_was_run_into_is_named() {
    let group = MemoryGroup::new(LIMIT);
    drop(group.read_file(2 * LIMIT));
    let cgroups = Cgroups::new(&Roots::default());
    let limit = cgroups.memory_limit(group.cpu.id()).unwrap();
    assert_eq!(
        (limit.bytes, limit.is_ancestor),
        (LIMIT, false),
        "{limit:?}"
    );
    assert!(
        group
            .memory()
            .ends_with(limit.cgroup_path.trim_start_matches('/'))
    );
    assert!(group.memory().join(limit.file).exists());
}

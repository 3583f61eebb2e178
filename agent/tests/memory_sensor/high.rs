//! A service that is put to sleep above `memory.high`, through the whole agent. Runs where version 2
//! of cgroups has the memory controller, as in the guests of `cargo xtask vm`.

use crate::{
    load::MemoryGroup,
    whole::{Agent, Plan, Service},
};

/// Nobody is killed.
const LIMIT: u64 = 1 << 30;

/// Has some memory, and takes more of it until that has taken three seconds: how much of it is new to
/// the kernel is the C library's affair, and each sleep is longer than the one before.
const CACHE: &str = "mib=x; for i in {1..20}; do mib+=$mib; done; \
                     for i in {1..24}; do kept[i]=$mib; done; \
                     work() { now; until=$((t + 3000000000)); \
                              while ((t < until)); do kept[++i]=$mib; now; done; }";

#[test]
fn who_sleeps_above_memory_high() {
    let group = MemoryGroup::new(LIMIT);
    if let Err(why) = group.set_high(LIMIT) {
        println!("cannot run here: {why}");
        return;
    }
    let agent = Agent::start("cpu,memory,wait,logs");
    let cache = Plan {
        names: ["cache", "POST /remember"],
        work: CACHE,
        procs: group.procs().collect(),
        ..Plan::default()
    };
    let mut cache = Service::joined(&cache, &agent);
    group.set_high(group.bytes()).unwrap();
    let before_ns = group.stalled_ns();
    cache.go();
    cache.wait_for("done");
    let after_ns = group.stalled_ns();

    let verdict = agent.verdict("cache");
    assert_eq!(verdict["cause"], "memory_reclaim", "{verdict}");
    assert_eq!(verdict["fault"], "L-3", "{verdict}");
    assert_eq!(verdict["culprit"], "", "{verdict}");
    let summary = verdict["summary"].as_str().unwrap();
    assert!(summary.contains("memory.high"), "{summary}");
    let told_ms = verdict["evidence"]["memory_reclaim_ms"].as_f64().unwrap();
    match (before_ns, after_ns) {
        (Some(before_ns), Some(after_ns)) => {
            let ratio = told_ms * 1e6 / (after_ns - before_ns) as f64;
            // Short stalls that follow upon each other are told as one.
            assert!(
                (0.8..=1.3).contains(&ratio),
                "{ratio:.3} of memory.pressure"
            );
        }
        _ => println!("not compared with memory.pressure: this kernel counts none"),
    }
    agent.finish();
}

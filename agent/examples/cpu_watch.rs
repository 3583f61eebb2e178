//! Prints what the `cpu` sensor says until interrupted.
use isostack_agent::{
    load::{Sensors, Settings},
    metrics::AgentMetrics,
};
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sensors = Sensors::start(&Settings::default(), AgentMetrics::default(), |batch| {
        for e in batch {
            println!("{e:?}")
        }
    })?;
    for s in sensors.statuses() {
        eprintln!("{s:?}");
    }
    let secs: u64 = std::env::args()
        .nth(1)
        .and_then(|s| s.parse().ok())
        .unwrap_or(5);
    std::thread::sleep(std::time::Duration::from_secs(secs));
    let mut all = sensors.cgroup_cpu();
    all.sort_by_key(|c| c.cgroup_id);
    for c in all {
        println!(
            "{} throttled {} x {} ms, runqueue {} x {} ms",
            c.cgroup_id,
            c.throttled.count(),
            c.throttled.sum_ns / 1_000_000,
            c.runqueue.count(),
            c.runqueue.sum_ns / 1_000_000
        );
    }
    Ok(())
}

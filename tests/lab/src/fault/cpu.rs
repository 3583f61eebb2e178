//! Quotas, and a neighbour on the victim's CPU.

use std::{process::Command, sync::Arc, thread};

use harness::process::Process;

use super::{Active, Effect, between};
use crate::{
    group::Quota,
    network::output,
    plan::Fault,
    stage::{NEIGHBOUR, Stage},
};

/// Time held back from which a quota had an effect.
const LEAST_THROTTLED_MS: f64 = 50.0;

/// A quota on a group: 4 to 12 % of one CPU, in periods of 20 to 100 ms.
///
/// # Errors
/// When the kernel refuses.
pub fn quota(group: &'static str, fault: &Fault, stage: &Stage) -> anyhow::Result<Active> {
    let percent = between(12.0, 4.0, fault.strength);
    let percent = if group == "shop" {
        percent * 1.6
    } else {
        percent
    };
    let period_us = [20_000, 50_000, 100_000][fault.choice % 3];
    // The kernel takes no quota below 1 ms.
    let quota_us = ((period_us as f64 * percent / 100.0) as u64).max(1_000);
    let before = stage.groups.throttled_ms(group)?;
    stage.groups.limit_cpu(
        group,
        Some(Quota {
            quota_us,
            period_us,
        }),
    )?;
    let groups = Arc::clone(&stage.groups);
    let measure = move |stage: &Stage| {
        let throttled = stage.groups.throttled_ms(group)? - before;
        Ok(Effect {
            what: format!(
                "cpu.stat: {group} held back for {throttled:.0} ms by {quota_us} of {period_us} us"
            ),
            there: throttled >= LEAST_THROTTLED_MS,
            ..Effect::default()
        })
    };
    Ok(Active::measured_by(measure).undone_by(move || {
        // The group is gone only when the lab is ending.
        let _ = groups.limit_cpu(group, None);
    }))
}

/// Busy loops pinned to one CPU, and the victim with them.
///
/// # Errors
/// When they cannot be started.
pub fn neighbour(fault: &Fault, stage: &Stage) -> anyhow::Result<Active> {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let cpu = (fault.choice % cpus).to_string();
    let loops = 1 + (fault.strength * 2.9) as usize;
    let victim = stage.service(fault.victim).pid.to_string();
    let used = stage.groups.cpu_ms(NEIGHBOUR)?;
    let began = crate::sink::unix_ns();
    let service = fault.victim;
    output(&["taskset", "-a", "-c", "-p", &cpu, &victim])?;
    let everywhere = format!("0-{}", cpus - 1);
    let measure = move |stage: &Stage| {
        let used = stage.groups.cpu_ms(NEIGHBOUR)? - used;
        thread::sleep(std::time::Duration::from_millis(60)); // for the next sample
        let now = crate::sink::unix_ns() - 60_000_000;
        let waited = stage.sampler.waited_ms(service, began, now);
        Ok(Effect {
            what: format!(
                "cpuacct: {used:.0} ms by {loops} loops; schedstat: {waited:.0} ms waited"
            ),
            there: used >= 200.0 && waited >= 50.0,
            lost_ms: Some(waited),
        })
    };
    let active = Active::measured_by(measure).undone_by(move || {
        // The victim is gone only when the lab is ending.
        let _ = output(&["taskset", "-a", "-c", "-p", &everywhere, &victim]);
    });
    let procs = stage.groups.procs(NEIGHBOUR);
    let mut hogs = Vec::new();
    for _ in 0..loops {
        let mut hog = Command::new("taskset");
        hog.args(["-c", &cpu, "sh", "-c", "while :; do :; done"]);
        hogs.push(Process::start_in("hog", &mut hog, &procs)?);
    }
    Ok(active.with(hogs))
}

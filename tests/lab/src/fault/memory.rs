//! Memory limits of the store, and collections of the Java service.

use std::sync::Arc;

use harness::http;

use super::{Active, Effect, between};
use crate::{
    plan::Fault,
    service::{PORT, Service},
    stage::Stage,
};

/// A limit 8 to 24 MiB above what the store has; each request writes more than that.
///
/// # Errors
/// When the kernel refuses.
pub fn limit(fault: &Fault, stage: &Stage) -> anyhow::Result<Active> {
    let group = Service::Store.group();
    let room = between(24.0, 8.0, fault.strength) as u64;
    let before = stage.groups.memory_hits(group)?;
    set(stage, room)?;
    let groups = Arc::clone(&stage.groups);
    let measure = move |stage: &Stage| {
        let hits = stage.groups.memory_hits(group)? - before;
        Ok(Effect {
            what: format!("memory: ran {hits} times into the limit"),
            there: hits >= 10,
        })
    };
    Ok(Active::measured_by(measure).undone_by(move || {
        // The group is gone only when the lab is ending.
        let _ = groups.limit_memory(group, None);
    }))
}

/// A limit that a helper process of the store runs into and is killed for.
///
/// # Errors
/// When the kernel refuses.
pub fn oom(_: &Fault, stage: &Stage) -> anyhow::Result<Active> {
    let group = Service::Store.group();
    let before = stage.groups.memory_kills(group)?;
    set(stage, 48)?;
    let groups = Arc::clone(&stage.groups);
    let measure = move |stage: &Stage| {
        let kills = stage.groups.memory_kills(group)? - before;
        Ok(Effect {
            what: format!("memory: {kills} processes killed"),
            there: kills >= 1,
        })
    };
    Ok(Active::measured_by(measure).undone_by(move || {
        // The group is gone only when the lab is ending.
        let _ = groups.limit_memory(group, None);
    }))
}

fn set(stage: &Stage, room_mebibytes: u64) -> anyhow::Result<()> {
    let group = Service::Store.group();
    let bytes = stage.groups.memory_bytes(group)? + (room_mebibytes << 20);
    stage.groups.limit_memory(group, Some(bytes))
}

/// Full collections come with the requests; the runtime's own account says how long.
///
/// # Errors
/// When the service does not answer.
pub fn collections(stage: &Stage) -> anyhow::Result<Active> {
    let before = collected_ms(stage)?;
    Ok(Active::measured_by(move |stage| {
        let paused = collected_ms(stage)? - before;
        Ok(Effect {
            what: format!("the JVM: {paused} ms of collections"),
            there: paused >= 50,
        })
    }))
}

fn collected_ms(stage: &Stage) -> anyhow::Result<i64> {
    let address = stage.network.place(Service::Front.name()).address;
    let answer = http::get(&format!("http://{address}:{PORT}/collections"))?;
    Ok(answer.body.trim().parse()?)
}

//! Memory limits of the store, and collections of the Java service.

use std::{fs, process::Command, sync::Arc};

use harness::{http, process::Process};

use super::{Active, Effect, between};
use crate::{
    plan::Fault,
    service::{PORT, Service},
    stage::{NEIGHBOUR, NEIGHBOUR_IN_DATA, Stage},
};

/// Writes a file over and over through the page cache: what is not written back yet cannot be
/// freed at once, so that whoever needs memory has to wait for it. (What is only read is freed in
/// microseconds.)
const WRITER: &str = "while :; do dd if=/dev/zero of=\"$0\" bs=1M count=256 conv=notrunc 2>/dev/null; sleep 0.02; done";

/// A limit 100 to 140 MiB above what the store has, and a helper in its group that fills all
/// of it with page cache; each request writes 60 MiB, which the kernel has to free first.
///
/// # Errors
/// When the kernel refuses.
pub fn limit(fault: &Fault, stage: &Stage) -> anyhow::Result<Active> {
    let store = Service::Store.group();
    fill(store, store, between(140.0, 100.0, fault.strength), stage)
}

/// A limit on the parent of the store, and a neighbour below it that fills it with page cache: what
/// each request writes has to be freed first, for the neighbour most of all.
///
/// # Errors
/// When the kernel refuses.
pub fn neighbour(fault: &Fault, stage: &Stage) -> anyhow::Result<Active> {
    let room = between(160.0, 120.0, fault.strength);
    fill("data", NEIGHBOUR_IN_DATA, room, stage)
}

/// A limit on a group, so many MiB above what it has, and who fills it with page cache.
fn fill(
    group: &'static str,
    filler: &str,
    room_mebibytes: f64,
    stage: &Stage,
) -> anyhow::Result<Active> {
    let before = stage.groups.memory_hits(group)?;
    set(group, stage, room_mebibytes as u64)?;
    let groups = Arc::clone(&stage.groups);
    let measure = move |stage: &Stage| {
        let hits = stage.groups.memory_hits(group)? - before;
        Ok(Effect {
            what: format!("memory: {group} ran {hits} times into the limit"),
            there: hits >= 10,
            ..Effect::default()
        })
    };
    let cached = stage.dir.join(NEIGHBOUR).join("cached");
    let written = cached.clone();
    let active = Active::measured_by(measure).undone_by(move || {
        // The group is gone only when the lab is ending. With the file goes its page cache.
        let _ = groups.limit_memory(group, None);
        let _ = fs::remove_file(cached);
    });
    let mut writer = Command::new("sh");
    writer.args(["-c", WRITER]).arg(&written);
    let procs = stage.groups.procs(filler);
    Ok(active.with(vec![Process::start_in("writer", &mut writer, &procs)?]))
}

/// A limit that a helper process of the store runs into and is killed for.
///
/// # Errors
/// When the kernel refuses.
pub fn oom(_: &Fault, stage: &Stage) -> anyhow::Result<Active> {
    let group = Service::Store.group();
    let before = stage.groups.memory_kills(group)?;
    set(group, stage, 48)?;
    let groups = Arc::clone(&stage.groups);
    let measure = move |stage: &Stage| {
        let kills = stage.groups.memory_kills(group)? - before;
        Ok(Effect {
            what: format!("memory: {kills} processes killed"),
            there: kills >= 1,
            ..Effect::default()
        })
    };
    Ok(Active::measured_by(measure).undone_by(move || {
        // The group is gone only when the lab is ending.
        let _ = groups.limit_memory(group, None);
    }))
}

fn set(group: &str, stage: &Stage, room_mebibytes: u64) -> anyhow::Result<()> {
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
            ..Effect::default()
        })
    }))
}

fn collected_ms(stage: &Stage) -> anyhow::Result<i64> {
    let address = stage.network.place(Service::Front.name()).address;
    let answer = http::get(&format!("http://{address}:{PORT}/collections"))?;
    Ok(answer.body.trim().parse()?)
}

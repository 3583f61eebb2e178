//! A limit on the store's writes, neighbours that keep its disk busy (bounded in time and in
//! bytes), and a disk that is slow by itself.

use std::{process::Command, sync::Arc, time::Duration};

use anyhow::Context as _;
use harness::{peers, process::Process};

use super::{Active, Effect, between, flushes::Flushes};
use crate::{
    plan::{Fault, Kind},
    sampler,
    service::Service,
    stage::{NEIGHBOUR, Stage},
};

/// `io.max` or `blkio.throttle` on the store: 15 to 60 writes a second.
///
/// # Errors
/// When the kernel refuses.
pub fn limit(fault: &Fault, stage: &Stage) -> anyhow::Result<Active> {
    let iops = between(60.0, 15.0, fault.strength) as u64;
    let group = Service::Store.group();
    let device = stage.disk.number.clone();
    let before = stage.groups.writes(group, &device)?;
    let began = std::time::Instant::now();
    stage.groups.limit_writes(group, &device, Some(iops))?;
    let (groups, undone) = (Arc::clone(&stage.groups), device.clone());
    let measure = move |stage: &Stage| {
        let writes = stage.groups.writes(group, &device)? - before;
        let rate = writes as f64 / began.elapsed().as_secs_f64();
        Ok(Effect {
            what: format!("blkio: {rate:.0} writes/s under a limit of {iops}"),
            // At the limit: somebody waits.
            there: rate >= 0.7 * iops as f64,
            ..Effect::default()
        })
    };
    Ok(Active::measured_by(measure).undone_by(move || {
        // The group is gone only when the lab is ending.
        let _ = groups.limit_writes(group, &undone, None);
    }))
}

/// Least that a flush takes longer: a request makes a few of them.
const LEAST_SLOWER_MS: f64 = 2.0;

/// A neighbour that writes: directly and much at once, buffered, or with flush after flush.
///
/// # Errors
/// When fio is missing.
pub fn neighbour(fault: &Fault, stage: &Stage) -> anyhow::Result<Active> {
    peers::need("fio")?;
    let depth = format!("--iodepth={}", between(8.0, 64.0, fault.strength) as u32);
    let jobs = format!("--numjobs={}", between(2.0, 6.0, fault.strength) as u32);
    let how: &[&str] = match fault.kind {
        Kind::Writeback => &[
            "--rw=write",
            "--bs=1m",
            "--size=192m",
            "--sync_file_range=write:8",
        ],
        // As databases write their checkpoints. Small ones are served together, and faster than
        // one now and then.
        Kind::FsyncStorm => &["--rw=write", "--bs=1m", "--size=128m", "--fsync=32", &jobs],
        _ => &[
            "--rw=randwrite",
            "--bs=128k",
            "--size=64m",
            "--direct=1",
            "--ioengine=libaio",
            &depth,
        ],
    };
    let mut fio = Command::new("fio");
    fio.args([
        "--name=neighbour",
        "--time_based",
        "--runtime=8",
        "--unlink=1",
    ])
    .arg(format!(
        "--directory={}",
        stage.dir.join(NEIGHBOUR).display()
    ))
    .args(how);
    let procs = stage.groups.procs(NEIGHBOUR);
    let before = sampler::disk_ms(&stage.disk.name);
    let flushes = Flushes::start(&stage.dir)?;
    let fio = Process::start_in("fio", &mut fio, &procs)?;
    let measure = move |stage: &Stage| {
        let busy = sampler::disk_ms(&stage.disk.name) - before;
        let (usual, now) = flushes.end();
        Ok(Effect {
            what: format!(
                "diskstats: {busy:.0} ms of I/O in flight; a flush took {now:.1} ms, {usual:.1} before"
            ),
            // A disk that is busy and as fast as ever disturbs nobody.
            there: busy >= 1_000.0 && now >= 2.0 * usual && now >= usual + LEAST_SLOWER_MS,
            ..Effect::default()
        })
    };
    Ok(Active::measured_by(measure).with(vec![fio]))
}

/// The disk of its own that each request then writes to with a flush takes 8 to 30 ms for each of
/// the few requests that come of that.
///
/// # Errors
/// When the kernel's account of the disk cannot be read.
pub fn slow(fault: &Fault, stage: &Stage) -> anyhow::Result<Active> {
    let Some(disk) = &stage.slow else {
        return Ok(Active::measured_by(|_| {
            Ok(Effect {
                what: "there is no disk here that can be made slow".to_owned(),
                ..Effect::default()
            })
        }));
    };
    let before = disk.books()?;
    let delay = disk.delay();
    delay.set(Duration::from_secs_f64(between(
        0.008,
        0.03,
        fault.strength,
    )));
    let measure = move |stage: &Stage| {
        let disk = stage.slow.as_ref().context("the disk is gone")?;
        let after = disk.books()?;
        let requests = after.requests - before.requests;
        let ms = (after.ms - before.ms) as f64;
        Ok(Effect {
            what: format!(
                "{}: {requests} writes and flushes, {:.1} ms each",
                disk.name,
                ms / requests.max(1) as f64
            ),
            there: requests > 0,
            lost_ms: Some(ms),
        })
    };
    Ok(Active::measured_by(measure).undone_by(move || delay.set(Duration::ZERO)))
}

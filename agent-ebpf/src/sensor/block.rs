//! `block`: how long each request waited for the device and how long the device took, and
//! which threads waited for that; how long limits held I/O back.
//!
//! Histograms need one hook, the completion: the kernel notes the earlier times in the
//! request. It runs in interrupts, where nobody can tell whose request it is, so for
//! tracked thread groups a second one remembers who submitted it ([`submit`]). Where the
//! kernel does not note when the device got a request, a third one does ([`issue`]). Limits
//! hold I/O back before any of them: [`throttle`].

mod issue;
mod submit;
mod throttle;

use agent_common::{
    consumption::{BY_PAGE, ConsumerKey},
    event::{
        block::{KIND_DEVICE, KIND_QUEUE, operation},
        sensor,
    },
    series::{SeriesKey, family},
};
use aya_ebpf::{
    helpers::bpf_ktime_get_ns,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};

use crate::{
    consumption, emit,
    kernel::{
        Memory, Probed, Typed,
        block::{Bio, Request, counted_as},
    },
    series,
};

/// Inode of the root of any cgroup hierarchy: what is its, or nobody's.
const ROOT: u64 = 1;
/// Consumption of less in one stretch fills no queue.
const LEAST_US: u64 = 500;

/// kernel: v5.10.. include/trace/events/block.h: block_rq_complete(struct request *rq,
/// blk_status_t error, unsigned int nr_bytes)
#[btf_tracepoint(function = "block_rq_complete")]
pub fn block_complete(ctx: BtfTracePointContext) -> u32 {
    // SAFETY: the tracepoint's argument is a request, typed for the verifier.
    let request = unsafe { Request::<Typed>::new(ctx.arg(0)) };
    complete(request, ctx.arg::<u32>(2));
    0
}

/// The same on a hook that needs no BTF program type; its reads go through a helper.
#[raw_tracepoint(tracepoint = "block_rq_complete")]
pub fn block_complete_raw(ctx: RawTracePointContext) -> u32 {
    // SAFETY: as above; the verifier has no types here.
    let request = unsafe { Request::<Probed>::new(ctx.arg(0)) };
    complete(request, ctx.arg::<u64>(2) as u32);
    0
}

#[inline(always)]
fn complete<M: Memory>(request: Request<M>, completed_bytes: u32) {
    let Some(operation) = request.operation() else {
        return;
    };
    if completed_bytes < request.remaining_bytes() {
        return; // the rest is still to come
    }
    let bio = request.bio();
    if bio.is_null() {
        return; // the device's own flush: those who wait for it are told apart
    }
    // SAFETY: returns a number.
    let end_ns = unsafe { bpf_ktime_get_ns() };
    let (allocated_ns, device_ns) = (request.start_ns(), issue::device_start(request));
    let start_ns = match (allocated_ns, device_ns) {
        (0, 0) => {
            emit::lost(sensor::BLOCK); // its times are known to nobody
            return;
        }
        (0, device_ns) => device_ns,
        (allocated_ns, _) => bio.submitted_ns(allocated_ns),
    };
    // A flush is not given to the device itself: one of the device's own serves all.
    let is_split = device_ns >= start_ns;
    let device_ns = if is_split { device_ns } else { start_ns };
    let operation = counted_as(operation, bio);
    let disk = request.disk();
    let cgroup_id = bio.cgroup_id();
    let observe = |phase: u32, ns: u64| {
        let key = SeriesKey {
            cgroup_id,
            family: family::BLOCK,
            a: disk,
            b: u64::from(operation | phase << 8),
        };
        series::observe(sensor::BLOCK, &key, ns);
    };
    observe(KIND_DEVICE, end_ns.saturating_sub(device_ns));
    if is_split && operation != operation::FLUSH {
        observe(KIND_QUEUE, device_ns - start_ns);
    }
    consumed(bio, cgroup_id, disk, start_ns, end_ns);
    submit::completed(bio, disk, operation, device_ns, end_ns);
}

/// Adds up how long I/O was under way, by whose it is: who had much of it under way at once
/// filled the queue.
#[inline(always)]
fn consumed<M: Memory>(bio: Bio<M>, cgroup_id: u64, disk: u32, start_ns: u64, end_ns: u64) {
    if !consumption::is_sought(sensor::BLOCK, end_ns) {
        return;
    }
    let (cgroup_id, by_page) = if cgroup_id > ROOT {
        (cgroup_id, 0)
    } else {
        (bio.memory_cgroup_id(), BY_PAGE)
    };
    let key = ConsumerKey {
        cgroup_id,
        resource: u64::from(disk) | by_page,
        sensor: u64::from(sensor::BLOCK),
    };
    let us = end_ns.saturating_sub(start_ns) / 1_000;
    consumption::add(&key, start_ns, end_ns, us, LEAST_US);
}

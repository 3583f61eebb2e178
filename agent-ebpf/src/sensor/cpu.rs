//! `cpu`: how long each thread waited for a CPU, and how much of that a quota held it back.
//!
//! One hook. What runs on every switch costs a dozen loads and one look-up in an array that
//! the verifier inlines; clocks, hash tables and the ring buffer are for the rare cases. All
//! times are `rq.clock`, the clock of `sched_info`; only emitted intervals are converted.

mod account;
mod holders;
mod idle;
mod interval;
mod throttle;

use aya_ebpf::{
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use interval::Interval;

use crate::kernel::{
    Memory, Probed, Typed,
    sched::{Task, throttles_tasks},
};

/// kernel: v5.10.. include/trace/events/sched.h: sched_switch(bool preempt, struct
/// task_struct *prev, struct task_struct *next, ..)
#[btf_tracepoint(function = "sched_switch")]
pub fn cpu_switch(ctx: BtfTracePointContext) -> u32 {
    // SAFETY: the tracepoint's arguments are the two tasks, typed for the verifier.
    unsafe { switch::<Typed>(ctx.arg(1), ctx.arg(2)) }
    0
}

/// The same on a hook that needs no BTF program type; its reads go through a helper.
#[raw_tracepoint(tracepoint = "sched_switch")]
pub fn cpu_switch_raw(ctx: RawTracePointContext) -> u32 {
    // SAFETY: as above; the verifier has no types here.
    unsafe { switch::<Probed>(ctx.arg(1), ctx.arg(2)) }
    0
}

/// # Safety
///
/// Both are tasks of a kind that `M` can read.
#[inline(always)]
unsafe fn switch<M: Memory>(prev: *const u8, next: *const u8) {
    // SAFETY: by the caller's promise.
    let (prev, next) = unsafe { (Task::<M>::new(prev), Task::<M>::new(next)) };
    let clock = next.cfs_rq().clock();

    throttle::on_switch_out(prev, clock);
    interval::on_cpu(prev, clock);
    holders::switched_out(prev, clock);
    idle::on_switch(prev, next, clock);

    let last_queued = next.last_queued();
    if last_queued == 0 {
        return; // the idle task, or one that did not wait
    }
    let waited_ns = clock.saturating_sub(last_queued);
    let Some(slot) = account::slot(next.cgroup_id()) else {
        return; // cannot be: the index is masked to the table's length
    };
    if throttles_tasks() {
        if throttle::may_have_been(next.tid(), waited_ns)
            && let Some((total_ns, held_ns, limiter)) = throttle::end_of_task(next, waited_ns)
        {
            let start = clock.saturating_sub(total_ns);
            let split = start + held_ns;
            account::throttled(slot, held_ns);
            Interval::throttled(next, start, split, limiter).emit(clock);
            if held_ns < total_ns {
                account::runqueue(slot, total_ns - held_ns);
                interval::runqueue(next, prev, split, clock, clock);
            }
            return;
        }
    } else if throttle::windows_overlap(next, slot, clock, last_queued) {
        throttle::split_by_windows(next, prev, slot, clock, last_queued);
        return;
    }
    account::runqueue(slot, waited_ns);
    interval::runqueue(next, prev, last_queued, clock, clock);
}

//! Single intervals: which are worth telling, and their conversion to the monotonic clock.

use agent_common::event::{
    Record,
    cpu::{KIND_ON_CPU, KIND_RUNQUEUE, KIND_THROTTLED},
    sensor,
};
use aya_ebpf::{
    Global,
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
};

use super::{holders, idle};
use crate::{
    emit,
    kernel::{Memory, sched::Task},
    tracked::is_tracked,
};

/// Waits from this length on are told of every thread.
#[unsafe(no_mangle)]
static RUNQUEUE_MIN_NS: Global<u64> = Global::new(1_000_000);
/// Waits from this length on are told of tracked thread groups.
#[unsafe(no_mangle)]
static TRACKED_RUNQUEUE_MIN_NS: Global<u64> = Global::new(50_000);
/// Stints on a CPU from this length on are told of tracked thread groups.
#[unsafe(no_mangle)]
static TRACKED_ON_CPU_MIN_NS: Global<u64> = Global::new(100_000);

/// A stretch of one thread's time in `rq.clock`.
pub struct Interval<M> {
    task: Task<M>,
    kind: u32,
    start: u64,
    end: u64,
    /// Whose quota, or who ran meanwhile.
    other_cgroup_id: u64,
    /// Of a wait: see [`KIND_RUNQUEUE`].
    confined_to: u32,
}

impl<M: Memory> Interval<M> {
    /// Held back by the quota of this cgroup (0: unknown).
    pub fn throttled(task: Task<M>, start: u64, end: u64, limiter_cgroup_id: u64) -> Self {
        Self {
            task,
            kind: KIND_THROTTLED,
            start,
            end,
            other_cgroup_id: limiter_cgroup_id,
            confined_to: 0,
        }
    }

    /// Sends it; `clock` is `rq.clock` now.
    #[inline(always)]
    pub fn emit(self, clock: u64) {
        // SAFETY: the helpers return numbers, nothing is dereferenced.
        let (now_ns, cpu) = unsafe { (bpf_ktime_get_ns(), bpf_get_smp_processor_id()) };
        emit::record(&Record {
            sensor: sensor::CPU,
            kind: self.kind,
            start_ns: now_ns.saturating_sub(clock.saturating_sub(self.start)),
            end_ns: now_ns.saturating_sub(clock.saturating_sub(self.end)),
            cgroup_id: self.task.cgroup_id(),
            detail: self.other_cgroup_id,
            leader_start_boottime_ns: self.task.leader_start_boottime_ns(),
            pid: self.task.tgid(),
            tid: self.task.tid(),
            cpu,
            extra: self.confined_to,
        });
    }
}

/// Tells the wait of `task` for a CPU, on which `before` ran last, and who had that CPU
/// meanwhile, if it is long enough for that.
#[inline(always)]
pub fn runqueue<M: Memory>(task: Task<M>, before: Task<M>, start: u64, end: u64, clock: u64) {
    let ns = end.saturating_sub(start);
    let told = |min_ns| emit::is_told(sensor::CPU, ns, min_ns);
    if told(RUNQUEUE_MIN_NS.load())
        || (told(TRACKED_RUNQUEUE_MIN_NS.load()) && is_tracked(task.tgid()))
    {
        // The idle task is nobody's neighbour.
        let last = if before.tid() == 0 {
            0
        } else {
            before.cgroup_id()
        };
        Interval {
            task,
            kind: KIND_RUNQUEUE,
            start,
            end,
            other_cgroup_id: holders::most(start, end, last),
            confined_to: idle::confined_to(task, start, end),
        }
        .emit(clock);
    }
}

/// Tells the stint on the CPU that `task` has just finished, if somebody wants to know.
#[inline(always)]
pub fn on_cpu<M: Memory>(task: Task<M>, clock: u64) {
    let start = task.last_arrival();
    let ns = clock.saturating_sub(start);
    if emit::is_told(sensor::CPU, ns, TRACKED_ON_CPU_MIN_NS.load()) && is_tracked(task.tgid()) {
        Interval {
            task,
            kind: KIND_ON_CPU,
            start,
            end: clock,
            other_cgroup_id: 0,
            confined_to: 0,
        }
        .emit(clock);
    }
}

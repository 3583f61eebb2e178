//! How much of a wait a quota was responsible for, on both generations of the kernel.
//!
//! From 6.18 on single tasks are taken off their queue when they return to user mode: the
//! task says so itself at switch-out, and its queue's clock of finished throttles says when
//! that ended. Before, whole groups are taken off; their tasks notice nothing. There each
//! slot (cgroup and CPU) keeps the last windows in which the group was off, found when the
//! queue's clock has moved at a switch-in, and a task was held back as far as its wait
//! overlaps them: no second hook and no state per task.

use agent_common::{
    cpu::{CpuSlot, THROTTLE_MARKS, WINDOWS, Window},
    event::sensor,
};
use aya_ebpf::{
    Global,
    bindings::BPF_ANY,
    macros::map,
    maps::{Array, HashMap},
};

use super::{
    account,
    interval::{self, Interval},
};
use crate::{
    emit,
    kernel::{
        Memory,
        sched::{Task, held_ns_at, throttles_tasks},
    },
};

/// What is remembered of a task that was switched out throttled.
#[repr(C)]
#[derive(Clone, Copy)]
struct Held {
    /// `rq.clock` at the switch-out.
    clock: u64,
    /// Its waits until then.
    run_delay_ns: u64,
    /// The switch-out's stint: a later one of the same thread, or a later thread of the same
    /// id, has another number.
    pcount: u64,
    /// Its queue.
    cfs_rq: u64,
    /// `rq.clock` since which that queue is held back.
    held_since: u64,
    /// Nanoseconds that it was held back before.
    held_ns: u64,
    /// Whose quota.
    limiter_cgroup_id: u64,
}

/// By thread id.
#[map]
static HELD: HashMap<u32, Held> = HashMap::with_max_entries(16_384, 0);

/// Non-zero where a thread with these low bits of its id is in [`HELD`], so that a task that
/// was moved to another CPU, where its wait starts anew, is recognised without a look-up.
#[map]
static HELD_MARKS: Array<[u8; THROTTLE_MARKS]> = Array::with_max_entries(1, 0);

/// Without a mark, shorter waits are not looked up: no throttle ends that soon.
#[unsafe(no_mangle)]
static HELD_LOOKUP_MIN_NS: Global<u64> = Global::new(20_000);

/// A throttle's beginning, computed from another clock, may be off by this much.
const LIMITER_SLACK_NS: u64 = 1_000_000;

/// To be called for every task switched out.
#[inline(always)]
pub fn on_switch_out<M: Memory>(prev: Task<M>, clock: u64) {
    if throttles_tasks() {
        if prev.throttled() {
            hold(prev, clock);
        }
    } else if prev.cfs_rq().is_throttled()
        && let Some(slot) = account::slot(prev.cgroup_id())
    {
        slot.limiter_cgroup_id = prev.limiter();
        slot.limiter_clock = clock;
        // It is switched out for that reason: where the kernel does not say, it began now.
        let since = prev.cfs_rq().held_since();
        slot.throttled_since = if since != 0 { since } else { clock };
    }
}

#[inline(always)]
fn hold<M: Memory>(task: Task<M>, clock: u64) {
    let queue = task.cfs_rq();
    let tid = task.tid();
    let held = Held {
        clock,
        run_delay_ns: task.run_delay(),
        pcount: task.pcount(),
        cfs_rq: queue.address(),
        held_since: queue.held_since(),
        held_ns: queue.held_ns(),
        limiter_cgroup_id: task.limiter(),
    };
    if HELD.insert(tid, held, u64::from(BPF_ANY)).is_ok() {
        mark(tid, 1);
    } else {
        emit::lost(sensor::CPU);
    }
}

/// Whether [`end_of_task`] is worth its look-up.
#[inline(always)]
pub fn may_have_been(tid: u32, waited_ns: u64) -> bool {
    waited_ns >= HELD_LOOKUP_MIN_NS.load()
        || HELD_MARKS
            .get(0)
            .is_some_and(|marks| marks[tid as usize % THROTTLE_MARKS] != 0)
}

#[inline(always)]
fn mark(tid: u32, value: u8) {
    if let Some(marks) = HELD_MARKS.get_ptr_mut(0) {
        // SAFETY: one byte of a map value; other CPUs write other threads' bytes, and where
        // two threads share one, the worst is a look-up too many or a short wait missed.
        unsafe { (*marks)[tid as usize % THROTTLE_MARKS] = value };
    }
}

/// For a task switched in that was switched out throttled: how long it was off the CPU, how
/// much of that was the quota's, and whose quota. `waited_ns`: since it was last queued.
#[inline(always)]
pub fn end_of_task<M: Memory>(next: Task<M>, waited_ns: u64) -> Option<(u64, u64, u64)> {
    let tid = next.tid();
    // SAFETY: the entry is only replaced or removed when this very task is switched, which
    // is now, on this CPU.
    let held = unsafe { *HELD.get(tid)? };
    if HELD.remove(tid).is_ok() {
        mark(tid, 0);
    }
    if held.pcount != next.pcount() {
        return None;
    }
    // What it waited on other CPUs before it was moved is in `run_delay` by now.
    let total_ns = waited_ns + next.run_delay().saturating_sub(held.run_delay_ns);
    let queue = next.cfs_rq();
    let held_ns = if queue.address() == held.cfs_rq {
        queue.held_ns()
    } else {
        held_ns_at(held.cfs_rq)
    };
    let window_ns = held_ns.saturating_sub(held.held_ns);
    let before_ns = held.clock.saturating_sub(held.held_since);
    let quota_ns = if held.held_since != 0 && window_ns > before_ns {
        (window_ns - before_ns).min(total_ns)
    } else {
        total_ns
    };
    Some((total_ns, quota_ns, held.limiter_cgroup_id))
}

/// Kernels before 6.18: notes what the queue's clock says, and tells whether a window
/// touches the wait that began at `last_queued`.
#[inline(always)]
pub fn windows_overlap<M: Memory>(
    next: Task<M>,
    slot: &mut CpuSlot,
    clock: u64,
    last_queued: u64,
) -> bool {
    let queue = next.cfs_rq();
    let held_ns = queue.held_ns();
    if held_ns != slot.throttled_seen_ns {
        let grown_ns = held_ns.saturating_sub(slot.throttled_seen_ns);
        slot.throttled_seen_ns = held_ns;
        // Seen to begin, or else to be told from the load-tracking clock, which runs slower: it
        // leaves out interrupts.
        let since = core::mem::take(&mut slot.throttled_since);
        let age_ns = queue.last_throttle_age_ns();
        let waited_ns = clock.saturating_sub(last_queued);
        let start = if since != 0 && grown_ns <= clock.saturating_sub(since) {
            Some(since)
        } else if grown_ns <= age_ns + age_ns / 8 {
            Some(clock.saturating_sub(age_ns.max(grown_ns)))
        } else if grown_ns <= waited_ns {
            Some(last_queued)
        } else {
            None // several windows, some before the wait: which is which cannot be known
        };
        if let Some(start) = start {
            let at = slot.next_window as usize % WINDOWS;
            if let Some(window) = slot.windows.get_mut(at) {
                *window = Window {
                    start,
                    end: start + grown_ns,
                };
            }
            slot.next_window = slot.next_window.wrapping_add(1);
        }
    }
    let newest = slot.next_window.wrapping_sub(1) as usize % WINDOWS;
    slot.windows
        .get(newest)
        .is_some_and(|window| window.end > last_queued)
}

/// Kernels before 6.18: tells and counts the wait that ends now, cut at the slot's windows.
#[inline(always)]
pub fn split_by_windows<M: Memory>(
    next: Task<M>,
    prev: Task<M>,
    slot: &mut CpuSlot,
    clock: u64,
    last_queued: u64,
) {
    let mut at = last_queued;
    let mut queued_ns = 0;
    let (limiter, known_at) = (slot.limiter_cgroup_id, slot.limiter_clock);
    for i in 0..WINDOWS {
        // Oldest first.
        let index = (slot.next_window as usize).wrapping_add(i) % WINDOWS;
        let Some(&Window { start, end }) = slot.windows.get(index) else {
            continue;
        };
        let (start, end) = (start.max(at), end.min(clock));
        if start >= end {
            continue;
        }
        if start > at {
            queued_ns += start - at;
            interval::runqueue(next, prev, at, start, clock);
        }
        account::throttled(slot, end - start);
        // Seen in this throttle, or in an earlier one that may have been another group's?
        let limiter = if known_at.saturating_add(LIMITER_SLACK_NS) >= start {
            limiter
        } else {
            0
        };
        Interval::throttled(next, start, end, limiter).emit(clock);
        at = end;
    }
    if clock > at {
        queued_ns += clock - at;
        interval::runqueue(next, prev, at, clock, clock);
    }
    account::runqueue(slot, queued_ns);
}

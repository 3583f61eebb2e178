//! Who had this CPU lately, so that a wait names the group that had most of it, not the one
//! that happened to come last: often that is a kernel thread which ran for a moment.
//!
//! Only long stints are remembered: they cost nothing to switches that follow each other
//! closely, and there are few of them in a wait. What they leave of a wait went to short ones,
//! of which the last to run is a fair sample.

use aya_ebpf::{macros::map, maps::PerCpuArray};

use crate::kernel::{Memory, sched::Task};

/// Stints remembered of each CPU, the oldest overwritten: some time slices of the scheduler,
/// more than a wait usually takes.
const STINTS: usize = 8;
/// From this length on.
const LONG_NS: u64 = 100_000;

/// A stretch of `rq.clock` that a group had, shorter breaks than [`LONG_NS`] included.
#[repr(C)]
#[derive(Clone, Copy)]
struct Stint {
    cgroup_id: u64,
    start: u64,
    end: u64,
}

/// See [`STINTS`].
#[repr(C)]
struct Recent {
    stints: [Stint; STINTS],
    /// Index of the newest.
    newest: u64,
}

#[map]
static RECENT: PerCpuArray<Recent> = PerCpuArray::with_max_entries(1, 0);

/// To be called for every task switched out.
#[inline(always)]
pub fn switched_out<M: Memory>(prev: Task<M>, clock: u64) {
    let start = prev.last_arrival();
    // The idle task is nobody's neighbour.
    if clock.saturating_sub(start) >= LONG_NS && prev.tid() != 0 {
        remember(Stint {
            cgroup_id: prev.cgroup_id(),
            start,
            end: clock,
        });
    }
}

#[inline(always)]
fn remember(stint: Stint) {
    let Some(recent) = RECENT.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: this CPU's own copy; programs on this hook run with interrupts off.
    let recent = unsafe { &mut *recent };
    let newest = recent.newest as usize % STINTS;
    if let Some(last) = recent.stints.get_mut(newest)
        && last.cgroup_id == stint.cgroup_id
        && stint.start.saturating_sub(last.end) < LONG_NS
    {
        last.end = stint.end;
        return;
    }
    recent.newest = recent.newest.wrapping_add(1);
    let newest = recent.newest as usize % STINTS;
    if let Some(oldest) = recent.stints.get_mut(newest) {
        *oldest = stint;
    }
}

/// The group that had most of this CPU from `start` to `end`, if one had more than half; else
/// one of those that had much. `last`: the group that ran last, 0 if that was nobody.
#[inline(never)]
pub fn most(start: u64, end: u64, last: u64) -> u64 {
    let mut leader = Leader {
        cgroup_id: last,
        votes: 0,
    };
    let mut rest = end.saturating_sub(start);
    if let Some(recent) = RECENT.get_ptr(0) {
        for i in 0..STINTS {
            // SAFETY: this CPU's own copy; programs on this hook run with interrupts off.
            let stint = unsafe { (*recent).stints[i] };
            let from = if stint.start > start {
                stint.start
            } else {
                start
            };
            let to = if stint.end < end { stint.end } else { end };
            if to > from {
                leader.vote(stint.cgroup_id, to - from);
                rest = rest.saturating_sub(to - from);
            }
        }
    }
    leader.vote(last, rest);
    leader.cgroup_id
}

/// Majority vote in one pass (Boyer and Moore): a vote for another takes one from the leader.
struct Leader {
    cgroup_id: u64,
    votes: u64,
}

impl Leader {
    #[inline(always)]
    fn vote(&mut self, cgroup_id: u64, votes: u64) {
        if cgroup_id == self.cgroup_id {
            self.votes += votes;
        } else if votes > self.votes {
            self.cgroup_id = cgroup_id;
            self.votes = votes - self.votes;
        } else {
            self.votes -= votes;
        }
    }
}

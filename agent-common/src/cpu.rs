//! Map values and knobs of the `cpu` sensor.

use crate::histogram::Histogram;

/// Throttle windows that a [`CpuSlot`] remembers (kernels before 6.18).
/// The verifier of 6.12 follows every combination of them: four were too many for it.
pub const WINDOWS: usize = 2;
/// Length of the table in which a throttled thread leaves a mark, indexed by the low bits
/// of its id.
pub const THROTTLE_MARKS: usize = 1 << 16;

/// What is counted of one cgroup.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgroupTotals {
    /// Waits for a CPU, throttle time subtracted. First, as it is written at every switch and
    /// then shares a cache line with the cgroup's id.
    pub runqueue: Histogram,
    /// Single throttled intervals.
    pub throttled: Histogram,
}

/// A stretch of a run queue's clock during which a group was throttled on that CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// `rq.clock` at its start.
    pub start: u64,
    /// `rq.clock` at its end.
    pub end: u64,
}

/// One entry of the per-CPU table, found by the low bits of the cgroup's id; belongs to the
/// cgroup named in it until another one with the same low bits comes by.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuSlot {
    /// Inode of the cgroup's directory; 0: nobody's yet.
    pub cgroup_id: u64,
    /// Counted since this cgroup took the slot.
    pub totals: CgroupTotals,
    /// Kernels before 6.18: the group's throttled time on this CPU when last looked at.
    pub throttled_seen_ns: u64,
    /// Kernels before 6.18: the last windows, oldest overwritten.
    pub windows: [Window; WINDOWS],
    /// Kernels before 6.18: cgroup found throttled when a thread of this one was last
    /// switched out under a throttle.
    pub limiter_cgroup_id: u64,
    /// `rq.clock` of that.
    pub limiter_clock: u64,
    /// `rq.clock` at which that throttle began; 0: the window is among `windows` already.
    pub throttled_since: u64,
    /// Index of the next window to overwrite.
    pub next_window: u64,
}

const _: () = assert!(size_of::<CpuSlot>() == 8 + 448 + 8 + 16 * WINDOWS + 8 + 8 + 8 + 8);

#[cfg(feature = "user")]
// SAFETY: `repr(C)` of u64 only: no padding, any bytes are a valid value.
unsafe impl aya::Pod for CgroupTotals {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for CpuSlot {}

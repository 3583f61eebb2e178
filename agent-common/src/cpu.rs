//! Map values and knobs of the `cpu` sensor.

/// Upper bound of a histogram's first slot: 2^10 ns, about a microsecond.
pub const FIRST_SLOT_LOG2_NS: u32 = 10;
/// Slots of a histogram; the last but one ends at 2^35 ns (34 s), the last takes the rest.
pub const HISTOGRAM_SLOTS: usize = 27;
/// Throttle windows that a [`CpuSlot`] remembers (kernels before 6.18).
/// The verifier of 6.12 follows every combination of them: four were too many for it.
pub const WINDOWS: usize = 2;
/// Length of the table in which a throttled thread leaves a mark, indexed by the low bits
/// of its id.
pub const THROTTLE_MARKS: usize = 1 << 16;

/// log2 slots of nanoseconds and the exact sum.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// Sum of all values in nanoseconds.
    pub sum_ns: u64,
    /// `slots[i]` counts values below `2^(FIRST_SLOT_LOG2_NS + i)` that no lower one counts.
    pub slots: [u64; HISTOGRAM_SLOTS],
}

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
    /// Index of the next window to overwrite.
    pub next_window: u64,
}

const _: () = assert!(size_of::<Histogram>() == 224);
const _: () = assert!(size_of::<CpuSlot>() == 8 + 448 + 8 + 16 * WINDOWS + 8 + 8 + 8);

/// The slot of a value of `ns` nanoseconds.
#[inline(always)]
#[must_use]
pub fn slot_of(ns: u64) -> usize {
    let mut rest = ns >> FIRST_SLOT_LOG2_NS;
    if rest == 0 {
        return 0; // the usual case, kept short
    }
    if rest >> (HISTOGRAM_SLOTS - 2) != 0 {
        return HISTOGRAM_SLOTS - 1;
    }
    // The target has no instruction that counts leading zeros.
    let mut slot = 1;
    if rest >> 16 != 0 {
        rest >>= 16;
        slot += 16;
    }
    if rest >> 8 != 0 {
        rest >>= 8;
        slot += 8;
    }
    if rest >> 4 != 0 {
        rest >>= 4;
        slot += 4;
    }
    if rest >> 2 != 0 {
        rest >>= 2;
        slot += 2;
    }
    if rest >> 1 != 0 {
        slot += 1;
    }
    slot
}

#[cfg(feature = "user")]
// SAFETY: `repr(C)` of u64 only: no padding, any bytes are a valid value.
unsafe impl aya::Pod for CgroupTotals {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for CpuSlot {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_holds_what_is_below_its_bound_and_no_lower_one() {
        for log2 in 0..64 {
            for ns in [1_u64 << log2, (1 << log2) + ((1 << log2) - 1)] {
                let expected = (log2 as usize + 1)
                    .saturating_sub(FIRST_SLOT_LOG2_NS as usize)
                    .min(HISTOGRAM_SLOTS - 1);
                assert_eq!(slot_of(ns), expected, "{ns} ns");
            }
        }
        assert_eq!(slot_of(0), 0);
    }
}

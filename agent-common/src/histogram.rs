//! log2 histograms of nanoseconds, as the kernel side keeps them.

/// Upper bound of a histogram's first slot: 2^10 ns, about a microsecond.
pub const FIRST_SLOT_LOG2_NS: u32 = 10;
/// Slots of a histogram; the last but one ends at 2^35 ns (34 s), the last takes the rest.
pub const HISTOGRAM_SLOTS: usize = 27;

/// log2 slots of nanoseconds and the exact sum.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// Sum of all values in nanoseconds.
    pub sum_ns: u64,
    /// `slots[i]` counts values below `2^(FIRST_SLOT_LOG2_NS + i)` that no lower one counts.
    pub slots: [u64; HISTOGRAM_SLOTS],
}

impl Histogram {
    /// Nothing counted.
    pub const EMPTY: Self = Self {
        sum_ns: 0,
        slots: [0; HISTOGRAM_SLOTS],
    };
}

const _: () = assert!(size_of::<Histogram>() == 224);

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
unsafe impl aya::Pod for Histogram {}

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

//! The thread groups of which more is told: those that send spans.

use aya_ebpf::{macros::map, maps::Array};

/// One bit per thread group id, written by user space only; sized by the loader.
#[map]
static TRACKED: Array<u64> = Array::with_max_entries(32_768 / 64, 0);

/// Whether somebody wants to know more of this thread group.
#[inline(always)]
pub fn is_tracked(tgid: u32) -> bool {
    TRACKED
        .get(tgid / 64)
        .is_some_and(|word| word >> (tgid % 64) & 1 != 0)
}

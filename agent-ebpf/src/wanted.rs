//! Hooks that cost too much to be always there: the kernel side says here when one would
//! have been of use, and user space attaches it for a while.

use agent_common::event::sensor;
use aya_ebpf::{macros::map, maps::Array};

/// `CLOCK_MONOTONIC` when the sensor's hook was last of use, by sensor id; 0: never.
#[map]
static WANTED: Array<u64> = Array::with_max_entries(sensor::COUNT, 0);

/// The sensor has a use for its hook at `now_ns`.
#[inline(always)]
pub fn now(sensor_id: u32, now_ns: u64) {
    if let Some(wanted) = WANTED.get_ptr_mut(sensor_id) {
        // SAFETY: a map's value; an aligned write of one word, and any of those at the same
        // time will do.
        unsafe { wanted.write_volatile(now_ns) };
    }
}

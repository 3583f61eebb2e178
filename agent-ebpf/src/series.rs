//! Counters and histograms by cgroup and label, for what happens too often to be told one by
//! one. User space reads them, and removes those of cgroups that are gone.

use agent_common::{
    histogram::{HISTOGRAM_SLOTS, Histogram, slot_of},
    series::SeriesKey,
};
use aya_ebpf::{bindings::BPF_NOEXIST, macros::map, maps::HashMap};

use crate::{atomic, emit, index};

/// Allocated in advance: not every kernel can do it later in every context.
#[map]
static HISTOGRAMS: HashMap<SeriesKey, Histogram> = HashMap::with_max_entries(8192, 0);

/// Likewise.
#[map]
static COUNTERS: HashMap<SeriesKey, u64> = HashMap::with_max_entries(16_384, 0);

/// What a histogram begins with; too large for the stack.
static EMPTY: Histogram = Histogram::EMPTY;

/// Counts one value of `ns` nanoseconds; without room for a new series it is counted as lost
/// by the sensor.
#[inline(always)]
pub fn observe(sensor_id: u32, key: &SeriesKey, ns: u64) {
    let Some(histogram) = histogram(key) else {
        emit::lost(sensor_id);
        return;
    };
    // SAFETY: `histogram` points to a map's value, which is made of u64 only and which others
    // write at the same time, hence the atomics; the slot is within it.
    unsafe {
        atomic::add(&raw mut (*histogram).sum_ns, ns);
        let slots = (&raw mut (*histogram).slots).cast::<u64>();
        if let Some(slot) = index::below(slot_of(ns), HISTOGRAM_SLOTS) {
            atomic::add(slots.add(slot), 1);
        }
    }
}

/// Adds `n`; likewise.
#[inline(always)]
pub fn count(sensor_id: u32, key: &SeriesKey, n: u64) {
    if COUNTERS.get_ptr(key).is_none() {
        // Somebody else may have been first: then it is there now.
        let _ = COUNTERS.insert(key, 0, u64::from(BPF_NOEXIST));
    }
    let Some(counter) = COUNTERS.get_ptr_mut(key) else {
        emit::lost(sensor_id);
        return;
    };
    // SAFETY: a map's value, written by others at the same time, hence the atomic.
    unsafe { atomic::add(counter, n) };
}

#[inline(always)]
#[expect(
    clippy::needless_borrows_for_generic_args,
    reason = "by value, the histogram would be copied to a stack of 512 bytes"
)]
fn histogram(key: &SeriesKey) -> Option<*mut Histogram> {
    if let Some(histogram) = HISTOGRAMS.get_ptr_mut(key) {
        return Some(histogram);
    }
    // As above.
    let _ = HISTOGRAMS.insert(key, &EMPTY, u64::from(BPF_NOEXIST));
    HISTOGRAMS.get_ptr_mut(key)
}

//! The way out: one ring buffer for all sensors, and what did not fit counted per sensor.

use agent_common::event::{Record, sensor};
use aya_ebpf::{
    Global,
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    macros::map,
    maps::{Array, PerCpuArray, RingBuf},
};

use crate::atomic;

/// Sized by the loader.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Records that did not fit, by sensor id.
#[map]
static EVENTS_LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(sensor::COUNT, 0);

/// By sensor id: how many times the lengths from which its intervals are told are doubled.
/// Written by user space, when a sensor costs too much.
#[map]
static THINNING: Array<u32> = Array::with_max_entries(sensor::COUNT, 0);

/// Unread bytes above which the reader is woken; below, it comes by itself.
#[unsafe(no_mangle)]
static EVENTS_WAKE_BYTES: Global<u64> = Global::new(1 << 18);

/// Whether an interval of `ns` is long enough to be told, where usually `min_ns` is.
#[inline(always)]
pub fn is_told(sensor_id: u32, ns: u64, min_ns: u64) -> bool {
    // The second look is for those few only that pass the first.
    ns >= min_ns
        && match THINNING.get(sensor_id) {
            Some(doublings) => ns >= min_ns << (*doublings & 31),
            None => true,
        }
}

/// Writes one record, or counts its loss.
pub fn record(record: &Record) {
    let Some(mut entry) = EVENTS.reserve::<Record>(0) else {
        lost(record.sensor);
        return;
    };
    entry.write(*record);
    let backlog = EVENTS.query(u64::from(BPF_RB_AVAIL_DATA));
    entry.submit(u64::from(if backlog > EVENTS_WAKE_BYTES.load() {
        BPF_RB_FORCE_WAKEUP
    } else {
        BPF_RB_NO_WAKEUP
    }));
}

/// Counts one event that could not be kept.
pub fn lost(sensor_id: u32) {
    if let Some(count) = EVENTS_LOST.get_ptr_mut(sensor_id) {
        // SAFETY: the pointer is to this CPU's own copy; a program on an interrupt's hook may
        // come in between, hence the atomic.
        unsafe { atomic::add(count, 1) };
    }
}

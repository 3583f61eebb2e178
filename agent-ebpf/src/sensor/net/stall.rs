//! Transmit queues that stood still, and who waited for them.
//!
//! The kernel's watchdog finds a queue that has been stopped for longer than its device's driver
//! allows (5 s mostly), and says so each time that it looks. What was sent on a connection while
//! the queue stood still lay in it, or behind it, until it moved on: nobody can have answered
//! before. Whoever uses such a connection for the first time after that has waited for the queue.

use aya_ebpf::{
    Global,
    bindings::BPF_ANY,
    helpers::{bpf_jiffies64, bpf_ktime_get_ns},
    macros::map,
    maps::{Array, LruHashMap},
};

use crate::kernel::net::{Device, Sock, TxQueue};

/// Nanoseconds of a tick; 0 where not known.
#[unsafe(no_mangle)]
static JIFFY_NS: Global<u64> = Global::new(0);

/// A stall that was found longer ago than this is nobody's reason any more.
const RECENT_NS: u64 = 120_000_000_000;
/// What the watchdog looks again later than it is due: its timer is rounded to whole seconds.
const ROUNDED_NS: u64 = 1_000_000_000;

/// A queue that was found stuck.
#[repr(C)]
#[derive(Clone, Copy)]
struct Stall {
    /// Address of the queue.
    queue: u64,
    /// When it had transmitted last.
    since_ns: u64,
    /// When it was last found.
    found_ns: u64,
    /// That first time in ticks, low half.
    since_tick: u32,
    /// Its number.
    index: u32,
    /// How many its device has.
    queues: u32,
    /// After so many ticks the watchdog looks again.
    watchdog_ticks: u32,
}

/// By device id: of several queues the one that was found last.
#[map]
static STALLS: LruHashMap<u64, Stall> = LruHashMap::with_max_entries(256, 0);

/// When any was found last; 0 for never: what nearly everybody needs to know.
#[map]
static LAST_STALL: Array<u64> = Array::with_max_entries(1, 0);

/// The watchdog found a queue stuck; returns since when, or a time to come where that is not
/// known: then nobody can be said to have waited for it.
#[inline(always)]
pub fn found(device: Device, id: u64, index: u32) -> u64 {
    let queue = device.tx_queue(index);
    if queue.address() == 0 || JIFFY_NS.load() == 0 {
        return u64::MAX;
    }
    // SAFETY: returns a number.
    let found_ns = unsafe { bpf_ktime_get_ns() };
    let since_tick = queue.last_tick();
    let stall = Stall {
        queue: queue.address(),
        since_ns: ns_of(since_tick, found_ns),
        found_ns,
        since_tick,
        index,
        queues: device.tx_queues(),
        watchdog_ticks: device.watchdog_ticks(),
    };
    // Without room for it nobody is said to have waited for it.
    let _ = STALLS.insert(id, stall, u64::from(BPF_ANY));
    if let Some(last) = LAST_STALL.get_ptr_mut(0) {
        // SAFETY: a map's value; a word that is written whole.
        unsafe { *last = found_ns };
    }
    stall.since_ns
}

/// Whether a look at [`waited`] is worth while.
#[inline(always)]
pub fn is_recent(now_ns: u64) -> bool {
    let last = LAST_STALL.get(0).copied().unwrap_or(0);
    last != 0 && now_ns.saturating_sub(last) < RECENT_NS
}

/// How long a tick is; 0 where not known.
#[inline(always)]
pub fn tick_ns() -> u64 {
    JIFFY_NS.load()
}

/// The time of a tick of the past, given by its low half.
#[inline(always)]
pub fn ns_of(tick: u32, now_ns: u64) -> u64 {
    // SAFETY: returns a number.
    let now = unsafe { bpf_jiffies64() } as u32;
    now_ns.saturating_sub(u64::from(now.wrapping_sub(tick)) * JIFFY_NS.load())
}

/// The number of the queue and until when the socket, which sent through the device at
/// `sent_ns` and has an answer now, waited for it; 0 if it did not.
#[inline(always)]
pub fn waited(sock: Sock, device: u64, sent_ns: u64, now_ns: u64) -> (u32, u64) {
    // SAFETY: the value is copied out at once.
    let Some(stall) = (unsafe { STALLS.get(device) }).copied() else {
        return (0, 0);
    };
    let (since_ns, found_ns) = (stall.since_ns, stall.found_ns);
    let was_stuck = sent_ns + JIFFY_NS.load() >= since_ns && sent_ns <= found_ns;
    let is_its_own = stall.queues == 1 || sock.tx_queue() == stall.index;
    // An answer while it still stands still is one to something else.
    let has_moved_on = TxQueue::at(stall.queue).last_tick() != stall.since_tick;
    if !was_stuck || !is_its_own || !has_moved_on {
        return (0, 0);
    }
    // When it moved on is not known: not later than the watchdog would have found it once more.
    let rest_ns = match u64::from(stall.watchdog_ticks) * JIFFY_NS.load() {
        0 => 0,
        due_ns => due_ns + ROUNDED_NS,
    };
    (stall.index, now_ns.min(found_ns + rest_ns))
}

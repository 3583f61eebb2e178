//! What is known of each connection while it lives, and what is counted of it.

use agent_common::{
    event::sensor,
    series::{SeriesKey, family},
};
use aya_ebpf::{
    bindings::BPF_ANY, helpers::bpf_get_current_pid_tgid, macros::map, maps::LruHashMap,
};

use crate::{
    device, emit,
    kernel::{net::Sock, sched::Task},
    sensor::net::stall,
    series,
};

/// The thread that last worked on a connection; all 0 where none has yet.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Owner {
    /// Inode of its cgroup.
    pub cgroup_id: u64,
    /// Start of its thread group's leader, ns since boot.
    pub leader_start_boottime_ns: u64,
    /// Thread group id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
}

impl Owner {
    /// Not known.
    pub const NOBODY: Self = Self {
        cgroup_id: 0,
        leader_start_boottime_ns: 0,
        pid: 0,
        tid: 0,
    };

    /// The thread that runs now. Only where it works on the socket.
    #[inline(always)]
    pub fn current() -> Self {
        let task = Task::current();
        let id = bpf_get_current_pid_tgid();
        Self {
            cgroup_id: task.cgroup_id(),
            leader_start_boottime_ns: task.leader_start_boottime_ns(),
            pid: (id >> 32) as u32,
            tid: id as u32,
        }
    }
}

/// One connection, or one listening socket.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Flow {
    pub owner: Owner,
    /// Id of the device that it leaves through; 0 where not known.
    pub device: u64,
    /// When the SYN was sent; 0 once that has ended.
    pub connecting_ns: u64,
    /// End of the last interval that was told of it.
    pub told_ns: u64,
    /// The socket's count of segments sent again, as far as it is counted.
    pub retransmits_seen: u32,
    /// Of those, the ones that wait for an owner.
    pub retransmits_unowned: u32,
    /// The socket's count of segments that arrived, when its round trip was last read.
    pub delivered: u32,
    /// Tick of the first writing since something arrived at the other end, low half; 0 for none.
    pub asked_tick: u32,
    /// The socket's count of segments that had arrived then.
    pub asked_delivered: u32,
    /// The socket's ticks in which the other end's window let nothing be sent, as far as they are
    /// counted.
    pub limited_ticks: u32,
    /// The same as `delivered` of the other end, when it was last looked at from this one.
    pub delivered_to_us: u64,
    /// Address of the other end's socket, where that is on this host; 0: not known.
    pub other_end: u64,
    /// From when the last segment that was sent again was waited for,
    pub resent_from_ns: u64,
    /// and until when.
    pub resent_ns: u64,
    /// By what [`other_end`](super::other_end) finds it; 0: not yet.
    pub listed: u64,
    /// End of its last window that was seen closed.
    pub closed_window: u32,
    /// No meaning.
    pub _pad: u32,
    /// What was dropped of it.
    pub dropped: Dropped,
}

/// Segments of data of a connection that the kernel dropped and that somebody waits for.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Dropped {
    /// When the first one on its way out was, 0 for none.
    pub out_ns: u64,
    /// And the last one.
    pub last_out_ns: u64,
    /// When the first one on its way in was, 0 for none.
    pub in_ns: u64,
    /// Ids of the devices where the last ones were, on their way out
    pub out_device: u64,
    /// and in.
    pub in_device: u64,
    /// The kernel's reasons for them, on their way out
    pub out_reason: u32,
    /// and in.
    pub in_reason: u32,
    /// What the socket expected next when the first one on its way in was dropped.
    pub in_next: u32,
    /// 1 if nothing was under way when the first one was dropped on its way out: TCP was told, and
    /// will not send it again but anew, after a timer or with what the process writes next.
    pub is_alone: u32,
}

/// By the socket's address, which is its own until it is closed.
///
/// Least recently used ones go first. A connection that was evicted is like one that was
/// opened before the agent.
#[map]
static FLOWS: LruHashMap<u64, Flow> = LruHashMap::with_max_entries(32_768, 0);

impl Dropped {
    const NONE: Self = Self {
        out_ns: 0,
        last_out_ns: 0,
        in_ns: 0,
        out_device: 0,
        in_device: 0,
        out_reason: 0,
        in_reason: 0,
        in_next: 0,
        is_alone: 0,
    };
}

impl Flow {
    /// Just made, by nobody that is known.
    pub const NEW: Self = Self {
        owner: Owner::NOBODY,
        device: 0,
        connecting_ns: 0,
        told_ns: 0,
        retransmits_seen: 0,
        retransmits_unowned: 0,
        delivered: 0,
        delivered_to_us: 0,
        other_end: 0,
        resent_from_ns: 0,
        resent_ns: 0,
        listed: 0,
        asked_tick: 0,
        asked_delivered: 0,
        limited_ticks: 0,
        closed_window: 0,
        _pad: 0,
        dropped: Dropped::NONE,
    };

    /// Brings the device up to date, if the socket has a route now.
    #[inline(always)]
    pub fn look_for_device(&mut self, sock: Sock) {
        let device = device::meet(sock.device());
        if device != 0 {
            self.device = device;
        } else if self.device == 0 {
            let ifindex = sock.rx_ifindex();
            if ifindex != 0 {
                self.device = agent_common::device::device_id(sock.netns(), ifindex);
            }
        }
    }
}

/// What is known of it.
#[inline(always)]
pub fn get(sock: Sock) -> Option<*mut Flow> {
    FLOWS.get_ptr_mut(sock.address())
}

/// From now on it is this.
#[inline(always)]
pub fn begin(sock: Sock, flow: &Flow) {
    if FLOWS
        .insert(sock.address(), flow, u64::from(BPF_ANY))
        .is_err()
    {
        emit::lost(sensor::TCP);
    }
}

/// Its address is anybody's again.
#[inline(always)]
pub fn end(sock: Sock) {
    let _ = FLOWS.remove(sock.address());
}

/// Counts what has happened to the connection since the last time. Call it under the
/// socket's lock. At the end, what never had an owner is counted as nobody's.
#[inline(always)]
pub fn account(sock: Sock, flow: *mut Flow, at_end: bool) {
    // SAFETY: a map's value; the socket's lock is held, so that nobody else writes these.
    let flow = unsafe { &mut *flow };
    flow.look_for_device(sock);
    let total = sock.total_retransmits();
    let new = total.wrapping_sub(flow.retransmits_seen);
    flow.retransmits_seen = total;
    let segments = flow.retransmits_unowned.wrapping_add(new);
    let cgroup_id = flow.owner.cgroup_id;
    if cgroup_id == 0 && !at_end {
        flow.retransmits_unowned = segments;
        return;
    }
    flow.retransmits_unowned = 0;
    let mut key = SeriesKey {
        cgroup_id,
        family: family::TCP_RETRANSMITS,
        a: 0,
        b: flow.device,
    };
    if segments != 0 {
        series::count(sensor::TCP, &key, segments.into());
    }
    let limited_ticks = sock.window_limited_ticks();
    let ticks = limited_ticks.wrapping_sub(flow.limited_ticks);
    if ticks != 0 {
        flow.limited_ticks = limited_ticks;
        key.family = family::TCP_WINDOW_LIMITED;
        series::observe(sensor::TCP, &key, u64::from(ticks) * stall::tick_ns());
    }
    // The smoothed round trip moves only when something arrived.
    let delivered = sock.delivered();
    let srtt_us = sock.srtt_us();
    if delivered != flow.delivered && srtt_us != 0 {
        flow.delivered = delivered;
        key.family = family::TCP_RTT;
        series::observe(sensor::TCP, &key, u64::from(srtt_us) * 1000);
    }
}

/// Counts a window that is closed as the process did not read. Call it under the socket's lock,
/// before what has just been read opens it again.
#[inline(always)]
pub fn look_for_closed_window(sock: Sock, flow: *mut Flow) {
    // SAFETY: as in `account`.
    let flow = unsafe { &mut *flow };
    let Some(end) = sock.closed_window() else {
        return;
    };
    if end == flow.closed_window {
        return; // the same one still
    }
    flow.closed_window = end;
    let key = SeriesKey {
        cgroup_id: flow.owner.cgroup_id,
        family: family::TCP_ZERO_WINDOWS,
        a: 0,
        b: flow.device,
    };
    series::count(sensor::TCP, &key, 1);
}

//! Single intervals: which are worth telling, and when they began.

use agent_common::event::{
    Record,
    net::{KIND_DROP_WAIT, KIND_STUCK_WAIT},
    sensor,
    tcp::{KIND_CONNECT, KIND_RETRANSMIT, KIND_RTT},
};
use aya_ebpf::{
    Global,
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
};

use super::flow::Flow;
use crate::{emit, kernel::net::Sock, sensor::net::stall, tracked::is_tracked};

/// Intervals from this length on are told of every process.
#[unsafe(no_mangle)]
static TCP_MIN_NS: Global<u64> = Global::new(1_000_000);
/// Intervals from this length on are told of tracked thread groups.
#[unsafe(no_mangle)]
static TRACKED_TCP_MIN_NS: Global<u64> = Global::new(50_000);
/// The smoothed round trip is unusual from this many times the shortest on.
const UNUSUAL_FACTOR: u32 = 2;
/// Segments that must have arrived since the last look: a receiver acknowledges every second
/// one at once, but may put off the answer to a single one for 40 ms or until the
/// application has an answer, which is no matter of the network.
const MIN_ARRIVED: u32 = 4;
/// Data is late that came so many ticks of the kernel's clock after it was sent; one is nothing,
/// since any moment may be the end of one.
const MIN_TICKS: u32 = 2;
/// What would have been longer on its way than this was not: two minutes of the fastest clock.
const MAX_TICKS: u32 = 120_000;
/// Longest wait for a segment's timer: `TCP_RTO_MAX`.
const LONGEST_NS: u64 = 120_000_000_000;
/// What happened so recently happened to the segment that is being sent.
const JUST_NS: u64 = 1_000_000;

/// Tells what happened to the connection's owner, if it has one.
#[inline(never)]
pub fn interval(flow: &mut Flow, kind: u32, start_ns: u64, end_ns: u64, extra: u32) {
    let owner = flow.owner;
    // What was told already is not told twice; but a connect is told whole.
    let start_ns = if kind == KIND_CONNECT {
        start_ns
    } else {
        start_ns.max(flow.told_ns)
    };
    let ns = end_ns.saturating_sub(start_ns);
    // A refusal is over at once; what it costs are the tries that follow.
    let failed = kind == KIND_CONNECT && extra != 0;
    if owner.pid == 0
        || (!failed && !emit::is_told(sensor::TCP, ns, TRACKED_TCP_MIN_NS.load()))
        || (!emit::is_told(sensor::TCP, ns, TCP_MIN_NS.load()) && !is_tracked(owner.pid))
    {
        return;
    }
    flow.told_ns = end_ns;
    emit::record(&Record {
        sensor: sensor::TCP,
        kind,
        start_ns,
        end_ns,
        cgroup_id: owner.cgroup_id,
        detail: flow.device,
        leader_start_boottime_ns: owner.leader_start_boottime_ns,
        pid: owner.pid,
        tid: owner.tid,
        // SAFETY: returns a number.
        cpu: unsafe { bpf_get_smp_processor_id() },
        extra,
    });
}

/// A segment was just sent again: after its timer, or a round trip after it was lost.
#[inline(always)]
pub fn retransmission(sock: Sock, flow: *mut Flow) {
    // SAFETY: a map's value; the socket's lock is held, so that nobody else writes it.
    let flow = unsafe { &mut *flow };
    // What tells of the loss of one among several segments is the next of them. With a single
    // one only a timer can: that of the loss probe, which then waits as long as the other.
    let expired = sock.timer_expired() || sock.packets_out() == 1;
    let waited_us = if expired {
        sock.rto_us()
    } else {
        sock.srtt_us().into()
    };
    // SAFETY: returns a number.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let start_ns = now_ns.saturating_sub(waited_us * 1000);
    // While several are sent again, or one several times, nothing gets through: all of that is
    // the wait, not the last timer only. The first one may be a probe, sent while the other end
    // puts its acknowledgement off.
    let progress_ns = sock.last_progress_ns();
    let is_lost = sock.timer_expired() || flow.resent_ns > progress_ns;
    let start_ns = if is_lost && is_past(progress_ns, now_ns) {
        start_ns.min(progress_ns)
    } else {
        start_ns
    };
    // One wait, however often its segments are sent again.
    if flow.resent_ns < start_ns {
        flow.resent_from_ns = start_ns;
    }
    flow.resent_ns = now_ns;
    interval(flow, KIND_RETRANSMIT, start_ns, now_ns, expired.into());
    let dropped_ns = flow.dropped.out_ns;
    if dropped_ns == 0 {
        return;
    }
    // What was just sent again may have been dropped at once: before this is told.
    let again = now_ns.saturating_sub(flow.dropped.last_out_ns) < JUST_NS;
    flow.dropped.out_ns = if again { flow.dropped.last_out_ns } else { 0 };
    // Of one that was dropped long before this wait, the loss was met otherwise.
    if now_ns.saturating_sub(dropped_ns) <= waited_us * 2000 + JUST_NS {
        let (device, reason) = (flow.dropped.out_device, flow.dropped.out_reason);
        net_wait(flow, KIND_DROP_WAIT, (dropped_ns, now_ns), device, reason);
    }
}

/// The process is about to write to the connection: what was never sent goes out with that.
#[inline(always)]
pub fn before_write(flow: *mut Flow) {
    // SAFETY: as above.
    let flow = unsafe { &mut *flow };
    if flow.dropped.is_alone != 0 {
        flow.dropped.out_ns = 0;
    }
}

/// The process writes to the connection for the first time in this tick. What it wrote before lies
/// in no queue of this host if something has arrived at the other end since: then it waits from now
/// on. (That it has read the answer need not be known: on a fast connection that is mostly in the
/// tick of the writing, and not looked at; and not everything is answered.)
#[inline(always)]
pub fn asks(sock: Sock, flow: *mut Flow, tick: u64) {
    // SAFETY: as above.
    let flow = unsafe { &mut *flow };
    let delivered = sock.delivered();
    if flow.asked_tick == 0 || flow.asked_delivered != delivered {
        flow.asked_tick = (tick as u32).max(1);
        flow.asked_delivered = delivered;
    }
}

/// The process reads from the connection: what it had to wait for that is the local devices' doing.
#[inline(always)]
pub fn local_waits(sock: Sock, flow: *mut Flow) {
    // SAFETY: as above.
    let flow = unsafe { &mut *flow };
    // SAFETY: returns a number.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let dropped_ns = flow.dropped.in_ns;
    // What it reads now may have come before that: the head of an answer whose rest was dropped.
    let next = sock.expects();
    let may_come = next != 0 && next == flow.dropped.in_next;
    let patience_ns = sock.rto_us() * 2000;
    if dropped_ns != 0 && !(may_come && now_ns.saturating_sub(dropped_ns) <= patience_ns) {
        flow.dropped.in_ns = 0;
        let (device, reason) = (flow.dropped.in_device, flow.dropped.in_reason);
        // Until it came after all, not until somebody read it. The other end sends it again
        // after its timer, which is much like this end's: what comes later is something else.
        let again_ns = dropped_ns.saturating_add(patience_ns);
        let came_ns = match sock.last_received_tick() {
            Some(tick) => stall::ns_of(tick, now_ns),
            None => now_ns,
        };
        let end_ns = came_ns.min(again_ns);
        net_wait(flow, KIND_DROP_WAIT, (dropped_ns, end_ns), device, reason);
    }
    let dropped_ns = flow.dropped.out_ns;
    if dropped_ns != 0 && flow.dropped.is_alone != 0 {
        flow.dropped.out_ns = 0;
        let (device, reason) = (flow.dropped.out_device, flow.dropped.out_reason);
        let sent_ns = stall::ns_of(sock.last_sent_tick(), now_ns);
        net_wait(flow, KIND_DROP_WAIT, (dropped_ns, sent_ns), device, reason);
    }
    let asked_tick = core::mem::take(&mut flow.asked_tick);
    if asked_tick != 0 && stall::is_recent(now_ns) {
        stuck(sock, flow, (stall::ns_of(asked_tick, now_ns), now_ns));
    }
}

/// Somebody sent at the first time and waited until the second: tells of it where the queue
/// stood still meanwhile.
#[inline(always)]
pub fn stuck(sock: Sock, flow: &Flow, (sent_ns, now_ns): (u64, u64)) {
    let (queue, end_ns) = stall::waited(sock, flow.device, sent_ns, now_ns);
    net_wait(flow, KIND_STUCK_WAIT, (sent_ns, end_ns), flow.device, queue);
}

/// A time that can have been, and not too long ago for TCP to still try.
#[inline(always)]
fn is_past(ns: u64, now_ns: u64) -> bool {
    ns != 0 && ns <= now_ns && now_ns - ns <= LONGEST_NS
}

#[inline(always)]
fn net_wait(flow: &Flow, kind: u32, (start_ns, end_ns): (u64, u64), device: u64, extra: u32) {
    let what = u64::from(kind) << 32 | u64::from(extra);
    tell_net_wait(flow, what, start_ns, end_ns, device);
}

/// A function of its own, which takes five arguments at most: older kernels give all functions that call
/// each other 512 bytes together, and each record takes 64 of them wherever it is inlined.
#[inline(never)]
fn tell_net_wait(flow: &Flow, what: u64, start_ns: u64, end_ns: u64, device: u64) {
    let owner = flow.owner;
    let ns = end_ns.saturating_sub(start_ns);
    if owner.pid == 0 || !emit::is_told(sensor::NET, ns, TCP_MIN_NS.load()) {
        return;
    }
    emit::record(&Record {
        sensor: sensor::NET,
        kind: (what >> 32) as u32,
        start_ns,
        end_ns,
        cgroup_id: owner.cgroup_id,
        detail: device,
        leader_start_boottime_ns: owner.leader_start_boottime_ns,
        pid: owner.pid,
        tid: owner.tid,
        // SAFETY: returns a number.
        cpu: unsafe { bpf_get_smp_processor_id() },
        extra: what as u32,
    });
}

/// The process uses the connection, of which `delivered_before` segments had arrived at the
/// last look: what took the round trip longer than usual held it up until now.
#[inline(always)]
pub fn round_trip(sock: Sock, flow: *mut Flow, delivered_before: u32) {
    // SAFETY: as above.
    let flow = unsafe { &mut *flow };
    if flow.delivered.wrapping_sub(delivered_before) >= MIN_ARRIVED {
        excess(sock, flow);
    }
}

/// What the other end, which is on this host, waited for, now that the process has read what
/// it sent: it was waited for on this end, too.
#[inline(always)]
pub fn of_the_other_end(sock: Sock, other: Sock, theirs: &Flow, flow: &mut Flow) {
    if theirs.resent_ns > flow.told_ns {
        interval(
            flow,
            KIND_RETRANSMIT,
            theirs.resent_from_ns,
            theirs.resent_ns,
            0,
        );
    }
    on_the_way(sock, other, flow);
    let delivered = other.delivered();
    let streams = other.packets_out() >= MIN_ARRIVED;
    if streams && delivered.wrapping_sub(flow.delivered_to_us as u32) >= MIN_ARRIVED {
        excess(other, flow);
        flow.delivered_to_us = delivered.into();
    }
    // Of a request in one or two segments this end puts the acknowledgement off itself.
    if !streams {
        flow.delivered_to_us = delivered.into();
    }
}

/// What the last data to the other end and the last data from there took to arrive. Both ends'
/// clocks are this host's, so that a single segment is enough, which no round trip tells of: its
/// acknowledgement may be put off. Who accepted the connection waits for nobody.
#[inline(always)]
fn on_the_way(sock: Sock, other: Sock, flow: &mut Flow) {
    if sock.is_accepted() {
        return;
    }
    let (Some(came), Some(read)) = (other.last_received_tick(), sock.last_received_tick()) else {
        return;
    };
    late(flow, (sock.last_sent_tick(), came), sock.sent_ns());
    late(flow, (other.last_sent_tick(), read), other.sent_ns());
}

/// Tells of data that was sent at a tick and came at another, if that is long; it was not sent before
/// `sent_ns`.
#[inline(always)]
fn late(flow: &mut Flow, (sent, came): (u32, u32), sent_ns: u64) {
    // What was sent last may not be what came last: then there is nothing to compare.
    let ticks = came.wrapping_sub(sent);
    if !(MIN_TICKS..MAX_TICKS).contains(&ticks) {
        return;
    }
    // SAFETY: returns a number.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    // A tick less: the second may have just begun when the first was at its end. And ticks come
    // late, several at once, where the CPU that counts them was held up.
    let start_ns = stall::ns_of(sent + 1, now_ns).max(sent_ns);
    let end_ns = stall::ns_of(came, now_ns);
    let tick_ns = stall::tick_ns();
    // What was told already differs by the moment in the tick at which it was looked at.
    if end_ns >= start_ns + tick_ns && end_ns > flow.told_ns + tick_ns {
        interval(flow, KIND_RTT, start_ns, end_ns, 0);
    }
}

/// Tells by how much the round trip that a socket saw is longer than its usual one.
#[inline(always)]
fn excess(sock: Sock, flow: &mut Flow) {
    let (srtt_us, min_us) = (sock.srtt_us(), sock.min_rtt_us());
    if min_us == 0 || srtt_us < UNUSUAL_FACTOR.saturating_mul(min_us) {
        return;
    }
    // SAFETY: returns a number.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let start_ns = now_ns.saturating_sub(u64::from(srtt_us - min_us) * 1000);
    interval(flow, KIND_RTT, start_ns, now_ns, 0);
}

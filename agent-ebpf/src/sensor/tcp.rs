//! `tcp`: connections by the process that uses them.
//!
//! Segments are handled in interrupts, where `current` is anybody. Who owns a connection is
//! learnt where a process works on it: it connects, listens, sends or reads. There its round
//! trip is read too, at most once a tick of the kernel's clock; what is rare (a
//! retransmission, a reset, a change of state) has a hook of its own. Nothing runs per
//! segment.

mod ask;
mod flow;
mod listener;
mod other_end;
mod tell;
mod turn;
mod user;

use agent_common::{
    event::{sensor, tcp::KIND_CONNECT},
    series::{SeriesKey, family},
};
use aya_ebpf::{
    EbpfContext as _,
    helpers::bpf_ktime_get_ns,
    macros::{fentry, raw_tracepoint},
    programs::{FEntryContext, RawTracePointContext},
};

pub use self::flow::{Flow, Owner, get as flow_of};
use self::user::Use;
use crate::{
    device,
    kernel::{
        argument_as_number,
        net::{CLOSE, ESTABLISHED, LISTEN, Packet, SYN_RECV, SYN_SENT, Sock, TCP},
    },
    series,
};

/// kernel: v5.10.. include/trace/events/tcp.h: tcp_rcv_space_adjust(struct sock *sk); the
/// process has read from it.
#[raw_tracepoint(tracepoint = "tcp_rcv_space_adjust")]
pub fn tcp_read(ctx: RawTracePointContext) -> u32 {
    user::uses(ctx.arg(0), Use::Read);
    turn::on_read(ctx.arg(0));
    0
}

/// kernel: v6.18.. include/trace/events/tcp.h: tcp_sendmsg_locked(const struct sock *sk, ..)
#[raw_tracepoint(tracepoint = "tcp_sendmsg_locked")]
pub fn tcp_send(ctx: RawTracePointContext) -> u32 {
    user::uses(ctx.arg(0), Use::Write);
    turn::on_write(ctx.arg(0), true);
    0
}

/// kernel: v5.10.. net/ipv4/tcp.c: int tcp_sendmsg_locked(struct sock *sk, ..): the same before
/// it had a tracepoint.
#[fentry(function = "tcp_sendmsg_locked")]
pub fn tcp_send_function(ctx: FEntryContext) -> u32 {
    // SAFETY: the function has three arguments.
    let socket: u64 = unsafe { argument_as_number(ctx.as_ptr(), 0) };
    user::uses(socket, Use::Write);
    turn::on_write(socket, true);
    0
}

/// kernel: v6.3.. include/trace/events/sock.h: sock_send_length(struct sock *sk, int ret, ..),
/// of every kind of socket, after its lock was released.
#[raw_tracepoint(tracepoint = "sock_send_length")]
pub fn tcp_sent(ctx: RawTracePointContext) -> u32 {
    user::uses(ctx.arg(0), Use::Sent);
    turn::on_write(ctx.arg(0), false);
    0
}

/// kernel: v5.10.. include/trace/events/sock.h: inet_sock_set_state(const struct sock *sk,
/// const int oldstate, const int newstate)
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn tcp_state(ctx: RawTracePointContext) -> u32 {
    let sock = Sock::at(ctx.arg(0));
    let (from, to): (u64, u64) = (ctx.arg(1), ctx.arg(2));
    let (from, to) = (from as u32, to as u32);
    if sock.protocol() != TCP {
        return 0;
    }
    match to {
        SYN_SENT => {
            let mut flow = Flow::NEW;
            // SAFETY: returns a number.
            flow.connecting_ns = unsafe { bpf_ktime_get_ns() };
            if sock.is_in_process() {
                flow.owner = Owner::current();
            }
            flow::begin(sock, &flow);
            if sock.is_in_process() {
                turn::on_connect(sock.address());
            }
        }
        LISTEN => {
            let mut flow = Flow::NEW;
            if sock.is_in_process() {
                flow.owner = Owner::current();
            }
            flow::begin(sock, &flow);
            listener::begin(sock, &flow.owner);
        }
        // A new connection in a place where an old one may have been; its owner is not known
        // before a process reads from it or writes to it: who listens need not be who serves.
        SYN_RECV if from != SYN_SENT => {
            flow::begin(sock, &Flow::NEW);
            listener::account(sock);
        }
        ESTABLISHED => {
            if let Some(flow) = flow::get(sock)
                && from == SYN_SENT
            {
                attempted(sock, flow, false);
            }
        }
        CLOSE => {
            // Also where its flow was evicted: nothing else removes a listener.
            if from == LISTEN {
                listener::end(sock);
            }
            if let Some(flow) = flow::get(sock) {
                if from == SYN_SENT {
                    attempted(sock, flow, true);
                }
                flow::account(sock, flow, true);
                // SAFETY: a map's value, which lives as long as the program runs.
                other_end::forget(unsafe { &*flow });
                flow::end(sock);
            }
        }
        _ => {}
    }
    0
}

/// kernel: v5.10.. include/trace/events/tcp.h: tcp_retransmit_skb(const struct sock *sk,
/// const struct sk_buff *skb, ..); the socket's count has been raised already.
#[raw_tracepoint(tracepoint = "tcp_retransmit_skb")]
pub fn tcp_retransmit(ctx: RawTracePointContext) -> u32 {
    let sock = Sock::at(ctx.arg(0));
    let packet = Packet::at(ctx.arg(1));
    let flow = flow::get(sock).or_else(|| {
        // Opened before the agent: what is counted begins with this segment.
        let mut flow = Flow::NEW;
        let before = sock.total_retransmits().wrapping_sub(packet.tcp_segments());
        flow.retransmits_seen = before;
        flow.delivered = sock.delivered();
        flow.limited_ticks = sock.window_limited_ticks();
        flow::begin(sock, &flow);
        flow::get(sock)
    });
    let Some(flow) = flow else {
        return 0; // counted as lost by `begin`
    };
    flow::account(sock, flow, false);
    tell::retransmission(sock, flow);
    0
}

/// kernel: v5.10.. include/trace/events/tcp.h: tcp_receive_reset(struct sock *sk)
#[raw_tracepoint(tracepoint = "tcp_receive_reset")]
pub fn tcp_reset_received(ctx: RawTracePointContext) -> u32 {
    reset(Sock::at(ctx.arg(0)), Packet::at(0));
    0
}

/// kernel: v5.10.. include/trace/events/tcp.h: tcp_send_reset(const struct sock *sk, const
/// struct sk_buff *skb, ..): the packet that it answers; no socket where none has the port.
#[raw_tracepoint(tracepoint = "tcp_send_reset")]
pub fn tcp_reset_sent(ctx: RawTracePointContext) -> u32 {
    reset(Sock::at(ctx.arg(0)), Packet::at(ctx.arg(1)));
    0
}

#[inline(always)]
fn reset(sock: Sock, packet: Packet) {
    let mut cgroup_id = 0;
    let mut device = device::meet(packet.device());
    if let Some(flow) = flow::get(sock) {
        // SAFETY: a map's value, which lives as long as the program runs.
        let flow = unsafe { &mut *flow };
        flow.look_for_device(sock);
        cgroup_id = flow.owner.cgroup_id;
        if flow.device != 0 {
            device = flow.device;
        }
    }
    let key = SeriesKey {
        cgroup_id,
        family: family::TCP_RESETS,
        a: 0,
        b: device,
    };
    series::count(sensor::TCP, &key, 1);
}

/// A connection attempt of the socket has ended.
#[inline(always)]
fn attempted(sock: Sock, flow: *mut Flow, failed: bool) {
    // SAFETY: a map's value; the socket's lock is held, so that nobody else writes it.
    let flow = unsafe { &mut *flow };
    let start_ns = core::mem::take(&mut flow.connecting_ns);
    if start_ns == 0 {
        return;
    }
    flow.look_for_device(sock);
    // SAFETY: returns a number.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let mut key = SeriesKey {
        cgroup_id: flow.owner.cgroup_id,
        family: family::TCP_CONNECT,
        a: 0,
        b: flow.device,
    };
    if failed {
        key.family = family::TCP_CONNECT_FAILURES;
        series::count(sensor::TCP, &key, 1);
    } else {
        series::observe(sensor::TCP, &key, now_ns.saturating_sub(start_ns));
    }
    tell::interval(flow, KIND_CONNECT, start_ns, now_ns, u32::from(failed));
    if super::net::stall::is_recent(now_ns) {
        tell::stuck(sock, flow, (start_ns, now_ns));
    }
}

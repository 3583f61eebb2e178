//! Who sends UDP, and through which device: whose flood it is.
//!
//! Most sends only add one to a number in an array: the same thread sent on the same socket
//! within this tick of the clock.

use agent_common::{
    consumption::ConsumerKey,
    event::sensor,
    series::{SeriesKey, family},
};
use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_current_pid_tgid, bpf_jiffies64, bpf_ktime_get_ns},
    macros::{fentry, map, raw_tracepoint},
    maps::Array,
    programs::{FEntryContext, RawTracePointContext},
};

use crate::{
    atomic, consumption, device,
    kernel::{
        Memory as _, Probed, argument_as_number, field, has,
        net::{Sock, UDP},
        sched::Task,
    },
    series,
};

/// Nobody takes what a socket has, so that it has no room for more.
const EAGAIN: i32 = -11;
/// A queue or a device has none.
const ENOBUFS: i32 = -105;

/// What became of a datagram.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Sent,
    /// It was one too many: whose flood it is shows by those, too.
    NoRoom,
}

/// Entries of [`SENDERS`]; a power of two.
const ENTRIES: u32 = 1024;

/// Datagrams in one stretch, of 10 ms or more, from which it can be a flood.
const LEAST_SENDS: u64 = 50;

/// A thread that sends on a socket.
#[repr(C)]
#[derive(Clone, Copy)]
struct Sender {
    socket: u64,
    /// Thread group id and thread id.
    thread: u64,
    /// Tick of the clock.
    tick: u64,
    /// Sends that are not counted yet.
    sends: u64,
    /// Likewise, for which there was no room.
    refused: u64,
    /// Inode of its cgroup; 0: the socket is not one of UDP.
    cgroup_id: u64,
    /// Id of the device that it sends through; 0 where the socket is not connected.
    device: u64,
}

/// By some bits of the socket's address.
#[map]
static SENDERS: Array<Sender> = Array::with_max_entries(ENTRIES, 0);

/// kernel: v6.3.. include/trace/events/sock.h: sock_send_length(struct sock *sk, int ret, ..)
#[raw_tracepoint(tracepoint = "sock_send_length")]
pub fn net_sent(ctx: RawTracePointContext) -> u32 {
    let result: u64 = ctx.arg(1);
    let outcome = match result as i32 {
        0.. => Outcome::Sent,
        EAGAIN | ENOBUFS => Outcome::NoRoom,
        _ => return 0, // it went nowhere
    };
    sends(ctx.arg(0), outcome)
}

/// kernel: v5.10.. security/security.c: int security_socket_sendmsg(struct socket *sock, ..):
/// before there was that tracepoint, every send came by here; what sends may be inlined. What
/// fails after that is counted, too.
#[fentry(function = "security_socket_sendmsg")]
pub fn net_send_function(ctx: FEntryContext) -> u32 {
    if has(&field::SOCKET_SK) {
        // SAFETY: the function has three arguments, and `Probed` copes with any address.
        let sock = unsafe {
            let socket = argument_as_number(ctx.as_ptr(), 0);
            Probed::pointer(socket as *const u8, &field::SOCKET_SK) as u64
        };
        sends(sock, Outcome::Sent);
    }
    0
}

#[inline(always)]
fn sends(socket: u64, outcome: Outcome) -> u32 {
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: returns a number.
    let tick = unsafe { bpf_jiffies64() };
    let index = ((socket >> 6) ^ (socket >> 16)) as u32 & (ENTRIES - 1);
    let Some(sender) = SENDERS.get_ptr_mut(index) else {
        return 0; // cannot be: the index is masked to the table's length
    };
    // SAFETY: a map's value. What others write at the same time may be counted as this
    // thread's: of two floods on sockets that share an entry, some are the other's.
    unsafe {
        if (*sender).socket == socket && (*sender).thread == thread && (*sender).tick == tick {
            match outcome {
                Outcome::Sent => atomic::add(&raw mut (*sender).sends, 1),
                Outcome::NoRoom => atomic::add(&raw mut (*sender).refused, 1),
            }
            return 0;
        }
        settle(sender, tick);
        (*sender).socket = socket;
        (*sender).thread = thread;
        (*sender).tick = tick;
        let sock = Sock::at(socket);
        if sock.protocol() == UDP {
            (*sender).cgroup_id = Task::current().cgroup_id();
            (*sender).device = device::meet(sock.device());
            (*sender).sends = (outcome == Outcome::Sent).into();
            (*sender).refused = (outcome == Outcome::NoRoom).into();
        } else {
            (*sender).cgroup_id = 0;
            (*sender).sends = 0;
            (*sender).refused = 0;
        }
    }
    0
}

/// Ticks of the clock up to which a sum was of just now.
const RECENT: u64 = 4;

/// Counts what was sent until `tick`.
///
/// # Safety
///
/// `sender` is an entry of the table.
#[inline(always)]
unsafe fn settle(sender: *mut Sender, tick: u64) {
    // SAFETY: by the caller's promise.
    let sender = unsafe { &mut *sender };
    let all = sender.sends.saturating_add(sender.refused);
    if sender.cgroup_id == 0 || all == 0 {
        return;
    }
    let key = SeriesKey {
        cgroup_id: sender.cgroup_id,
        family: family::NET_UDP_SENDS,
        a: 0,
        b: sender.device,
    };
    if sender.sends != 0 {
        series::count(sensor::NET, &key, sender.sends);
    }
    if tick.wrapping_sub(sender.tick) > RECENT {
        return; // long ago: no flood, and nobody knows when exactly
    }
    let consumer = ConsumerKey {
        cgroup_id: sender.cgroup_id,
        resource: sender.device,
        sensor: u64::from(sensor::NET),
    };
    // SAFETY: returns a number.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    consumption::add(&consumer, now_ns, now_ns, all, LEAST_SENDS);
}

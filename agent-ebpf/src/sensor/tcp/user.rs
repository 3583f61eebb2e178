//! A process works on a connection: it owns it, and now is the time to look at it.
//!
//! This runs at every read and every write, and nearly always ends after one look at an
//! array: the same thread was seen at the same socket within this tick of the clock.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_jiffies64},
    macros::map,
    maps::Array,
};

use super::{
    flow::{self, Flow, Owner},
    other_end, tell,
};
use crate::kernel::net::{CLOSE, LISTEN, Sock, TCP};

/// Entries of [`LAST_USES`]; a power of two.
const USES: u32 = 4096;

/// Who was last seen at a socket, and when.
#[repr(C)]
#[derive(Clone, Copy)]
struct Seen {
    socket: u64,
    /// Thread group id and thread id.
    thread: u64,
    /// Tick of the clock.
    tick: u64,
    /// 1 if it wrote in that tick.
    wrote: u64,
}

/// By some bits of the socket's address: sockets that share them cost each other time only.
#[map]
static LAST_USES: Array<Seen> = Array::with_max_entries(USES, 0);

/// What a process does with a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It has read, and holds the socket's lock.
    Read,
    /// It is about to write, and holds the socket's lock.
    Write,
    /// It has written or read, and no longer holds the lock.
    Sent,
}

/// The running thread uses `socket`.
#[inline(always)]
pub fn uses(socket: u64, how: Use) {
    let locked = how != Use::Sent;
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: returns a number.
    let tick = unsafe { bpf_jiffies64() };
    let index = ((socket >> 6) ^ (socket >> 18)) as u32 & (USES - 1);
    let Some(last) = LAST_USES.get_ptr_mut(index) else {
        return; // cannot be: the index is masked to the table's length
    };
    // SAFETY: a map's value. Others may write it at the same time; then this socket is
    // looked at once too often or, within one tick, once too little.
    unsafe {
        let same = (*last).socket == socket && (*last).tick == tick;
        if same && (*last).thread == thread {
            if how != Use::Read && (*last).wrote == 0 {
                (*last).wrote = 1;
                writes(Sock::at(socket), how, tick);
            }
            return;
        }
        (*last).socket = socket;
        (*last).thread = thread;
        (*last).tick = tick;
        (*last).wrote = (how != Use::Read).into();
        if same {
            handed_over(Sock::at(socket), thread, locked);
            if how != Use::Read {
                writes(Sock::at(socket), how, tick);
            }
            return;
        }
    }
    if look(Sock::at(socket), how) == UNKNOWN {
        meet(Sock::at(socket));
    }
    if how != Use::Read {
        writes(Sock::at(socket), how, tick);
    }
}

/// The first time in this tick.
#[inline(never)]
fn writes(sock: Sock, how: Use, tick: u64) -> u32 {
    if let Some(flow) = flow::get(sock) {
        // What was dropped before it was seen that it was written may be just what was written.
        if how == Use::Write {
            tell::before_write(flow);
        }
        tell::asks(sock, flow, tick);
    }
    0
}

/// Another thread in the same tick: only the owner is new.
#[inline(never)]
fn handed_over(sock: Sock, thread: u64, locked: bool) -> u32 {
    if locked && !sock.is_in_process() {
        return 0;
    }
    let Some(flow) = flow::get(sock) else {
        return 0;
    };
    // SAFETY: a map's value, which lives as long as the program runs.
    let flow = unsafe { &mut *flow };
    if flow.owner.pid == (thread >> 32) as u32 {
        flow.owner.tid = thread as u32;
    } else {
        flow.owner = Owner::current();
    }
    0
}

/// What [`look`] says of a connection that was opened before the agent.
const UNKNOWN: u32 = 1;

/// It is counted from now on. Not called by [`look`]: a flow takes much of the stack, of which
/// older kernels give all functions that call each other 512 bytes together.
#[inline(never)]
fn meet(sock: Sock) -> u32 {
    let mut flow = Flow::NEW;
    flow.owner = Owner::current();
    flow.retransmits_seen = sock.total_retransmits();
    flow.delivered = sock.delivered();
    flow.limited_ticks = sock.window_limited_ticks();
    flow.look_for_device(sock);
    flow::begin(sock, &flow);
    0
}

#[inline(never)]
fn look(sock: Sock, how: Use) -> u32 {
    let locked = how != Use::Sent;
    if locked && !sock.is_in_process() {
        return 0; // a kernel service reads in an interrupt
    }
    if !locked {
        let state = sock.state();
        if sock.protocol() != TCP || !sock.is_full() || state == CLOSE || state == LISTEN {
            return 0;
        }
    }
    let Some(flow) = flow::get(sock) else {
        return UNKNOWN;
    };
    let owner = Owner::current();
    // SAFETY: a map's value, which lives as long as the program runs; where `locked`, nobody
    // else writes it.
    unsafe {
        if locked {
            // What happened until now happened to the one before.
            let delivered_before = (*flow).delivered;
            flow::account(sock, flow, false);
            (*flow).owner = owner;
            tell::round_trip(sock, flow, delivered_before);
            other_end::list(sock, &mut *flow);
            other_end::tell(sock, &mut *flow);
            if how == Use::Read {
                flow::look_for_closed_window(sock, flow);
                tell::local_waits(sock, flow);
            }
        } else {
            (*flow).owner = owner;
        }
    }
    0
}

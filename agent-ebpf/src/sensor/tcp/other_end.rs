//! The other end of a connection, where that is on this host: who waits for an answer does not
//! know how the network treats it; who sent it does, and may long be done with it.
//!
//! Ends find each other by their addresses and ports, and are each other's if the bytes that the
//! one expects are those that the other has sent. Where addresses are translated in between, they
//! do not find each other.

use agent_common::event::sensor;
use aya_ebpf::{bindings::BPF_ANY, macros::map, maps::LruHashMap};

use super::{
    flow::{self, Flow},
    tell,
};
use crate::{emit, kernel::net::Sock, tracked::is_tracked};

/// Addresses of sockets by [`key`]. Least recently used ones go first.
#[map]
static ENDS: LruHashMap<u64, u64> = LruHashMap::with_max_entries(32_768, 0);

/// What an end is found by, from its own and the other's number.
#[inline(always)]
fn key((own, other): (u64, u64)) -> u64 {
    own ^ other.rotate_left(17)
}

/// From now on the connection is found by its other end.
#[inline(always)]
pub fn list(sock: Sock, flow: &mut Flow) {
    let ends = sock.ends();
    let key = key(ends);
    if ends.0 == 0 || flow.listed == key {
        return;
    }
    if ENDS
        .insert(key, sock.address(), u64::from(BPF_ANY))
        .is_err()
    {
        emit::lost(sensor::TCP);
        return;
    }
    flow.listed = key;
}

/// The socket is closed.
#[inline(always)]
pub fn forget(flow: &Flow) {
    if flow.listed != 0 {
        let _ = ENDS.remove(flow.listed);
    }
}

/// The process has read from the connection: tells what the other end waited for meanwhile.
#[inline(always)]
pub fn tell(sock: Sock, flow: &mut Flow) {
    if !is_tracked(flow.owner.pid) {
        return;
    }
    if flow.other_end == 0 {
        let (own, other) = sock.ends();
        // SAFETY: the value is copied out at once.
        flow.other_end = unsafe { ENDS.get(key((other, own))) }.copied().unwrap_or(0);
    }
    let other = Sock::at(flow.other_end);
    if flow.other_end == 0 || !sock.receives_from(other) {
        flow.other_end = 0;
        return;
    }
    if let Some(theirs) = flow::get(other) {
        // SAFETY: a map's value; the other end may write it at the same time, and what was
        // read then is told wrongly by one look.
        tell::of_the_other_end(sock, other, unsafe { &*theirs }, flow);
    }
}

//! Connections that a listening socket did not take, mostly as its queue was full. No hook tells of
//! them; the socket counts them itself, and is looked at when it takes the next one and when it is
//! closed.
//!
//! A new connection does not say who listened for it, but has its port and namespace, of which
//! several may listen (`SO_REUSEPORT`): they are numbered.

use agent_common::{
    device::device_id,
    event::sensor,
    series::{SeriesKey, family},
};
use aya_ebpf::{bindings::BPF_ANY, macros::map, maps::HashMap};

use super::flow::Owner;
use crate::{
    emit,
    kernel::net::{LISTEN, Sock},
    series,
};

/// Most listeners of one port that are known.
const SHARERS: u16 = 16;
/// Others of a port that may be closed while one is.
const TRIES: u32 = 3;

/// Where it listens.
#[repr(C)]
#[derive(Clone, Copy)]
struct Place {
    /// Inode of the network namespace.
    netns: u32,
    port: u16,
    /// Which of those that listen there, as far as possible without gaps.
    number: u16,
}

/// Who listens there.
#[repr(C)]
#[derive(Clone, Copy)]
struct Listener {
    /// Address of the socket.
    socket: u64,
    /// Inode of the cgroup that called `listen()`.
    cgroup_id: u64,
    /// The socket's count, as far as it is counted.
    drops: u32,
    /// No meaning.
    _pad: u32,
}

#[map]
static LISTENERS: HashMap<Place, Listener> = HashMap::with_max_entries(8192, 0);

impl Place {
    #[inline(always)]
    fn first(sock: Sock, port: u16) -> Self {
        Self {
            netns: sock.netns(),
            port,
            number: 0,
        }
    }
}

/// A process listens on it from now on.
#[inline(never)]
pub fn begin(sock: Sock, owner: &Owner) -> u32 {
    let listener = Listener {
        socket: sock.address(),
        cgroup_id: owner.cgroup_id,
        drops: sock.drops(),
        _pad: 0,
    };
    let mut place = Place::first(sock, sock.port());
    if place.port == 0 {
        return 0; // `listen()` without `bind()`: it gets one later
    }
    for number in 0..SHARERS {
        place.number = number;
        let is_taken = match LISTENERS.get_ptr(place) {
            // SAFETY: a map's value. One of the same address is a remainder, and is overwritten.
            Some(other) => unsafe { (*other).socket != sock.address() },
            None => false,
        };
        if !is_taken {
            return put(place, &listener);
        }
    }
    // There is none left but that of one whose end was missed.
    for number in 0..SHARERS {
        place.number = number;
        if let Some(other) = LISTENERS.get_ptr(place) {
            // SAFETY: a map's value.
            if !is_there(Sock::at(unsafe { (*other).socket }), place) {
                return put(place, &listener);
            }
        }
    }
    emit::lost(sensor::TCP);
    0
}

#[inline(always)]
fn put(place: Place, listener: &Listener) -> u32 {
    if LISTENERS
        .insert(place, *listener, u64::from(BPF_ANY))
        .is_err()
    {
        emit::lost(sensor::TCP);
    }
    0
}

/// Whether a socket listens there, as far as the memory at its address tells.
#[inline(always)]
fn is_there(sock: Sock, place: Place) -> bool {
    sock.state() == LISTEN && sock.port_to_others() == place.port && sock.netns() == place.netns
}

/// A connection was made for who listens on its port.
#[inline(never)]
pub fn account(connection: Sock) -> u32 {
    let mut place = Place::first(connection, connection.port());
    for number in 0..SHARERS {
        place.number = number;
        let Some(listener) = LISTENERS.get_ptr_mut(place) else {
            return 0;
        };
        count(listener, place);
    }
    0
}

/// It is closed. By now it may have lost its port, but not what others know as its port.
#[inline(never)]
pub fn end(sock: Sock) -> u32 {
    let mut place = Place::first(sock, sock.port_to_others());
    let mut address = sock.address();
    // Others of the port may be closed on other CPUs at the same time, each of whom moves the last
    // one into its own place: whoever cannot remove that looks again.
    for _ in 0..TRIES {
        let (mut own, mut last) = (SHARERS, 0);
        for number in 0..SHARERS {
            place.number = number;
            // Also behind a gap: another one may have begun where the last one was just moved from.
            if let Some(listener) = LISTENERS.get_ptr_mut(place) {
                last = number;
                // SAFETY: a map's value.
                if unsafe { (*listener).socket } == address {
                    count(listener, place);
                    own = number;
                }
            }
        }
        if own == SHARERS {
            return 0; // began before the agent
        }
        place.number = last;
        if own != last
            && let Some(moved) = LISTENERS.get_ptr(place)
        {
            place.number = own;
            if let Some(own) = LISTENERS.get_ptr_mut(place) {
                // SAFETY: values of a map. Who looks at the same time counts the last one twice
                // over at the same place, which is once.
                unsafe {
                    *own = *moved;
                    address = (*own).socket;
                }
            }
            place.number = last;
        }
        if LISTENERS.remove(place).is_ok() {
            return 0;
        }
        // The last one was closed and removed meanwhile: its copy is to go.
    }
    0
}

/// What it did not take since it was last looked at.
#[inline(always)]
fn count(listener: *mut Listener, place: Place) {
    // SAFETY: a map's value. Connections are made on several CPUs at once: what two of them see at
    // the same moment is counted by who writes first, or by both, which takes two within
    // nanoseconds.
    let listener = unsafe { &mut *listener };
    let sock = Sock::at(listener.socket);
    let drops = sock.drops();
    let new = drops.wrapping_sub(listener.drops);
    if new == 0 || !is_there(sock, place) {
        return;
    }
    listener.drops = drops;
    let key = SeriesKey {
        cgroup_id: listener.cgroup_id,
        family: family::TCP_LISTEN_DROPS,
        a: 0,
        b: device_id(place.netns, 0),
    };
    series::count(sensor::TCP, &key, new.into());
}

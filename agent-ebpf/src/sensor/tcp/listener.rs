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
use aya_ebpf::{bindings::BPF_NOEXIST, macros::map, maps::HashMap};

use super::flow::Owner;
use crate::{
    emit,
    kernel::net::{LISTEN, Sock},
    series,
};

/// Most listeners of one port that are known.
const SHARERS: u16 = 16;

/// Where it listens.
#[repr(C)]
#[derive(Clone, Copy)]
struct Place {
    /// Inode of the network namespace.
    netns: u32,
    port: u16,
    /// Which of those that listen there, without gaps.
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
    for number in 0..SHARERS {
        place.number = number;
        if LISTENERS.get_ptr(place).is_none() {
            if LISTENERS
                .insert(place, listener, u64::from(BPF_NOEXIST))
                .is_err()
            {
                emit::lost(sensor::TCP);
            }
            return 0;
        }
    }
    emit::lost(sensor::TCP);
    0
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

/// It is closed. By now it may have no port any more.
#[inline(never)]
pub fn end(sock: Sock, port: u32) -> u32 {
    let mut place = Place::first(sock, port as u16);
    let mut own: Option<*mut Listener> = None;
    for number in 0..SHARERS {
        place.number = number;
        let Some(listener) = LISTENERS.get_ptr_mut(place) else {
            if number == 0 {
                return 0; // began before the agent
            }
            place.number = number - 1;
            break;
        };
        // SAFETY: a map's value.
        if unsafe { (*listener).socket } == sock.address() {
            count(listener, place);
            own = Some(listener);
        }
    }
    // The last one takes its number, so that there is no gap.
    if let Some(own) = own {
        if let Some(last) = LISTENERS.get_ptr(place) {
            // SAFETY: values of a map. Who looks at the same time counts the last one twice over
            // at the same place, which is once.
            unsafe { *own = *last };
        }
        let _ = LISTENERS.remove(place);
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
    if new == 0 || sock.state() != LISTEN || sock.netns() != place.netns {
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

//! Connections that nobody had room for, against the kernel's own count in the namespace.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use rustix::net::{AddressFamily, SocketType, bind, listen as set_backlog, socket, sockopt};

use crate::{
    netns::{Pair, Space},
    traffic::{netstat, own_cgroup},
    watch::Watch,
};

const DROPS: &str = "isostack_tcp_listen_drops";

/// Listeners in `space` on one port, each with room for one connection more than this.
fn listeners(space: &Space, count: usize, backlog: i32) -> (Vec<TcpListener>, SocketAddr) {
    let mut address = SocketAddr::new(space.address.into(), 0);
    let all = (0..count).map(|_| {
        let listener = space.enter(|| {
            let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
            sockopt::set_socket_reuseport(&socket, true).unwrap();
            bind(&socket, &address).unwrap();
            set_backlog(&socket, backlog).unwrap();
            TcpListener::from(socket)
        });
        address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    });
    (all.collect(), address)
}

/// So many connections at once that nobody accepts; of some the SYN is dropped, of some the last
/// packet of the three.
fn crowd(space: &Space, to: SocketAddr) -> Vec<TcpStream> {
    let attempts = 12;
    let connect = || TcpStream::connect_timeout(&to, Duration::from_millis(150));
    space.enter(|| (0..attempts).filter_map(|_| connect().ok()).collect())
}

fn drops_in(watch: &Watch, space: &Space) -> u64 {
    watch.counted().count(DROPS, space.inode(), own_cgroup())
}

#[test]
fn what_a_full_queue_did_not_take_is_counted_at_the_next_connection() {
    let watch = Watch::start(&["tcp"]);
    let pair = Pair::ipv4_only();
    let (listeners, address) = listeners(&pair.b, 1, 1);
    let waiting = crowd(&pair.a, address);
    drop(waiting);
    // The kernel goes on to try what it has not taken: until nothing is under way.
    let counted = (0..100).any(|_| {
        while listeners[0].accept().is_ok() {}
        let before = netstat(&pair.b, "ListenDrops");
        drop(pair.a.enter(|| TcpStream::connect(address).unwrap()));
        let seen = drops_in(&watch, &pair.b);
        let after = netstat(&pair.b, "ListenDrops");
        assert!(after > 0, "nothing was dropped");
        assert!(seen <= after, "{seen} counted of {after}");
        before == after && seen == after
    });
    assert!(counted, "never what the kernel counts");
    watch.finish();
}

/// Those that never had a connection more, and those that share their port, in any order.
#[test]
fn what_was_not_taken_is_counted_when_listeners_are_closed() {
    let watch = Watch::start(&["tcp"]);
    let pair = Pair::ipv4_only();
    let (mut listeners, address) = listeners(&pair.b, 3, 0);
    drop(crowd(&pair.a, address));
    drop(listeners.remove(0));
    drop(crowd(&pair.a, address));
    drop(listeners);
    let truth = netstat(&pair.b, "ListenDrops");
    assert!(truth > 0, "nothing was dropped");
    assert_eq!(drops_in(&watch, &pair.b), truth);
    watch.finish();
}

#[test]
fn who_takes_every_connection_drops_none() {
    let watch = Watch::start(&["tcp"]);
    let pair = Pair::ipv4_only();
    let (listeners, address) = listeners(&pair.b, 1, 128);
    let connected = crowd(&pair.a, address);
    assert_eq!(connected.len(), 12);
    drop(listeners);
    assert_eq!(drops_in(&watch, &pair.b), 0);
    watch.finish();
}

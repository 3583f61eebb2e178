//! Connections that nobody had room for, against the kernel's own count in the namespace.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use aya::maps::{HashMap, Map, MapData};
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

/// A map of this process's sensors. There is a test at a time.
fn map(name: &str) -> Map {
    let ids = fs::read_dir("/proc/self/fdinfo").unwrap().flatten();
    let ids = ids.filter_map(|entry| {
        let text = fs::read_to_string(entry.path()).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("map_id:"))?;
        line.trim().parse().ok()
    });
    let maps = ids.filter_map(|id| MapData::from_id(id).ok());
    let is_it = |map: &MapData| {
        let info = map.info().unwrap();
        info.name_as_str() == Some(name)
    };
    let found = maps.into_iter().find(is_it);
    match name {
        "FLOWS" => Map::LruHashMap(found.unwrap()),
        _ => Map::HashMap(found.unwrap()),
    }
}

/// Ports of listeners in `space` that the kernel side knows.
fn known(space: &Space) -> Vec<u16> {
    let listeners = HashMap::<_, [u8; 8], [u64; 3]>::try_from(map("LISTENERS")).unwrap();
    let places = listeners.keys().flatten();
    let ports = places.filter_map(|[n0, n1, n2, n3, p0, p1, _, _]| {
        let is_of = u64::from(u32::from_ne_bytes([n0, n1, n2, n3])) == space.inode();
        is_of.then(|| u16::from_ne_bytes([p0, p1]))
    });
    ports.collect()
}

/// As if many other connections had pushed those out that are known.
fn evict_flows() {
    const FLOW_BYTES: usize = 176;
    let mut flows = HashMap::<_, u64, [u8; FLOW_BYTES]>::try_from(map("FLOWS")).unwrap();
    let all: Vec<u64> = flows.keys().flatten().collect();
    for flow in all {
        let _ = flows.remove(&flow); // gone already is as good
    }
}

/// Of whatever kind, however they end, and whatever else the kernel side has forgotten.
#[test]
fn of_closed_listeners_nothing_is_kept() {
    let watch = Watch::start(&["tcp"]);
    let pair = Pair::ipv4_only();
    let (shared, address) = listeners(&pair.b, 12, 1);
    // Each with a port that the kernel picked, which it loses when it is closed.
    let own: Vec<_> = (0..20).map(|_| listeners(&pair.b, 1, 1)).collect();
    // One that may not listen, as another one does.
    let refused = pair.b.enter(|| {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        sockopt::set_socket_reuseaddr(&socket, true).unwrap();
        bind(&socket, &address).and_then(|()| set_backlog(&socket, 1))
    });
    assert!(refused.is_err());
    // One without `bind()`: not known while it lives, nor after.
    let unbound = pair.b.enter(|| {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        set_backlog(&socket, 1).unwrap();
        socket
    });
    let ports = known(&pair.b);
    assert_eq!(ports.iter().filter(|p| **p == address.port()).count(), 12);
    assert_eq!(ports.len(), 12 + own.len(), "{ports:?}");

    evict_flows();
    drop((own, unbound));
    // At once, on both CPUs.
    let closing = shared
        .into_iter()
        .map(|listener| thread::spawn(|| drop(listener)));
    let closing: Vec<_> = closing.collect();
    for thread in closing {
        thread.join().unwrap();
    }
    let left = known(&pair.b);
    assert!(left.is_empty(), "{left:?}");
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

//! The `net` sensor in the running kernel against the counters of iptables, of queueing
//! disciplines and of the protocols. Needs root, `ip`, `iptables` and `tc`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/cgroup.rs"]
#[allow(dead_code, reason = "limits are for other test programs")]
mod cgroup;
#[path = "support/child.rs"]
#[allow(dead_code, reason = "others wait for their children")]
mod child;
#[path = "net_sensor/full_table.rs"]
mod full_table;
#[path = "net_sensor/incident.rs"]
mod incident;
#[path = "support/netns.rs"]
mod netns;
#[path = "net_sensor/stuck.rs"]
mod stuck;
#[path = "support/watch.rs"]
mod watch;
#[path = "support/whole.rs"]
mod whole;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    thread,
};

use cgroup::Group;
use isostack_agent::{
    event::{Delay, Particulars, Slice},
    host::btf::KernelTypes,
    sensor::Value,
    time::MonoNs,
    vocabulary::Cause,
};
use netns::{Pair, Space};
use watch::{Counted, Watch, of};

const DROPS: &str = "isostack_net_drops";

/// Drops counted in a namespace, by device kind and reason.
fn drops(counted: &Counted, space: &Space) -> Vec<(String, String, u64)> {
    let of_space = counted.of(DROPS, space.inode());
    let mut all: Vec<_> = of_space
        .map(|one| {
            let Value::Count(count) = one.value else {
                panic!("{DROPS} is a counter");
            };
            (one.labels[0].clone(), one.labels[1].clone(), count)
        })
        // Kernels without this reason end packets that did their work without any reason.
        .filter(|(_, reason, _)| reason != UNNAMED || names_all())
        .collect();
    all.sort();
    all
}

/// What the kernel calls a drop without a reason.
const UNNAMED: &str = "NOT_SPECIFIED";

/// Whether the kernel tells every drop from the end of a packet that did its work.
fn names_all() -> bool {
    let types = KernelTypes::read(Path::new("/sys")).unwrap();
    types
        .enumerator("skb_drop_reason", "SKB_CONSUMED")
        .is_some()
}

fn drop_of(kind: &str, reason: &str, count: u64) -> (String, String, u64) {
    (kind.to_owned(), reason.to_owned(), count)
}

/// A UDP socket in `a` for sending to port 9000 of `b`.
fn sender(pair: &Pair) -> (UdpSocket, SocketAddr) {
    let socket = pair.a.enter(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    (socket, SocketAddr::new(pair.b.address.into(), 9000))
}

#[test]
fn what_a_firewall_refuses() {
    let watch = Watch::start(&["tcp", "net"]);
    if watch.lacks("packet drops") {
        return;
    }
    let pair = Pair::ipv4_only();
    let (socket, to) = sender(&pair);
    pair.b.run("iptables -A INPUT -p udp --dport 9000 -j DROP");
    for _ in 0..559 {
        socket.send_to(b"x", to).unwrap();
    }
    let shown = pair.b.run("iptables -L INPUT -v -x -n");
    let rule = shown.lines().find(|line| line.contains("DROP  ")).unwrap();
    let truth: u64 = rule.split_whitespace().next().unwrap().parse().unwrap();
    assert_eq!(truth, 559);
    let counted = watch.counted();
    let expected = [drop_of("veth", "NETFILTER_DROP", truth)];
    assert_eq!(drops(&counted, &pair.b), expected);
    watch.finish();
}

#[test]
fn what_nobody_listens_to() {
    let watch = Watch::start(&["tcp", "net"]);
    if watch.lacks("packet drops") {
        return;
    }
    let pair = Pair::ipv4_only();
    let (socket, to) = sender(&pair);
    for _ in 0..77 {
        socket.send_to(b"x", to).unwrap();
    }
    let truth = snmp(&pair.b, "Udp", "NoPorts");
    assert_eq!(truth, 77);
    let counted = watch.counted();
    let expected = [drop_of("veth", "NO_SOCKET", truth)];
    assert_eq!(drops(&counted, &pair.b), expected);
    watch.finish();
}

#[test]
fn what_does_not_fit_into_a_queueing_discipline() {
    let watch = Watch::start(&["tcp", "net"]);
    if watch.lacks("packet drops") {
        return;
    }
    let pair = Pair::ipv4_only();
    let device = &pair.a.device;
    let (socket, to) = sender(&pair);
    let receiver = pair.b.enter(|| UdpSocket::bind("0.0.0.0:9000").unwrap());
    pair.a.run(&format!(
        "tc qdisc add dev {device} root tbf rate 1mbit burst 2000 limit 10000"
    ));
    for _ in 0..500 {
        // The socket's own buffer is full as well now and then.
        drop(socket.send_to(&[0; 1000], to));
    }
    let shown = pair.a.run(&format!("tc -s qdisc show dev {device}"));
    let (_, rest) = shown.split_once("dropped ").unwrap();
    let truth: u64 = rest.split(',').next().unwrap().parse().unwrap();
    assert!(truth > 300, "{shown}");
    let counted = watch.counted();
    let seen = drops(&counted, &pair.a);
    let [(kind, reason, count)] = &seen[..] else {
        panic!("{seen:?}");
    };
    assert!(reason.starts_with("QDISC_"), "{reason}");
    assert_eq!((kind.as_str(), *count), ("veth", truth));
    drop(receiver);
    watch.finish();
}

#[test]
fn what_a_receiver_has_no_room_for() {
    let watch = Watch::start(&["tcp", "net"]);
    if watch.lacks("packet drops") {
        return;
    }
    let pair = Pair::ipv4_only();
    let (socket, to) = sender(&pair);
    let receiver = pair.b.enter(|| UdpSocket::bind("0.0.0.0:9000").unwrap());
    rustix::net::sockopt::set_socket_recv_buffer_size(&receiver, 4096).unwrap();
    for _ in 0..300 {
        socket.send_to(&[0; 500], to).unwrap();
    }
    let truth = snmp(&pair.b, "Udp", "RcvbufErrors");
    assert!(truth > 200, "{truth}");
    let counted = watch.counted();
    let expected = [drop_of("veth", "SOCKET_RCVBUFF", truth)];
    assert_eq!(drops(&counted, &pair.b), expected);
    watch.finish();
}

/// A TCP segment refused on its way out is the sender's loss, and told.
#[test]
fn a_drop_on_the_way_out_is_its_owners() {
    let watch = Watch::start(&["tcp", "net"]);
    if watch.lacks("packet drops") {
        return;
    }
    let pair = Pair::ipv4_only();
    let listener = pair.b.enter(|| TcpListener::bind("0.0.0.0:0").unwrap());
    let address = SocketAddr::new(pair.b.address.into(), listener.local_addr().unwrap().port());
    let mut client = pair.a.enter(|| TcpStream::connect(address).unwrap());
    let (mut server, _) = listener.accept().unwrap();
    pair.a
        .run("iptables -A OUTPUT -p tcp -m statistic --mode nth --every 5 --packet 0 -j DROP");
    for _ in 0..20 {
        client.write_all(b"x").unwrap();
        server.read_exact(&mut [0]).unwrap();
    }
    let shown = pair.a.run("iptables -L OUTPUT -v -x -n");
    let rule = shown.lines().find(|line| line.contains("DROP  ")).unwrap();
    let truth: u64 = rule.split_whitespace().next().unwrap().parse().unwrap();
    let counted = watch.counted();
    let count: u64 = drops(&counted, &pair.a)
        .into_iter()
        .map(|(_, reason, count)| {
            assert_eq!(reason, "NETFILTER_DROP");
            count
        })
        .sum();
    if count == 0 && !names_all() {
        println!("cannot run here: this kernel names no reason for drops on the way out");
        return;
    }
    assert_eq!(count, truth);
    let delays = watch.finish();
    let told = of(&delays, Cause::NetDrop, std::process::id());
    assert!(!told.is_empty());
    for delay in told {
        let Particulars::Flow(flow) = &delay.particulars else {
            panic!("{delay:?}");
        };
        assert_eq!(flow.reason, "NETFILTER_DROP");
        assert_eq!(
            (flow.slice, &flow.device),
            (Some(Slice::Container), &pair.a.device)
        );
    }
}

/// A request and its answer, of which the given one is lost once; what was told of waits for it,
/// and between which times it can have been.
fn lost_once(
    watch: Watch,
    at: impl Fn(&Pair) -> &Space,
    chain: &str,
) -> Option<(Vec<Delay>, (u64, u64))> {
    if watch.lacks("packet drops") {
        return None;
    }
    let pair = Pair::ipv4_only();
    let listener = pair.b.enter(|| TcpListener::bind("0.0.0.0:0").unwrap());
    let address = SocketAddr::new(pair.b.address.into(), listener.local_addr().unwrap().port());
    let mut client = pair.a.enter(|| TcpStream::connect(address).unwrap());
    let (mut server, _) = listener.accept().unwrap();
    let answers = thread::spawn(move || {
        for _ in 0..3 {
            server.read_exact(&mut [0]).unwrap();
            server.write_all(b"y").unwrap();
        }
        server
    });
    let mut ask = || {
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
    };
    ask();
    // Data only: what is pushed.
    let place = at(&pair);
    place.run(&format!(
        "iptables -A {chain} -p tcp --tcp-flags PSH PSH \
         -m statistic --mode nth --every 1000 --packet 0 -j DROP"
    ));
    let before = MonoNs::now().0;
    ask();
    let after = MonoNs::now().0;
    let shown = place.run(&format!("iptables -L {chain} -v -x -n"));
    let rule = shown.lines().find(|line| line.contains("DROP  ")).unwrap();
    assert_eq!(rule.split_whitespace().next(), Some("1"), "{shown}");
    ask();
    drop((client, answers.join()));
    let delays = watch.finish();
    let mut told = of(&delays, Cause::NetDrop, std::process::id());
    told.retain(|delay| delay.end > delay.start);
    Some((told.into_iter().cloned().collect(), (before, after)))
}

fn is_the_one_wait(told: &[Delay], (before, after): (u64, u64), device: &str) {
    let [wait] = told else {
        panic!("one wait: {told:?}");
    };
    assert!(
        before <= wait.start.0 && wait.end.0 <= after,
        "{before} {after} {wait:?}"
    );
    let Particulars::Flow(flow) = &wait.particulars else {
        panic!("{wait:?}");
    };
    assert_eq!(flow.reason, "NETFILTER_DROP");
    assert_eq!(
        (flow.slice, &*flow.device),
        (Some(Slice::Container), device)
    );
}

/// From the drop until it was sent again, by who had sent it.
#[test]
fn the_wait_for_a_segment_dropped_on_its_way_out() {
    let watch = Watch::start(&["tcp", "net"]);
    if let Some((told, when)) = lost_once(watch, |pair| &pair.a, "OUTPUT") {
        is_the_one_wait(&told, when, "ve1");
    }
}

/// The same where a writing is seen only when it is over.
#[test]
fn the_wait_for_a_segment_dropped_on_its_way_out_on_an_older_kernel() {
    let watch = Watch::start_with_last_hooks(&["tcp", "net"]);
    if let Some((told, when)) = lost_once(watch, |pair| &pair.a, "OUTPUT") {
        is_the_one_wait(&told, when, "ve1");
    }
}

/// From the drop until it could be read, by who reads it; the sender, of the same process here,
/// cannot know.
#[test]
fn the_wait_for_a_segment_dropped_on_its_way_in() {
    let watch = Watch::start(&["tcp", "net"]);
    if let Some((told, when)) = lost_once(watch, |pair| &pair.a, "INPUT") {
        is_the_one_wait(&told, when, "ve1");
    }
}

/// Of one connection, one segment each way: each is said to be dropped for its own reason.
#[test]
fn the_reasons_of_both_directions_are_told_apart() {
    let watch = Watch::start(&["tcp", "net"]);
    if watch.lacks("packet drops") {
        return;
    }
    let pair = Pair::ipv4_only();
    let device = &pair.a.device;
    let listener = pair.b.enter(|| TcpListener::bind("0.0.0.0:0").unwrap());
    let address = SocketAddr::new(pair.b.address.into(), listener.local_addr().unwrap().port());
    let mut client = pair.a.enter(|| TcpStream::connect(address).unwrap());
    let (mut server, _) = listener.accept().unwrap();
    for _ in 0..2 {
        client.write_all(b"x").unwrap();
        server.read_exact(&mut [0]).unwrap();
        server.write_all(b"y").unwrap();
        client.read_exact(&mut [0]).unwrap();
    }
    // Room for nothing, until it is taken away.
    pair.a.run(&format!(
        "tc qdisc add dev {device} root tbf rate 1mbit burst 2000 limit 1"
    ));
    client.write_all(b"x").unwrap();
    pair.a.run(
        "iptables -A INPUT -p tcp --tcp-flags PSH PSH \
         -m statistic --mode nth --every 1000 --packet 0 -j DROP",
    );
    server.write_all(b"y").unwrap();
    pair.a.run(&format!("tc qdisc del dev {device} root"));
    server.read_exact(&mut [0]).unwrap();
    client.read_exact(&mut [0]).unwrap();
    drop((client, server));
    let delays = watch.finish();
    let mut told = of(&delays, Cause::NetDrop, std::process::id());
    told.retain(|delay| delay.end > delay.start);
    let reasons: Vec<&str> = told
        .iter()
        .map(|delay| match &delay.particulars {
            Particulars::Flow(flow) => &*flow.reason,
            other => panic!("{other:?}"),
        })
        .collect();
    let of_the_queue = |reason: &&&str| reason.starts_with("QDISC_");
    assert_eq!(reasons.iter().filter(of_the_queue).count(), 1, "{told:?}");
    let of_the_rule = |reason: &&&str| **reason == "NETFILTER_DROP";
    assert_eq!(reasons.iter().filter(of_the_rule).count(), 1, "{told:?}");
}

/// Connections opened and closed, data in flight at the end, a refused one, a capture of
/// everything: none of that is a dropped packet.
#[test]
fn normal_life_is_no_drop() {
    let watch = Watch::start(&["tcp", "net"]);
    if watch.lacks("packet drops") {
        return;
    }
    let pair = Pair::ipv4_only();
    let listener = pair.b.enter(|| TcpListener::bind("0.0.0.0:0").unwrap());
    let address = SocketAddr::new(pair.b.address.into(), listener.local_addr().unwrap().port());
    for i in 0..50 {
        let mut client = pair.a.enter(|| TcpStream::connect(address).unwrap());
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(&[0; 4000]).unwrap();
        server.read_exact(&mut [0; 4000]).unwrap();
        server.write_all(&[0; 4000]).unwrap();
        client.read_exact(&mut [0; 4000]).unwrap();
        // Either side first.
        if i % 2 == 0 {
            drop((client, server));
        } else {
            drop((server, client));
        }
    }
    let counted = watch.counted();
    assert_eq!(drops(&counted, &pair.a), []);
    assert_eq!(drops(&counted, &pair.b), []);
    watch.finish();
}

/// Who floods: each of two groups by its own number of sends.
#[test]
fn senders_of_udp_are_counted_by_cgroup() {
    let watch = Watch::start(&["tcp", "net"]);
    if watch.lacks("who sends how much UDP") {
        return;
    }
    let pair = Pair::ipv4_only();
    let groups = [(Group::new(), 30_000_u64), (Group::new(), 10_000)];
    let to = pair.b.address;
    thread::scope(|scope| {
        for (group, sends) in &groups {
            let script = format!(
                "echo $BASHPID > {}/cgroup.procs; exec 3>/dev/udp/{to}/9; \
                 for ((i = 0; i < {sends}; i++)); do echo x >&3; done 2>/dev/null; true",
                group.path.display()
            );
            let pair = &pair;
            scope.spawn(move || pair.a.run(&script));
        }
    });
    let counted = watch.counted();
    for (group, sends) in &groups {
        let name = "isostack_net_udp_sends";
        let count = counted.count(name, pair.a.inode(), group.id());
        // The last ones are counted when the same place in the table is used again.
        let least = sends * 9 / 10;
        assert!((least..=*sends).contains(&count), "{count} of {sends}");
    }
    watch.finish();
}

/// What is larger than a datagram can be is refused, and was never sent.
#[test]
fn what_could_not_be_sent_is_no_flood() {
    let watch = Watch::start(&["tcp", "net"]);
    if watch.lacks("who sends how much UDP") {
        return;
    }
    if !has_tracepoint("sock_send_length") {
        println!("cannot run here: this kernel does not say which sends failed");
        return;
    }
    let pair = Pair::ipv4_only();
    let (socket, to) = sender(&pair);
    let receiver = pair.b.enter(|| UdpSocket::bind("0.0.0.0:9000").unwrap());
    socket.connect(to).unwrap();
    for _ in 0..400 {
        socket.send(b"x").unwrap();
        socket.send(&[0; 70_000]).unwrap_err();
    }
    // The last ones are counted when the same place in the table is used again.
    thread::sleep(std::time::Duration::from_millis(50));
    socket.send(b"x").unwrap();
    let counted = watch.counted();
    let of_space = counted.of("isostack_net_udp_sends", pair.a.inode());
    let count: u64 = of_space
        .map(|one| match one.value {
            Value::Count(count) => count,
            Value::Histogram(_) => panic!("it is a counter"),
        })
        .sum();
    assert!((350..=401).contains(&count), "{count} of 401");
    drop(receiver);
    watch.finish();
}

fn has_tracepoint(name: &str) -> bool {
    let types = KernelTypes::read(Path::new("/sys")).unwrap();
    types.has_tracepoint(name)
}

/// A number of `/proc/net/snmp` of the namespace.
fn snmp(space: &Space, protocol: &str, name: &str) -> u64 {
    let text = space.run("cat /proc/net/snmp");
    let mut lines = text
        .lines()
        .filter_map(|line| line.strip_prefix(protocol)?.strip_prefix(':'));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    let (_, value) = pairs.find(|(n, _)| *n == name).unwrap();
    value.parse().unwrap()
}

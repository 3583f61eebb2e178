//! The `tcp` sensor in the running kernel against what the sockets themselves say
//! (`TCP_INFO`, `ss -ti`). Needs root, `ip`, `iptables`, `tc` and `ss`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/cgroup.rs"]
#[allow(dead_code, reason = "limits are for other test programs")]
mod cgroup;
#[path = "tcp_sensor/listener.rs"]
mod listener;
#[path = "support/netns.rs"]
mod netns;
#[path = "tcp_sensor/owner.rs"]
mod owner;
#[path = "tcp_sensor/traffic.rs"]
mod traffic;
#[path = "support/watch.rs"]
mod watch;
#[path = "tcp_sensor/window.rs"]
mod window;

use std::{
    fs,
    io::Write as _,
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::MetadataExt as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use isostack_agent::{
    event::{Delay, Particulars, Slice},
    host::btf::KernelTypes,
    time::MonoNs,
    vocabulary::Cause,
};
use netns::{Pair, Space};
use traffic::{Connection, connect_to, listen, own_cgroup, tcp_info};
use watch::{Watch, of, turn};

const RTT: &str = "isostack_tcp_rtt_seconds";
const CONNECT: &str = "isostack_tcp_connect_seconds";
const RETRANSMITS: &str = "isostack_tcp_retransmits";
const RESETS: &str = "isostack_tcp_resets";
const FAILURES: &str = "isostack_tcp_connect_failures";

/// Whether it was told of the end of a connection that is in this namespace.
fn is_at(delay: &Delay, space: &Space) -> bool {
    matches!(&delay.particulars, Particulars::Flow(flow) if flow.device == space.device)
}

#[test]
fn retransmits_are_what_the_socket_counts() {
    retransmits(|pair| {
        pair.b.lose_every(20);
        Ok(())
    });
}

#[test]
fn retransmits_of_a_link_that_loses_at_random() {
    retransmits(|pair| pair.a.emulate("loss 5%"));
}

/// Also of a connection that was opened, and lost segments, before the sensor ran.
fn retransmits(spoil: impl Fn(&Pair) -> Result<(), String>) {
    let turn = turn();
    let (pair, own) = (Pair::new(), own_cgroup());
    let mut connection = Connection::new(&pair);
    if let Err(why) = spoil(&pair) {
        println!("cannot run here: {why}");
        return;
    }
    let before = send_until_lost(&mut connection, 1 << 20);

    let watch = Watch::start_in(turn, &["tcp"]);
    assert!(watch.sensors.track(std::process::id()));
    let after = send_until_lost(&mut connection, 4 << 20);
    let mut young = Connection::new(&pair);
    let truth = after - before + send_until_lost(&mut young, 1 << 20);

    let netns = pair.a.inode();
    let live = watch.counted().count(RETRANSMITS, netns, own);
    assert_eq!(live, u64::from(truth), "while the connection lives");

    let delays = watch.finish();
    let told = of(&delays, Cause::TcpRetransmit, std::process::id());
    assert!(told.iter().any(|delay| is_at(delay, &pair.a)), "{told:?}");
    for delay in told {
        let Particulars::Flow(flow) = &delay.particulars else {
            panic!("{delay:?}");
        };
        assert_eq!(flow.slice, Some(Slice::Container), "{delay:?}");
        // Who reads what comes late is told, too.
        assert!(is_at(delay, &pair.a) || is_at(delay, &pair.b), "{delay:?}");
        assert_eq!(delay.cgroup_id, own);
    }
}

/// Sends so much, again where none of it was lost by chance: it may be in a few large packets.
/// Returns all segments that the connection has sent again.
fn send_until_lost(connection: &mut Connection, bytes: usize) -> u32 {
    let count = |connection: &Connection| tcp_info(&connection.client).tcpi_total_retrans;
    let before = count(connection);
    for _ in 0..50 {
        connection.send(bytes);
        if count(connection) > before {
            return count(connection);
        }
    }
    panic!("nothing was lost");
}

/// Nothing follows it that would tell of its loss: the kernel's probe or timer does.
#[test]
fn a_single_lost_segment_is_waited_for_from_its_sending_on() {
    let watch = Watch::start(&["tcp"]);
    let pair = Pair::new();
    let mut connection = Connection::new(&pair);
    (0..20).for_each(|_| connection.send(100));
    let rule = "INPUT -p tcp -m length --length 1000: -j DROP";
    pair.b.run(&format!("iptables -A {rule}"));
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| connection.send(1200));
        thread::sleep(Duration::from_millis(100));
        pair.b.run(&format!("iptables -D {rule}"));
    });
    let truth_ns = start.elapsed().as_nanos() as f64;
    assert!(tcp_info(&connection.client).tcpi_total_retrans > 0);
    let delays = watch.finish();
    let told = of(&delays, Cause::TcpRetransmit, std::process::id());
    // Its acknowledgement of the last answer is lost with it: the server waits, too.
    let of_client = told.iter().filter(|delay| is_at(delay, &pair.a));
    let told_ns: u64 = of_client.map(|d| d.end.0 - d.start.0).sum();
    let ratio = told_ns as f64 / truth_ns;
    assert!((0.8..=1.0).contains(&ratio), "ratio {ratio:.3}: {told:?}");
}

/// Each segment waits until the link has sent the one before: 22 ms.
#[test]
fn round_trips_are_what_ss_shows() {
    round_trips(|pair| {
        pair.a.limit_rate("500kbit", 100_000);
        Ok(())
    });
}

#[test]
fn round_trips_of_a_long_way() {
    round_trips(|pair| pair.a.emulate("delay 30ms"));
}

/// Of a connection that is never closed while the sensor looks.
fn round_trips(shape: impl Fn(&Pair) -> Result<(), String>) {
    let turn = turn();
    let (pair, own) = (Pair::new(), own_cgroup());
    if let Err(why) = shape(&pair) {
        println!("cannot run here: {why}");
        return;
    }
    let mut connection = Connection::new(&pair);
    let mut exchange = |times| (0..times).for_each(|_| connection.send(1300));
    exchange(60);

    let watch = Watch::start_in(turn, &["tcp"]);
    let shown: Vec<f64> = thread::scope(|scope| {
        let sender = scope.spawn(|| exchange(150));
        let mut shown = Vec::new();
        while !sender.is_finished() {
            shown.extend(traffic::rtt_by_ss(&pair));
        }
        shown
    });
    let truth_ms = shown.iter().sum::<f64>() / shown.len() as f64;
    let counted = watch.counted();
    let (sum_ns, count) = counted.histogram(RTT, pair.a.inode(), own);
    assert!(count >= 100, "looked at {count} times in 150 exchanges");
    let mean_ms = sum_ns as f64 / count as f64 / 1e6;
    let ratio = mean_ms / truth_ms;
    assert!(
        (0.9..=1.1).contains(&ratio),
        "{mean_ms:.3} ms against {truth_ms:.3} ms by ss, ratio {ratio:.3}"
    );
    let delays = watch.finish();
    // A single segment's answer may be late because its receiver took its time: but for the
    // first looks, when more than one arrived since the last, that is not told.
    let told = of(&delays, Cause::TcpRtt, std::process::id());
    let (least, most) = shown
        .iter()
        .fold((f64::MAX, 0.0_f64), |(least, most), &ms| {
            (least.min(ms), most.max(ms))
        });
    if most > 1.5 * least {
        println!("cannot run here: ss saw round trips of {least} to {most} ms on an even link");
        return;
    }
    assert!(told.len() < 5, "of 150 exchanges: {told:?}");
}

#[test]
fn a_full_queue_on_the_way_is_told() {
    let watch = Watch::start(&["tcp"]);
    let pair = Pair::new();
    pair.a.limit_rate("10mbit", 100_000);
    let mut connection = Connection::new(&pair);
    connection.send(1 << 20);
    let delays = watch.finish();
    let told = of(&delays, Cause::TcpRtt, std::process::id());
    assert!(!told.is_empty());
    // No longer than the queue is: 80 ms at this rate, and what was in it when it grew.
    for delay in &told {
        assert!(delay.end.0 - delay.start.0 < 1_000_000_000, "{delay:?}");
    }
    let mut pairs = told.windows(2);
    assert!(pairs.all(|two| two[0].end <= two[1].start), "nothing twice");
}

/// It waits for what its own round trips do not show, as it sends nothing; of answers in one
/// segment, which it acknowledges late itself, it is told nothing.
#[test]
fn who_reads_is_told_what_the_sender_waited_for() {
    let watch = Watch::start(&["tcp"]);
    assert!(watch.sensors.track(std::process::id()));
    let pair = Pair::new();
    pair.a.limit_rate("10mbit", 100_000);
    let mut connection = Connection::new(&pair);
    let start = Instant::now();
    connection.send(1 << 20);
    let took_ns = start.elapsed().as_nanos() as f64;
    thread::sleep(Duration::from_millis(100));
    let single = MonoNs::now();
    (0..20).for_each(|_| {
        connection.send(100);
        thread::sleep(Duration::from_millis(60));
    });
    let delays = watch.finish();
    let told = of(&delays, Cause::TcpRtt, std::process::id());
    let told: Vec<_> = told.iter().filter(|delay| is_at(delay, &pair.b)).collect();
    let told_ns: u64 = told.iter().map(|d| d.end.0 - d.start.0).sum();
    let ratio = told_ns as f64 / took_ns;
    assert!((0.5..=1.0).contains(&ratio), "ratio {ratio:.3}: {told:?}");
    assert!(told.iter().all(|d| d.end < single), "{told:?}");
}

/// Each request, a single segment, waits until the link has sent the one before: 22 ms. No round trip
/// tells of it, as the acknowledgement comes with the answer; the other end, on this host, does.
#[test]
fn who_asks_is_told_how_long_a_single_segment_was_on_its_way() {
    let watch = Watch::start(&["tcp"]);
    assert!(watch.sensors.track(std::process::id()));
    let pair = Pair::new();
    let mut connection = Connection::new(&pair);
    (0..20).for_each(|_| connection.send(1300));
    let limited = MonoNs::now();
    pair.a.limit_rate("500kbit", 100_000);
    // What the link lets through at once.
    (0..10).for_each(|_| connection.send(1300));
    let start = Instant::now();
    (0..60).for_each(|_| connection.send(1300));
    let took_ns = start.elapsed().as_nanos() as f64;
    // One more look at the socket, and the link as fast as before.
    pair.a
        .run(&format!("tc qdisc del dev {} root", pair.a.device));
    let fast = MonoNs::now();
    (0..20).for_each(|_| {
        connection.send(1300);
        thread::sleep(Duration::from_millis(10));
    });
    let delays = watch.finish();
    let told = of(&delays, Cause::TcpRtt, std::process::id());
    let told: Vec<_> = told.iter().filter(|delay| is_at(delay, &pair.a)).collect();
    let sum = |slow: bool| {
        let of_those = told
            .iter()
            .filter(|d| (d.start >= limited && d.start < fast) == slow);
        let lengths = of_those.map(|d| d.end.0 - d.start.0);
        lengths.sum::<u64>() as f64
    };
    let ratio = sum(true) / took_ns;
    assert!((0.5..=1.0).contains(&ratio), "ratio {ratio:.3}: {told:?}");
    // A busy machine may be late with a packet on the fast link, too; seldom.
    assert!(sum(false) <= 0.1 * sum(true), "{told:?}");
}

/// The first SYN is lost: the kernel sends it again after a second.
#[test]
fn the_time_to_connect_is_the_clients_own() {
    let watch = Watch::start(&["tcp"]);
    let (pair, own) = (Pair::new(), own_cgroup());
    let (_listener, address) = listen(&pair.b, pair.b.address.into());
    drop(connect_to(&pair.a, address)); // addresses are resolved now
    let rule = "INPUT -p tcp --syn -m statistic --mode nth --every 2 --packet 0 -j DROP";
    pair.b.run(&format!("iptables -A {rule}"));
    let start = Instant::now();
    let client = connect_to(&pair.a, address).unwrap();
    let truth_ns = start.elapsed().as_nanos() as f64;
    let truth_retransmits = tcp_info(&client).tcpi_total_retrans;
    assert_eq!(truth_retransmits, 1);

    let counted = watch.counted();
    let (sum_ns, count) = counted.histogram(CONNECT, pair.a.inode(), own);
    assert_eq!(count, 2);
    let ratio = sum_ns as f64 / truth_ns;
    assert!((0.9..=1.1).contains(&ratio), "ratio {ratio:.4}");
    let retransmits = counted.count(RETRANSMITS, pair.a.inode(), own);
    assert_eq!(retransmits, 1, "the SYN");

    let delays = watch.finish();
    let told = of(&delays, Cause::TcpConnect, std::process::id());
    let longest = told.iter().map(|d| d.end.0 - d.start.0).max().unwrap();
    let ratio = longest as f64 / truth_ns;
    assert!((0.9..=1.1).contains(&ratio), "ratio {ratio:.4}");
}

#[test]
fn a_refused_connection_is_a_failure_and_a_reset() {
    let watch = Watch::start(&["tcp"]);
    let (pair, own) = (Pair::new(), own_cgroup());
    let nobody = SocketAddr::new(pair.b.address.into(), 9);
    for _ in 0..5 {
        connect_to(&pair.a, nobody).unwrap_err();
    }
    let counted = watch.counted();
    let netns = pair.a.inode();
    assert_eq!(counted.count(FAILURES, netns, own), 5);
    assert_eq!(counted.count(CONNECT, netns, own), 0);
    assert_eq!(counted.count(RESETS, netns, own), 5, "received");
    let sent = counted.count(RESETS, pair.b.inode(), 0);
    // Before 6.10 the kernel did not tell of those that no socket sends.
    assert!([0, 5].contains(&sent), "sent by nobody: {sent}");
    let types = KernelTypes::read(Path::new("/sys")).unwrap();
    if types
        .enumerator("sk_rst_reason", "SK_RST_REASON_NO_SOCKET")
        .is_some()
    {
        assert_eq!(sent, 5);
    }
    watch.finish();
}

/// IPv4, IPv6, IPv4 mapped into IPv6, each over the pair and over loopback.
#[test]
fn every_address_family_and_loopback_told_apart() {
    let watch = Watch::start(&["tcp"]);
    let (pair, own) = (Pair::new(), own_cgroup());
    let v6 = pair.b.address6.parse().unwrap();
    let mapped = pair.b.address.to_ipv6_mapped().into();
    for (from, to, slice) in [
        (&pair.a, pair.b.address.into(), "container"),
        (&pair.a, v6, "container"),
        (&pair.a, mapped, "container"),
        (&pair.b, "127.0.0.1".parse().unwrap(), "loopback"),
        (&pair.b, "::1".parse().unwrap(), "loopback"),
        // An own address of another device still goes through loopback.
        (&pair.b, v6, "loopback"),
    ] {
        let counts = |name| -> u64 {
            let counted = watch.counted();
            let of = counted.of(name, from.inode());
            let of = of.filter(|one| one.labels == [slice] && one.key.cgroup_id == own);
            of.map(|one| match &one.value {
                isostack_agent::sensor::Value::Histogram(h) => h.count(),
                isostack_agent::sensor::Value::Count(_) => panic!("{name} is a counter"),
            })
            .sum()
        };
        let (connects, rtts) = (counts(CONNECT), counts(RTT));
        let (listener, address) = listen(&pair.b, "::".parse().unwrap());
        let mut client = connect_to(from, SocketAddr::new(to, address.port())).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        traffic::ping_pong(&mut client, &mut server);
        drop((client, server));
        assert_eq!(counts(CONNECT), connects + 1, "{to} by {slice}");
        assert!(counts(RTT) > rtts, "{to} by {slice}");
    }
    watch.finish();
}

/// Mostly the machine's first one, which has a number of its own kind since 6.18.
#[test]
fn devices_of_this_namespace_are_known() {
    let watch = Watch::start(&["tcp"]);
    let own = own_cgroup();
    let here = fs::metadata("/proc/self/ns/net").unwrap().ino();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    traffic::ping_pong(&mut client, &mut server);
    drop((client, server));
    let counted = watch.counted();
    let of = counted.of(CONNECT, here);
    let slices: Vec<_> = of
        .filter(|one| one.key.cgroup_id == own)
        .map(|one| one.labels.clone())
        .collect();
    assert_eq!(slices, [["loopback"]]);
    watch.finish();
}

/// The thread that last used the connection suffers, not the one that opened it.
#[test]
fn in_a_thread_pool_the_last_user_is_named() {
    let watch = Watch::start(&["tcp"]);
    assert!(watch.sensors.track(std::process::id()));
    let pair = Pair::new();
    let mut connection = Connection::new(&pair);
    pair.b.lose_every(20);
    let worker = thread::scope(|scope| {
        let work = scope.spawn(|| {
            connection.send(2 << 20);
            rustix::thread::gettid().as_raw_nonzero().get() as u32
        });
        work.join().unwrap()
    });
    assert!(tcp_info(&connection.client).tcpi_total_retrans > 0);
    let delays = watch.finish();
    let told = of(&delays, Cause::TcpRetransmit, std::process::id());
    let told: Vec<_> = told.iter().filter(|delay| is_at(delay, &pair.a)).collect();
    assert!(!told.is_empty());
    for delay in told {
        assert_eq!(delay.tid, worker, "{delay:?}");
    }
}

/// What a process does that is not TCP must not disturb, nor be counted.
#[test]
fn other_sockets_are_not_counted() {
    let watch = Watch::start(&["tcp"]);
    let pair = Pair::new();
    let (mut left, _right) = std::os::unix::net::UnixStream::pair().unwrap();
    left.write_all(b"x").unwrap();
    let udp = pair
        .a
        .enter(|| std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    udp.send_to(b"x", udp.local_addr().unwrap()).unwrap();
    let counted = watch.counted();
    for name in [RTT, CONNECT, RETRANSMITS, RESETS, FAILURES] {
        assert_eq!(counted.of(name, pair.a.inode()).count(), 0, "{name}");
    }
    watch.finish();
}

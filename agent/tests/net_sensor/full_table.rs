//! A service whose connections find no room in a connection tracking table that a neighbour has
//! filled, through the whole agent. The table's size is the whole machine's, so this runs in the
//! guests of `cargo xtask vm` only.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    thread,
    time::Duration,
};

use crate::{
    cgroup::Group,
    child::Child,
    stuck::in_a_guest,
    watch::turn,
    whole::{Agent, Plan, Service},
};

const SIZE: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
const ENTRIES: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
const STATISTICS: &str = "/proc/net/stat/nf_conntrack";
/// Connections that the neighbour holds open, and the room that there is for all: less, so that none
/// that ends makes room for another one.
const HELD: usize = 300;
const ROOM: u64 = 200;
/// A SYN is sent again after one second, and after two more: then there is room again.
const FULL: Duration = Duration::from_secs(2);

/// Asks on a new connection.
const ORDER: &str = "work() { exec 5<>/dev/tcp/127.0.0.1/$BANK_PORT; printf x >&5; \
                     read -r -N 1 -u 5 answer; }";

/// Connections are tracked while a rule asks for it; with the size that was there before, and no
/// rule, when dropped.
struct Tracking {
    size: String,
}

impl Tracking {
    const RULE: &str = "INPUT -m conntrack --ctstate INVALID -j ACCEPT";

    fn start() -> Self {
        rule("-A");
        Self {
            size: fs::read_to_string(SIZE).unwrap(),
        }
    }

    fn restore(&self) {
        fs::write(SIZE, self.size.trim()).unwrap();
    }
}

impl Drop for Tracking {
    fn drop(&mut self) {
        self.restore();
        rule("-D");
    }
}

fn rule(action: &str) {
    let words = format!("{action} {}", Tracking::RULE);
    let output = Command::new("iptables").args(words.split(' ')).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{words}: {output:?}");
}

fn number(file: &str) -> u64 {
    fs::read_to_string(file).unwrap().trim().parse().unwrap()
}

/// Packets that were dropped for want of room: hexadecimal, summed over CPUs.
fn refused() -> u64 {
    let text = fs::read_to_string(STATISTICS).unwrap();
    let mut lines = text.lines();
    let mut names = lines.next().unwrap().split_whitespace();
    let at = names.position(|name| name == "drop").unwrap();
    let of = |line: &str| u64::from_str_radix(line.split_whitespace().nth(at)?, 16).ok();
    lines.filter_map(of).sum()
}

/// Answers on every connection; its address.
fn bank() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            thread::spawn(move || {
                let mut byte = [0];
                while client.read_exact(&mut byte).is_ok() {
                    let _ = client.write_all(&byte);
                }
            });
        }
    });
    address
}

/// Accepts and keeps connections, so that they stay.
fn sink() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let kept: Vec<_> = listener.incoming().collect();
        drop(kept);
    });
    address
}

#[test]
fn who_finds_no_room_in_a_full_table() {
    if !in_a_guest() {
        println!("cannot run here: the table is the whole machine's");
        return;
    }
    let _turn = turn();
    // First: connections that are older than the tracking would need room, too.
    let tracking = Tracking::start();
    let (bank, sink) = (bank(), sink());
    let agent = Agent::start("cpu,tcp,net,wait,logs");
    let (usual, neighbour) = (Group::new(), Group::new());
    let order = Plan {
        names: ["order", "POST /order"],
        work: ORDER,
        told: vec![("BANK_PORT", bank.port().to_string())],
        procs: vec![usual.path.join("cgroup.procs")],
        ..Plan::default()
    };
    let mut order = Service::joined(&order, &agent);
    let _hog = Child::start(&neighbour, || {
        let held: Vec<_> = (0..HELD).map(|_| TcpStream::connect(sink)).collect();
        thread::sleep(Duration::from_secs(120));
        drop(held);
    });
    let filled = (0..600).any(|_| {
        thread::sleep(Duration::from_millis(100));
        number(ENTRIES) >= HELD as u64
    });
    assert!(filled, "{} connections in the table", number(ENTRIES));
    // Until the service is known as a sender of spans.
    thread::sleep(Duration::from_secs(3));
    fs::write(SIZE, ROOM.to_string()).unwrap();
    let before = refused();
    order.go();
    thread::sleep(FULL);
    let truth = refused() - before;
    tracking.restore();
    order.wait_for("done");

    let verdict = agent.verdict("order");
    assert!(truth > 0, "nothing was refused");
    assert_eq!(verdict["cause"], "conntrack", "{verdict}");
    assert_eq!(verdict["fault"], "L-3", "{verdict}");
    assert_eq!(verdict["culprit"], "", "{verdict}");
    let remedy = verdict["remedy"].as_str().unwrap();
    assert!(remedy.contains("nf_conntrack_max"), "{remedy}");
    agent.finish();
}

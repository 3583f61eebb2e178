//! The first reference incident with its full virtio queue, through the whole agent: one service
//! is throttled, one is refused a call by its filter, and one waits for a queue that a neighbour
//! has filled. Runs where [`super::stuck`] does.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, UdpSocket},
    path::PathBuf,
    thread,
    time::Duration,
};

use crate::{
    cgroup::Group,
    child,
    netns::Pair,
    stuck::{STILL, cards, stand_still},
    watch::turn,
    whole::{Agent, Plan, Service},
};

/// Uses a CPU for a while, of which its quota allows little.
const PAYMENT: &str =
    "work() { now; until=$((t + 1800000000)); while ((t < until)); do now; done; }";
/// Tries to connect, is refused, and tries again.
const SANDBOX: &str = "work() { for i in {1..12}; do { :; } 2>/dev/null 5<>/dev/tcp/::1/9; \
                       read -r -t 0.02 -u 3 nothing; done; }";
/// Asks over the wire.
const ORDER: &str = "exec 4<>/dev/tcp/$BANK; \
                     work() { printf x >&4; read -r -N 1 -u 4 answer; }; work";

/// Refuses connections with addresses of 28 bytes, which those of IPv6 have.
fn refuse_ipv6() -> std::io::Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let row = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut rows = [
        row(LOAD, 0, 0, 0), // seccomp_data.nr
        row(IF_EQUAL, 0, 3, libc::SYS_connect as u32),
        row(LOAD, 0, 0, 32), // the low half of its third argument
        row(IF_EQUAL, 0, 1, 28),
        row(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        row(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog {
        len: rows.len() as u16,
        filter: rows.as_mut_ptr(),
    };
    // SAFETY: plain numbers, and a filter that outlives the call.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const filter,
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

const BANK_PORT: u16 = 8_080;

/// The file by which a group is entered.
fn procs(group: &Group) -> Vec<PathBuf> {
    vec![group.path.join("cgroup.procs")]
}

#[test]
fn the_first_incident_with_its_full_queue() {
    let Some([one, other]) = cards() else {
        return;
    };
    let _turn = turn();
    let far = Pair::one_over([&one, &other]);
    let bank = far.enter(|| TcpListener::bind(("0.0.0.0", BANK_PORT)).unwrap());
    let receiver = far.enter(|| UdpSocket::bind("0.0.0.0:9000").unwrap());
    thread::spawn(move || {
        for client in bank.incoming() {
            let mut client = client.unwrap();
            let mut byte = [0];
            while client.read_exact(&mut byte).is_ok() {
                client.write_all(&byte).unwrap();
            }
        }
    });
    let agent = Agent::start("cpu,tcp,net,wait,seccomp,logs");

    let groups = [Group::new(), Group::new(), Group::new(), Group::new()];
    let [small, sandbox, usual, neighbour] = &groups;
    let payment = Plan {
        names: ["payment", "POST /pay"],
        work: PAYMENT,
        procs: procs(small),
        ..Plan::default()
    };
    let mut payment = Service::joined(&payment, &agent);
    let checkout = Plan {
        names: ["checkout", "POST /check"],
        work: SANDBOX,
        procs: procs(sandbox),
        before: Some(refuse_ipv6),
        ..Plan::default()
    };
    let mut checkout = Service::joined(&checkout, &agent);
    let order = Plan {
        names: ["order", "POST /order"],
        work: ORDER,
        told: vec![("BANK", format!("198.18.0.2/{BANK_PORT}"))],
        procs: procs(usual),
        ..Plan::default()
    };
    let mut order = Service::joined(&order, &agent);
    small.limit(10_000);
    // Until they are known as senders of spans.
    thread::sleep(Duration::from_secs(3));
    payment.go();
    payment.wait_for("done");
    checkout.go();
    checkout.wait_for("done");

    let sockets: Vec<UdpSocket> = (0..16)
        .map(|_| {
            let socket = UdpSocket::bind("198.18.0.1:0").unwrap();
            socket.connect(("198.18.0.2", 9_000)).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        })
        .collect();
    let flood = child::Child::start(neighbour, || {
        loop {
            for socket in &sockets {
                for _ in 0..8 {
                    // It is full now and then.
                    let _ = socket.send(&[0; 1_200]);
                }
            }
            thread::sleep(Duration::from_millis(5));
        }
    });
    thread::sleep(Duration::from_millis(2_500));
    stand_still(&sockets[0]);
    // What asks for it lies behind what is in the queue already.
    thread::sleep(Duration::from_secs(4));
    order.go();
    thread::sleep(STILL / 2);
    drop(flood);
    order.wait_for("done");
    drop(receiver);

    for (service, fault, cause) in [
        ("payment", "L-3", "cpu_throttle"),
        ("checkout", "L-4", "seccomp_denied"),
        ("order", "L-2", "virtqueue"),
    ] {
        let verdict = agent.verdict(service);
        assert_eq!(verdict["cause"], cause, "{verdict}");
        assert_eq!(verdict["fault"], fault, "{verdict}");
        if service == "order" {
            let evidence = &verdict["evidence"];
            // What the kernel's log said of it at the same time.
            let lines = evidence["log_virtio_net_tx_timeout_lines"].as_f64();
            assert!(lines >= Some(1.0), "{verdict}");
            let sensors = agent.get("/api/v1/sensors").unwrap();
            let knows_senders = !sensors.contains("who sends how much UDP");
            let culprit = verdict["culprit"].as_str().unwrap_or_default();
            assert_eq!(!culprit.is_empty(), knows_senders, "{verdict}");
        }
    }
    agent.finish();
}

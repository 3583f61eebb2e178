//! A transmit queue that stands still, against what the kernel counts of it. Runs in the guests of
//! `cargo xtask vm` only: there two virtio cards are joined by a wire that stops when it is asked.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    process,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use isostack_agent::{
    event::{Particulars, Slice},
    time::MonoNs,
    vocabulary::Cause,
};

use crate::{
    netns::Pair,
    watch::{Watch, of},
};

/// The addresses that `xtask/src/vm/wire.rs` gives the two cards.
const CARDS: [&str; 2] = ["52:54:00:69:73:01", "52:54:00:69:73:02"];
/// Longer than the watchdog of a network device, 5 s, and than it may take to look again.
pub const STILL: Duration = Duration::from_secs(13);

/// Of a network device, and what its timer is rounded by.
const WATCHDOG_NS: u64 = 6_000_000_000;
/// What is answered at once.
const QUICK: [u8; 1] = *b"x";
/// What is not answered at all.
const NOTE: [u8; 1] = *b"n";
/// What is answered late.
const SLOW: [u8; 1] = *b"s";
/// When that is answered; the queue has long moved on.
const SLOW_ANSWER: Duration = Duration::from_secs(8);

/// The name of the card with this address.
fn card(address: &str) -> Option<String> {
    let all = fs::read_dir("/sys/class/net").unwrap();
    all.filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .find(|name| {
            let file = format!("/sys/class/net/{name}/address");
            fs::read_to_string(file).is_ok_and(|text| text.trim() == address)
        })
}

/// Whether this is a guest, which is nobody else's.
pub fn in_a_guest() -> bool {
    card(CARDS[0]).is_some()
}

/// The names of the two cards; says why, where there is nothing to be tried with them.
pub fn cards() -> Option<[String; 2]> {
    let [Some(one), Some(other)] = CARDS.map(card) else {
        println!("cannot run here: no two virtio cards on a wire that can be stopped");
        return None;
    };
    let symbols = fs::read_to_string("/proc/kallsyms").unwrap();
    if !symbols.contains(" virtnet_tx_timeout") {
        println!("cannot run here: this kernel's virtio_net has no watchdog");
        return None;
    }
    Some([one, other])
}

/// Asks the wire to stop.
pub fn stand_still(socket: &UdpSocket) {
    let request = format!("isostack wire stands still ms={}", STILL.as_millis());
    // Something else may fill the queue already.
    while socket.send(request.as_bytes()).is_err() {
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn who_waited_for_a_stuck_virtqueue() {
    let Some([one, other]) = cards() else {
        return;
    };
    let watch = Watch::start(&["tcp", "net"]);
    // By another test, too.
    let earlier = fs::read_to_string(format!("/sys/class/net/{one}/queues/tx-0/tx_timeout"));
    let earlier: u64 = earlier.unwrap().trim().parse().unwrap();
    let pair = Pair::over([&one, &other]);
    let (device, to) = (&pair.a.device, pair.b.address);
    let listener = pair.b.enter(|| TcpListener::bind("0.0.0.0:0").unwrap());
    let address = SocketAddr::new(to.into(), listener.local_addr().unwrap().port());
    let mut client = pair.a.enter(|| TcpStream::connect(address).unwrap());
    let (mut server, _) = listener.accept().unwrap();
    let answers = thread::spawn(move || {
        let mut byte = [0];
        while server.read_exact(&mut byte).is_ok() {
            if byte == NOTE {
                continue;
            }
            if byte == SLOW {
                thread::sleep(SLOW_ANSWER);
            }
            server.write_all(&byte).unwrap();
        }
    });
    // As on a connection that is used all the time: what is read in the tick of a writing is not
    // seen to be read.
    let coarse = || rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    loop {
        client.write_all(&QUICK).unwrap();
        client.peek(&mut [0]).unwrap();
        let tick = coarse();
        client.write_all(&NOTE).unwrap();
        client.read_exact(&mut [0]).unwrap();
        if coarse() == tick {
            break;
        }
    }
    let mut ask = |what: [u8; 1]| {
        client.write_all(&what).unwrap();
        client.read_exact(&mut [0]).unwrap();
    };
    let sockets = pair.a.enter(|| {
        let sockets = (0..32).map(|_| UdpSocket::bind("0.0.0.0:0").unwrap());
        sockets.collect::<Vec<_>>()
    });
    // Takes what is sent, so that nothing is answered.
    let _receiver = pair.b.enter(|| UdpSocket::bind("0.0.0.0:9000").unwrap());
    for socket in &sockets {
        socket.connect((to, 9_000)).unwrap();
    }
    stand_still(&sockets[0]);
    thread::sleep(Duration::from_millis(200));
    // Until the ring is full, and nothing goes out any more.
    let full = AtomicBool::new(false);
    thread::scope(|scope| {
        for socket in &sockets {
            let full = &full;
            scope.spawn(move || {
                socket.set_nonblocking(true).unwrap();
                for _ in 0..200 {
                    if socket.send(&[0; 1_200]).is_err() {
                        full.store(true, Ordering::Relaxed);
                        return;
                    }
                }
            });
        }
    });
    assert!(full.load(Ordering::Relaxed), "there was room for all");
    let before = MonoNs::now().0;
    ask(SLOW);
    let after = MonoNs::now().0;
    ask(QUICK);
    let file = format!("/sys/class/net/{device}/queues/tx-0/tx_timeout");
    // That of the namespace: another view of /sys.
    let read = format!(
        "mount -t sysfs sys /mnt 2>/dev/null; cat /mnt{}",
        &file[4..]
    );
    let found = pair
        .a
        .run(&format!("mkdir -p /mnt; unshare -m bash -c '{read}'"));
    let found = found.trim().parse::<u64>().unwrap() - earlier;
    let counted = watch.counted();
    let name = "isostack_net_tx_timeouts";
    assert_eq!(counted.count(name, pair.a.inode(), 0), found);
    drop(client);
    answers.join().unwrap();
    let delays = watch.finish();
    assert!(found > 0, "the kernel found no queue stuck");
    let nobody = of(&delays, Cause::Virtqueue, 0);
    assert_eq!(nobody.len() as u64, found, "{nobody:?}");
    assert!(
        nobody.iter().all(|delay| delay.end > delay.start),
        "{nobody:?}"
    );
    let own = of(&delays, Cause::Virtqueue, process::id());
    let [wait] = &own[..] else {
        panic!("one wait: {own:?}");
    };
    // Ticks of the kernel's clock begin a little earlier.
    let tick = 10_000_000;
    assert!(
        before <= wait.start.0 + tick && wait.end.0 <= after && wait.end > wait.start,
        "{before} {after} {wait:?}"
    );
    let Particulars::Flow(flow) = &wait.particulars else {
        panic!("{wait:?}");
    };
    assert_eq!(
        (flow.slice, &flow.device),
        (Some(Slice::Paravirtual), device)
    );
    // Not as long as the other end took to answer after that: until the watchdog would have looked
    // once more.
    let found_last = nobody.iter().map(|delay| delay.end.0).max().unwrap();
    assert!(
        wait.end.0 <= found_last + WATCHDOG_NS + tick,
        "{found_last} {after} {wait:?}"
    );
    println!(
        "waited {} ms, of which {} ms are told; {found} times found stuck",
        (after - before) / 1_000_000,
        (wait.end.0 - wait.start.0) / 1_000_000
    );
}

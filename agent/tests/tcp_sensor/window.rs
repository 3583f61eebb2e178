//! Who does not read, and who cannot send for that, against the sockets' own books.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    os::fd::AsRawFd as _,
    thread,
    time::Duration,
};

use crate::{
    netns::Pair,
    traffic::{connect_to, listen, netstat, own_cgroup},
    watch::Watch,
};

const LIMITED: &str = "isostack_tcp_window_limited_seconds";
const CLOSED: &str = "isostack_tcp_zero_windows";

/// A connection whose server has room for little.
fn narrow(pair: &Pair) -> (TcpStream, TcpStream) {
    let (listener, address) = listen(&pair.b, pair.b.address.into());
    rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 16 << 10).unwrap();
    let client = connect_to(&pair.a, address).unwrap();
    (client, listener.accept().unwrap().0)
}

/// Takes what is there, which is all that there is room for, at times so far apart that the kernel
/// of who writes also fills what was left of the window (after 200 ms).
fn read_slowly(server: &mut TcpStream) {
    let mut taken = vec![0; 256 << 10];
    for _ in 0..8 {
        thread::sleep(Duration::from_millis(600));
        assert!(server.read(&mut taken).unwrap() > 0);
    }
}

#[test]
fn who_waits_for_the_other_ends_window_is_told_apart() {
    let watch = Watch::start(&["tcp"]);
    let (pair, own) = (Pair::new(), own_cgroup());
    let (mut client, mut server) = narrow(&pair);
    thread::scope(|scope| {
        scope.spawn(|| {
            read_slowly(&mut server);
            io::copy(&mut server, &mut io::sink()).unwrap();
            // In another tick than the client's last writing.
            thread::sleep(Duration::from_millis(50));
            server.write_all(b".").unwrap();
        });
        client.write_all(&vec![0; 8 << 20]).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        client.read_exact(&mut [0]).unwrap();
    });
    let truth_us = window_limited_us(&client);
    assert!(truth_us > 300_000, "the client waited {truth_us} us");
    let counted = watch.counted();
    let (sum_ns, _) = counted.histogram(LIMITED, pair.a.inode(), own);
    assert_eq!(sum_ns, truth_us * 1000, "of who writes");
    let (of_reader_ns, _) = counted.histogram(LIMITED, pair.b.inode(), own);
    assert_eq!(of_reader_ns, 0);
    watch.finish();
}

#[test]
fn a_reader_that_is_slow_closes_its_window() {
    let watch = Watch::start(&["tcp"]);
    let (pair, own) = (Pair::new(), own_cgroup());
    let (mut client, mut server) = narrow(&pair);
    let (truth, counted) = thread::scope(|scope| {
        // Until the server is gone.
        scope.spawn(move || client.write_all(&vec![0; 8 << 20]).unwrap_err());
        read_slowly(&mut server);
        let truth = netstat(&pair.b, "TCPToZeroWindowAdv");
        let counted = watch.counted();
        drop(server);
        (truth, counted)
    });
    assert!(truth >= 5, "the window was closed {truth} times");
    let closed = counted.count(CLOSED, pair.b.inode(), own);
    // The last one is counted when somebody reads.
    assert!(
        closed == truth || closed + 1 == truth,
        "{closed} counted of {truth}"
    );
    assert_eq!(counted.count(CLOSED, pair.a.inode(), own), 0);
    watch.finish();
}

/// Nobody is slow: a window that is never full is not told of.
#[test]
fn who_reads_at_once_closes_no_window() {
    let watch = Watch::start(&["tcp"]);
    let (pair, own) = (Pair::new(), own_cgroup());
    let (listener, address) = listen(&pair.b, pair.b.address.into());
    let mut client = connect_to(&pair.a, address).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    for _ in 0..200 {
        client.write_all(&[0; 1000]).unwrap();
        server.read_exact(&mut [0; 1000]).unwrap();
    }
    let counted = watch.counted();
    for space in [&pair.a, &pair.b] {
        assert_eq!(counted.count(CLOSED, space.inode(), own), 0);
        assert_eq!(counted.count(LIMITED, space.inode(), own), 0);
    }
    watch.finish();
}

/// `tcpi_rwnd_limited`, which libc's structure does not have.
fn window_limited_us(socket: &TcpStream) -> u64 {
    const AT: usize = 176;
    let mut info = [0_u8; 256];
    let mut length = info.len() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `info`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    assert!(
        length as usize >= AT + 8,
        "the kernel says only {length} bytes"
    );
    u64::from_ne_bytes(info[AT..AT + 8].try_into().unwrap())
}

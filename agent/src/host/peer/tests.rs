use std::net::{TcpListener, TcpStream};

use super::*;

fn finder() -> PeerFinder {
    PeerFinder::new(Roots::default(), Duration::from_secs(20))
}

fn me() -> ProcessKey {
    let dir = ProcDir::new(&Roots::default(), std::process::id());
    dir.key().unwrap()
}

#[test]
fn own_connections_over_both_families_and_mapped() {
    for (listen, connect) in [
        ("127.0.0.1:0", "127.0.0.1"),
        ("[::1]:0", "::1"),
        ("[::]:0", "127.0.0.1"),
    ] {
        let listener = TcpListener::bind(listen).unwrap();
        let port = listener.local_addr().unwrap().port();
        let stream = TcpStream::connect((connect, port)).unwrap();
        let (accepted, peer) = listener.accept().unwrap();
        let local = accepted.local_addr().unwrap();
        let finder = finder();
        let connection = Connection::Tcp { local, peer };
        for _ in 0..2 {
            assert_eq!(
                finder.find(&connection),
                Peer::Local(vec![me()]),
                "{listen}"
            );
        }
        drop(stream);
    }
}

#[test]
fn a_peer_that_no_socket_has_is_remote_and_a_dead_one_is_not_invented() {
    let connection = Connection::Tcp {
        local: "192.0.2.1:4317".parse().unwrap(),
        peer: "198.51.100.7:55555".parse().unwrap(),
    };
    assert_eq!(finder().find(&connection), Peer::Remote);
    let hasty = PeerFinder::new(Roots::default(), Duration::ZERO);
    assert_eq!(hasty.find(&connection), Peer::Vanished, "not looked for");
    assert_eq!(finder().find(&Connection::Unix { pid: 0 }), Peer::Vanished);
    let gone = Connection::Unix { pid: u32::MAX };
    assert_eq!(finder().find(&gone), Peer::Vanished);
    let pid = std::process::id();
    assert_eq!(
        finder().find(&Connection::Unix { pid }),
        Peer::Local(vec![me()])
    );
}

use std::time::Duration;

use isostack_agent::{
    host::{
        peer::{Peer, PeerFinder},
        roots::Roots,
    },
    otlp::Connection,
};

use crate::lab::{Net, Server, connecting, descendants, key, start};

pub fn finder() -> PeerFinder {
    PeerFinder::new(Roots::default(), Duration::from_secs(30))
}

#[test]
fn a_child_over_loopback_of_both_families() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let server = Server::on(address);
        let script = connecting(server.address(), "echo; read");
        let mut child = start("bash", &["-c", &script]);
        let (_stream, connection) = server.accept();
        let finder = finder();
        assert_eq!(
            finder.find(&connection),
            Peer::Local(vec![key(child.pid())])
        );
        // Again, now by what is remembered; then another process of the same address.
        assert_eq!(
            finder.find(&connection),
            Peer::Local(vec![key(child.pid())])
        );
        let other = start("bash", &["-c", &script]);
        let (_stream, connection) = server.accept();
        assert_eq!(
            finder.find(&connection),
            Peer::Local(vec![key(other.pid())])
        );
        child.send("end");
    }
}

#[test]
fn a_process_in_namespaces_of_its_own_behind_a_veth_pair() {
    let net = Net::new();
    let server = Server::on(&format!("{}:0", net.host_address));
    let script = connecting(server.address(), "read");
    let finder = finder();
    // The list of namespaces from before the process was there must not hide it.
    let nobody = Connection::Tcp {
        local: server.address(),
        peer: "198.51.100.1:9".parse().unwrap(),
    };
    assert_eq!(finder.find(&nobody), Peer::Remote);
    let unshare = ["unshare", "--fork", "--pid", "--mount-proc", "bash", "-c"];
    let mut args = vec!["netns", "exec", &net.name];
    args.extend(unshare);
    args.push(&script);
    let child = start("ip", &args);
    let (_stream, connection) = server.accept();
    let found = finder.find(&connection);
    let inner = *descendants(child.pid()).last().unwrap();
    assert_eq!(found, Peer::Local(vec![key(inner)]));
}

#[test]
fn a_sender_that_connected_to_a_service_address() {
    let net = Net::new();
    net.translate("203.0.113.5");
    let server = Server::on(&format!("{}:0", net.host_address));
    let mut service = server.address();
    service.set_ip("203.0.113.5".parse().unwrap());
    let script = connecting(service, "read");
    let child = start("ip", &["netns", "exec", &net.name, "bash", "-c", &script]);
    let (_stream, connection) = server.accept();
    // `ip netns exec` becomes the command.
    let expected = Peer::Local(vec![key(child.pid())]);
    assert_eq!(finder().find(&connection), expected);
}

#[test]
fn forked_workers_share_the_connection() {
    let server = Server::on("127.0.0.1:0");
    let script = connecting(server.address(), "sleep 600 & sleep 600 & echo; read");
    let mut child = start("bash", &["-c", &script]);
    let (_stream, connection) = server.accept();
    child.line();
    let mut all = descendants(child.pid());
    all.push(child.pid());
    all.sort_unstable();
    let all: Vec<_> = all.into_iter().map(key).collect();
    assert_eq!(all.len(), 3);
    let finder = finder();
    assert_eq!(finder.find(&connection), Peer::Local(all.clone()));
    assert_eq!(
        finder.find(&connection),
        Peer::Local(all),
        "by what is remembered"
    );
}

#[test]
fn a_sender_that_ended_is_nobody() {
    let server = Server::on("127.0.0.1:0");
    let mut child = start("bash", &["-c", &connecting(server.address(), "read")]);
    let (_stream, connection) = server.accept();
    child.kill();
    assert!(!matches!(finder().find(&connection), Peer::Local(_)));
}

#[test]
fn a_unix_sockets_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("otlp.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let _client = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let peer = rustix::net::sockopt::socket_peercred(&accepted).unwrap();
    let pid = peer.pid.as_raw_nonzero().get() as u32;
    let found = finder().find(&Connection::Unix { pid });
    assert_eq!(found, Peer::Local(vec![key(std::process::id())]));
}

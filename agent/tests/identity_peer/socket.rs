//! Services behind a collector, joined by the connections that their spans name.

use std::{net::SocketAddr, sync::Arc};

use isostack_agent::{
    join::Sender,
    otlp::{Connection, ends::Ends},
    process::ProcessKey,
    span::{Joined, Resource},
    vocabulary::Confidence,
};

use crate::{
    join::{Lab, lab, process, shop},
    lab::{Net, Running, Server, connecting, key, start},
};

/// An address that is nobody's, as a Service's is; set aside for documentation.
const SERVICE: &str = "203.0.113.9";

/// Two services' spans come over one connection.
struct Collector {
    sender: Arc<Sender>,
    _process: Running,
    _stream: std::net::TcpStream,
}

impl Collector {
    async fn start(lab: &Lab) -> Self {
        let receiver = Server::on("127.0.0.1:0");
        let collector = start("bash", &["-c", &connecting(receiver.address(), "read")]);
        let (stream, connection) = receiver.accept();
        let sender = lab.joiner.connected(connection);
        for name in ["one", "two"] {
            lab.resolve(&sender, &named(name)).await;
        }
        Self {
            sender,
            _process: collector,
            _stream: stream,
        }
    }

    async fn join(&self, lab: &Lab, resource: Resource, ends: Ends) -> Joined {
        lab.resolve_with(&self.sender, &Arc::new(resource), &[ends])
            .await
    }
}

fn named(service: &str) -> Arc<Resource> {
    Arc::new(Resource {
        service: service.to_owned(),
        ..Resource::default()
    })
}

/// A client in a network namespace of its own, which knows the server by its Service's address.
struct Call {
    net: Net,
    server: Server,
    service: SocketAddr,
    client: Running,
    /// As the server has it.
    accepted: Connection,
    _stream: std::net::TcpStream,
}

impl Call {
    fn start() -> Self {
        let net = Net::new();
        net.translate(SERVICE);
        let server = Server::on(&format!("{}:0", net.host_address));
        let mut service = server.address();
        service.set_ip(SERVICE.parse().unwrap());
        let client = calling(&net, service);
        let (stream, accepted) = server.accept();
        Self {
            net,
            server,
            service,
            client,
            accepted,
            _stream: stream,
        }
    }

    fn ends(&self) -> (SocketAddr, SocketAddr) {
        let Connection::Tcp { local, peer } = self.accepted else {
            unreachable!("accepted over TCP");
        };
        (local, peer)
    }
}

fn calling(net: &Net, service: SocketAddr) -> Running {
    let script = connecting(service, "read");
    start("ip", &["netns", "exec", &net.name, "bash", "-c", &script])
}

fn by_socket(key: ProcessKey) -> (Option<ProcessKey>, Confidence) {
    (Some(key), Confidence::Socket)
}

const UNKNOWN: (Option<ProcessKey>, Confidence) = (None, Confidence::Host);

#[tokio::test(flavor = "multi_thread")]
async fn client_and_server_with_an_address_that_is_translated_between_them() {
    let lab = lab();
    let collector = Collector::start(&lab).await;
    let call = Call::start();
    let client = Ends {
        remote: Some(call.service),
        ..Ends::default()
    };
    let joined = collector.join(&lab, shop(), client).await;
    assert_eq!(process(&joined), by_socket(key(call.client.pid())));

    let (own, remote) = call.ends();
    let server = Ends {
        own: Some(own.ip()),
        own_port: Some(own.port()),
        remote: Some(remote),
        is_server: true,
    };
    let joined = collector.join(&lab, shop(), server).await;
    assert_eq!(process(&joined), by_socket(key(std::process::id())));
    // The connection is over; who accepted it still listens.
    let over = Ends {
        remote: Some(SocketAddr::new(remote.ip(), 1)),
        ..server
    };
    let joined = collector.join(&lab, shop(), over).await;
    assert_eq!(process(&joined), by_socket(key(std::process::id())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_is_one_processes_and_what_two_have_is_nobodys() {
    let lab = lab();
    let collector = Collector::start(&lab).await;
    let call = Call::start();
    let client = Ends {
        remote: Some(call.service),
        ..Ends::default()
    };
    let second = calling(&call.net, call.service);
    let (_stream, Connection::Tcp { peer, .. }) = call.server.accept() else {
        unreachable!("accepted over TCP");
    };
    let joined = collector.join(&lab, shop(), client).await;
    assert_eq!(process(&joined), UNKNOWN, "two processes call it");
    let exact = Ends {
        own: Some(peer.ip()),
        own_port: Some(peer.port()),
        ..client
    };
    let joined = collector.join(&lab, shop(), exact).await;
    assert_eq!(process(&joined), by_socket(key(second.pid())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_not_believed_against_what_is_known() {
    let lab = lab();
    let call = Call::start();
    let client = Ends {
        remote: Some(call.service),
        ..Ends::default()
    };
    let collector = Collector::start(&lab).await;
    let lies = [
        Resource {
            pid: Some(4_000_000),
            ..shop()
        },
        Resource {
            pod_uid: "5ca1ab1e-0000-4000-8000-00000000f00d".into(),
            ..shop()
        },
        Resource {
            node: "another-node".into(),
            ..shop()
        },
    ];
    for lie in lies {
        let joined = collector.join(&lab, lie.clone(), client).await;
        assert_eq!(process(&joined), UNKNOWN, "{lie:?}");
    }
    // Who sends its own spans only is itself, whatever connection it names.
    let receiver = Server::on("127.0.0.1:0");
    let sender = start("bash", &["-c", &connecting(receiver.address(), "read")]);
    let (_stream, connection) = receiver.accept();
    let itself = lab.joiner.connected(connection);
    let joined = lab
        .resolve_with(&itself, &Arc::new(shop()), &[client])
        .await;
    let own = (Some(key(sender.pid())), Confidence::Process);
    assert_eq!(process(&joined), own);
    let lie = Resource {
        pod_uid: "5ca1ab1e-0000-4000-8000-00000000f00d".into(),
        ..shop()
    };
    let joined = lab.resolve_with(&itself, &Arc::new(lie), &[client]).await;
    assert_eq!(process(&joined), UNKNOWN);
}

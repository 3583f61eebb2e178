//! Connections across a pair of namespaces, and what their sockets say of themselves.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    thread::JoinHandle,
};

use isostack_agent::{
    host::{identify::Identifier, roots::Roots},
    metrics::AgentMetrics,
};

use crate::netns::{Pair, Space};

/// A client in `a` whose data a thread of `b` swallows.
pub struct Connection {
    pub client: TcpStream,
    server: Option<JoinHandle<()>>,
}

impl Connection {
    pub fn new(pair: &Pair) -> Self {
        let (listener, address) = listen(&pair.b, pair.b.address.into());
        let client = connect_to(&pair.a, address).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        // Answers each message, a length and as many bytes, with one byte.
        let server = std::thread::spawn(move || {
            let mut length = [0; 8];
            while server.read_exact(&mut length).is_ok() {
                let mut message = (&server).take(u64::from_be_bytes(length));
                io::copy(&mut message, &mut io::sink()).unwrap();
                server.write_all(b".").unwrap();
            }
        });
        Self {
            client,
            server: Some(server),
        }
    }

    /// Sends so many bytes; they have arrived when it returns.
    pub fn send(&mut self, bytes: usize) {
        let mut message = bytes.to_be_bytes().to_vec();
        message.resize(message.len() + bytes, 0);
        for chunk in message.chunks(16 << 10) {
            self.client.write_all(chunk).unwrap();
        }
        self.client.read_exact(&mut [0]).unwrap();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        drop(self.client.shutdown(std::net::Shutdown::Both));
        if let Some(server) = self.server.take() {
            drop(server.join());
        }
    }
}

impl Space {
    /// From now on every `n`th TCP packet that comes in is lost.
    pub fn lose_every(&self, n: u32) {
        self.run(&format!(
            "iptables -A INPUT -p tcp -m statistic --mode nth --every {n} --packet 0 -j DROP"
        ));
    }

    /// What goes out fares as on a link that `tc-netem` describes so; why not, where the
    /// kernel has no such discipline.
    pub fn emulate(&self, link: &str) -> Result<(), String> {
        let device = &self.device;
        let said = self.run(&format!(
            "tc qdisc add dev {device} root netem {link} 2>&1 || true"
        ));
        if said.is_empty() { Ok(()) } else { Err(said) }
    }

    /// What goes out queues for a link of this rate.
    pub fn limit_rate(&self, rate: &str, queue_bytes: u32) {
        let device = &self.device;
        self.run(&format!(
            "tc qdisc add dev {device} root tbf rate {rate} burst 5000 limit {queue_bytes}"
        ));
    }
}

pub fn listen(space: &Space, address: IpAddr) -> (TcpListener, SocketAddr) {
    let listener = space.enter(|| TcpListener::bind((address, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    (listener, address)
}

pub fn connect_to(space: &Space, address: SocketAddr) -> io::Result<TcpStream> {
    space.enter(|| TcpStream::connect(address))
}

/// One byte there and back, ten times.
pub fn ping_pong(client: &mut TcpStream, server: &mut TcpStream) {
    let mut byte = [0];
    for _ in 0..10 {
        client.write_all(b"x").unwrap();
        server.read_exact(&mut byte).unwrap();
        server.write_all(b"x").unwrap();
        client.read_exact(&mut byte).unwrap();
    }
}

/// What the kernel says of the socket.
pub fn tcp_info(socket: &TcpStream) -> libc::tcp_info {
    // SAFETY: all zero is a valid `tcp_info` of integers; the kernel writes at most `length`
    // bytes of it.
    unsafe {
        let mut info: libc::tcp_info = std::mem::zeroed();
        let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
        let result = libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        );
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        info
    }
}

/// A number of `TcpExt` in a namespace's `/proc/net/netstat`.
pub fn netstat(space: &Space, name: &str) -> u64 {
    let text = space.run("cat /proc/net/netstat");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    let (_, value) = pairs.find(|(n, _)| *n == name).unwrap();
    value.parse().unwrap()
}

/// Round trip of the only established connection in `a`, milliseconds.
pub fn rtt_by_ss(pair: &Pair) -> Option<f64> {
    let shown = pair.a.run("ss -tinH state established");
    let (_, rest) = shown.split_once(" rtt:")?;
    rest.split_once('/')?.0.parse().ok()
}

/// The cgroup that this process is in.
pub fn own_cgroup() -> u64 {
    let identifier = Identifier::new(Roots::default(), AgentMetrics::default());
    identifier.identify(std::process::id()).unwrap().cgroup_id
}

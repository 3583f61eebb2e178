//! Children, listeners and network namespaces that clean up after themselves.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use isostack_agent::{
    host::{proc::ProcDir, roots::Roots},
    otlp::Connection,
    process::ProcessKey,
};

/// A child in a process group of its own, all of which ends with the value.
pub struct Running {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

/// Starts a command with pipes on stdin and stdout.
pub fn start(program: &str, args: &[&str]) -> Running {
    use std::os::unix::process::CommandExt;
    let mut child = Command::new(program)
        .args(args)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}; is it installed?"));
    let output = BufReader::new(child.stdout.take().unwrap());
    Running { child, output }
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line it prints.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "it ended after {line:?}");
        line.trim_end().to_owned()
    }

    pub fn send(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().unwrap();
        writeln!(input, "{line}").unwrap();
    }

    pub fn kill(&mut self) {
        let group = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A shell script that connects descriptor 3 to the address, then goes on with `then`.
pub fn connecting(to: SocketAddr, then: &str) -> String {
    format!("exec 3<>/dev/tcp/{}/{}; {then}", to.ip(), to.port())
}

/// A listener in the agent's place.
pub struct Server(TcpListener);

impl Server {
    pub fn on(address: &str) -> Self {
        Self(TcpListener::bind(address).unwrap())
    }

    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// The next connection, as the agent's socket has it.
    pub fn accept(&self) -> (TcpStream, Connection) {
        let (stream, peer) = self.0.accept().unwrap();
        let local = stream.local_addr().unwrap();
        (stream, Connection::Tcp { local, peer })
    }
}

/// A network namespace joined to this one by a veth pair.
pub struct Net {
    pub name: String,
    pub host_address: String,
}

impl Net {
    pub fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests need root"
        );
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let unique = std::process::id() % 10_000 * 4 + n;
        let net = Self {
            name: format!("isoid{unique}"),
            // 198.18.0.0/15 is set aside for tests.
            host_address: format!("198.18.{}.{}", unique / 64 % 256, unique % 64 * 4 + 1),
        };
        let own_address = format!("198.18.{}.{}", unique / 64 % 256, unique % 64 * 4 + 2);
        let (name, host) = (&*net.name, format!("{}/30", net.host_address));
        let (outer, inner) = (format!("{name}h"), format!("{name}n"));
        let (outer, inner) = (&*outer, &*inner);
        ip(&["netns", "add", name]);
        ip(&[
            "link", "add", outer, "type", "veth", "peer", "name", inner, "netns", name,
        ]);
        ip(&["address", "add", &host, "dev", outer]);
        ip(&["link", "set", outer, "up"]);
        ip(&[
            "-n",
            name,
            "address",
            "add",
            &format!("{own_address}/30"),
            "dev",
            inner,
        ]);
        ip(&["-n", name, "link", "set", inner, "up"]);
        net
    }

    /// Sends what goes to `service` to the host's end instead, as kube-proxy does.
    pub fn translate(&self, service: &str) {
        let name = &*self.name;
        ip(&[
            "-n",
            name,
            "route",
            "add",
            "default",
            "via",
            &self.host_address,
        ]);
        ip(&[
            "netns",
            "exec",
            name,
            "iptables",
            "-t",
            "nat",
            "-A",
            "OUTPUT",
            "-d",
            service,
            "-p",
            "tcp",
            "-j",
            "DNAT",
            "--to-destination",
            &self.host_address,
        ]);
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        // The pair goes with either end.
        let _ = Command::new("ip")
            .args(["link", "del", &format!("{}h", self.name)])
            .status();
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

fn ip(args: &[&str]) {
    let done = Command::new("ip").args(args).output().unwrap();
    let error = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "ip {args:?}: {error}");
}

pub fn key(pid: u32) -> ProcessKey {
    ProcDir::new(&Roots::default(), pid).key().unwrap()
}

/// Host pids of a process's children, all generations.
pub fn descendants(pid: u32) -> Vec<u32> {
    let children = ProcDir::new(&Roots::default(), pid).children().unwrap();
    let deeper = children.iter().flat_map(|pid| descendants(*pid));
    children.iter().copied().chain(deeper).collect()
}

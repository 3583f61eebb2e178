//! The chain: four services in three languages, each on a stage of its own.
//!
//! `front` (Java, a thread for each request) in a plain cgroup; `orders` (JavaScript, an
//! event loop) in a bubblewrap sandbox with a seccomp filter; `store` (Python, a thread for
//! each connection, SQLite) in a runc container with a seccomp filter; `rates` (Python), which only
//! the slow path asks, in a gVisor sandbox.

mod container;

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
    process::Command,
};

use anyhow::Context as _;
use harness::{guardian::Guardian, peers, process::Process, service::wrap, wait};

use crate::{group::Groups, network::Network};

/// The port that each of them listens on, at its own address.
pub const PORT: u16 = 8080;

/// A service of the chain, in its order.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// Java, one thread for each request.
    Front,
    /// JavaScript, an event loop, in a sandbox.
    Orders,
    /// Python and SQLite, in a container.
    Store,
    /// Python in gVisor; not there where that does not run.
    Rates,
}

impl Service {
    /// All, from the client's side on.
    pub const ALL: [Self; Self::COUNT] = [Self::Front, Self::Orders, Self::Store, Self::Rates];
    /// How many.
    pub const COUNT: usize = 4;

    /// Its name: `service.name`, network namespace and query parameter.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Front => "front",
            Self::Orders => "orders",
            Self::Store => "store",
            Self::Rates => "rates",
        }
    }

    /// Its cgroup below the lab's.
    #[must_use]
    pub const fn group(self) -> &'static str {
        match self {
            Self::Front => "shop/front",
            Self::Orders => "shop/orders",
            Self::Store => "data/store",
            Self::Rates => "data/rates",
        }
    }

    /// The layer that refuses system calls here.
    #[must_use]
    pub const fn filter_layer(self) -> &'static str {
        match self {
            Self::Front => "",
            Self::Orders | Self::Rates => "L-4",
            Self::Store => "L-3",
        }
    }
}

/// What a service needs to be started.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// Cgroups.
    pub groups: &'a Groups,
    /// Namespaces.
    pub network: &'a Network,
    /// `HOST:PORT` of the agent's gRPC receiver, as seen from the namespaces.
    pub otlp_grpc: &'a str,
    /// Of its HTTP receiver.
    pub otlp_http: &'a str,
    /// `HOST:PORT` of the server without spans.
    pub peer: &'a str,
    /// A folder on a disk, for the database and for what the services are started with.
    pub dir: &'a Path,
    /// `rates` runs.
    pub has_rates: bool,
}

/// A running service.
#[derive(Debug)]
pub struct Running {
    /// The service's own process (not the launcher's), as the host sees it.
    pub pid: u32,
    /// The launcher, or the service itself.
    pub process: Process,
    _guardian: Option<Guardian>,
}

/// Starts a service and waits until it listens.
///
/// # Errors
/// When something of it cannot be had or it does not start.
pub fn start(service: Service, site: &Site<'_>) -> anyhow::Result<Running> {
    match service {
        Service::Front => front(site),
        Service::Orders => orders(site),
        Service::Store => container::store(site),
        Service::Rates => container::rates(site),
    }
}

fn address(site: &Site<'_>, service: Service) -> String {
    format!("{}:{PORT}", site.network.place(service.name()).address)
}

fn environment(command: &mut Command, service: Service, endpoint: &str) {
    command
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{endpoint}"))
        .env("OTEL_SERVICE_NAME", service.name());
}

fn front(site: &Site<'_>) -> anyhow::Result<Running> {
    let dir = peers::java()?;
    let class_path = format!("{0}:{0}/lib/*", dir.display());
    let mut java = Command::new("java");
    java.args(["-XX:+UseSerialGC", "-Xmx192m", "-cp", &class_path, "Front"]);
    java.arg(address(site, Service::Front))
        .arg(address(site, Service::Orders));
    environment(&mut java, Service::Front, site.otlp_http);
    java.env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        .env("OTEL_BSP_SCHEDULE_DELAY", "200")
        .env("OTEL_METRICS_EXPORTER", "none")
        .env("OTEL_LOGS_EXPORTER", "none");
    let place = site.network.place(Service::Front.name());
    let process = listening(Service::Front, wrap(&place.exec(), java), site)?;
    found(process, "java", None)
}

fn orders(site: &Site<'_>) -> anyhow::Result<Running> {
    peers::need("bwrap")?;
    let filter = site.dir.join("filter.bpf");
    write_filter(&filter)?;
    let mut node = Command::new("node");
    node.arg(peers::node()?.join("orders.mjs"))
        .arg(address(site, Service::Orders))
        .arg(address(site, Service::Store))
        .arg(site.peer);
    environment(&mut node, Service::Orders, site.otlp_http);
    let filter = filter.display().to_string();
    let sandbox = [
        "sh",
        "-c",
        "exec 9<\"$0\"; exec \"$@\"",
        &filter,
        "bwrap",
        "--dev-bind",
        "/",
        "/",
        "--proc",
        "/proc",
        "--unshare-pid",
        "--unshare-ipc",
        "--die-with-parent",
        "--seccomp",
        "9",
    ];
    let place = site.network.place(Service::Orders.name());
    let command = wrap(&place.exec(), wrap(&sandbox, node));
    let process = listening(Service::Orders, command, site)?;
    found(process, "node", None)
}

/// What both filters refuse: every way to change an owner.
const REFUSED: [&str; 4] = ["chown", "fchown", "lchown", "fchownat"];

/// The filter as bubblewrap takes it: those calls return EPERM.
fn write_filter(path: &Path) -> anyhow::Result<()> {
    #[cfg(target_arch = "x86_64")]
    let calls = [
        libc::SYS_chown,
        libc::SYS_fchown,
        libc::SYS_lchown,
        libc::SYS_fchownat,
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let calls = [libc::SYS_fchown, libc::SYS_fchownat];
    let (load, equal, give) = (
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
        libc::BPF_RET | libc::BPF_K,
    );
    let mut rows: Vec<(u32, u8, u32)> = vec![(load, 0, 0)];
    for (at, call) in calls.iter().enumerate() {
        let to_refusal = (calls.len() - at) as u8;
        rows.push((equal, to_refusal, *call as u32));
    }
    rows.push((give, 0, libc::SECCOMP_RET_ALLOW));
    rows.push((give, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32));
    let mut file = File::create(path).with_context(|| path.display().to_string())?;
    for (code, if_true, k) in rows {
        file.write_all(&(code as u16).to_ne_bytes())?;
        file.write_all(&[if_true, 0])?;
        file.write_all(&k.to_ne_bytes())?;
    }
    Ok(())
}

fn listening(service: Service, mut command: Command, site: &Site<'_>) -> anyhow::Result<Process> {
    let procs = site.groups.procs(service.group());
    let mut process = Process::start_in(service.name(), &mut command, &procs)?;
    process.wait_for_line("listening ")?;
    Ok(process)
}

/// The service below its launcher.
fn found(process: Process, comm: &str, guardian: Option<Guardian>) -> anyhow::Result<Running> {
    let pid = wait::until(comm, wait::PATIENCE, || descendant(process.pid(), comm))?;
    Ok(Running {
        pid,
        process,
        _guardian: guardian,
    })
}

/// The deepest process below `pid` (or itself) whose `comm` begins so.
fn descendant(pid: u32, comm: &str) -> Option<u32> {
    let own = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    let mut children = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        children.extend(text.split_whitespace().flat_map(str::parse::<u32>));
    }
    children
        .into_iter()
        .find_map(|child| descendant(child, comm))
        .or_else(|| own.starts_with(comm).then_some(pid))
}

//! Typed kernel events as they enter the pipeline: decoded, not yet attributed.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use crate::{process::ProcessKey, time::MonoNs, vocabulary::Cause};

/// The cgroup whose CPU quota holds another (or itself) back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limiter {
    /// Inode of its directory.
    pub cgroup_id: u64,
    /// Path below the hierarchy's mount.
    pub cgroup_path: String,
    /// Its quota in CPUs: quota / period.
    pub cores: f64,
    /// The file in that directory that sets it: another one in each cgroup version.
    #[serde(deserialize_with = "limit_file")]
    pub quota_file: LimitFile,
    /// The limiting group is an ancestor of the victim's own.
    pub is_ancestor: bool,
}

/// The name of a file that holds a limit, one of [`LIMIT_FILES`].
pub type LimitFile = &'static str;

/// The files that hold limits, of both cgroup versions: the agent's own words, so a recording
/// may name no other.
pub const LIMIT_FILES: &[&str] = &[
    "cpu.max",
    "cpu.cfs_quota_us",
    "memory.high",
    "memory.max",
    "memory.limit_in_bytes",
];

fn limit_file<'de, D: Deserializer<'de>>(deserializer: D) -> Result<LimitFile, D::Error> {
    let name = String::deserialize(deserializer)?;
    let known = LIMIT_FILES.iter().find(|file| **file == name);
    known.copied().ok_or_else(|| {
        D::Error::custom(format_args!(
            "no limit is set in a file of the name `{name}`"
        ))
    })
}

/// A memory limit that a cgroup runs into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryLimit {
    /// Path of the limited group below the hierarchy's mount.
    pub cgroup_path: String,
    /// The limit in bytes.
    pub bytes: u64,
    /// The file in that directory that sets it, e.g. `memory.high`.
    #[serde(deserialize_with = "limit_file")]
    pub file: LimitFile,
    /// The limited group is an ancestor of the victim's own.
    pub is_ancestor: bool,
}

/// Where a flow leaves the place that the process lives in, from the process outwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Slice {
    /// veth, bridge.
    Container,
    /// virtio-net, vhost, netback.
    Paravirtual,
    /// tap, Open vSwitch.
    Vmm,
    /// SR-IOV virtual function.
    VirtualFunction,
    /// Physical network card.
    Physical,
    /// Beyond this host: its own devices are clean.
    Beyond,
}

impl Slice {
    /// Every slice, from the process outwards.
    pub const ALL: &'static [Self] = &[
        Self::Container,
        Self::Paravirtual,
        Self::Vmm,
        Self::VirtualFunction,
        Self::Physical,
        Self::Beyond,
    ];
}

/// A block device.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Disk {
    /// Its name, e.g. `vda`.
    pub name: String,
    /// A virtio or xen device.
    pub paravirtual: bool,
}

/// A network device or flow, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Flow {
    /// Where it leaves; `None` where not known.
    pub slice: Option<Slice>,
    /// The device, e.g. `eth0`; empty where not known.
    pub device: String,
    /// For a drop: the kernel's reason, e.g. `NO_SOCKET`, or [`Flow::TX_TIMEOUT`]; empty otherwise.
    pub reason: String,
}

impl Flow {
    /// In place of a reason: nothing was dropped, but a transmit queue of a device that is not
    /// paravirtual stood still.
    pub const TX_TIMEOUT: &str = "TX_TIMEOUT";
}

/// A system call and what a filter did to it, or in which a thread is blocked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SystemCall {
    /// Its name, e.g. `openat`.
    pub name: String,
    /// For a refusal: the filter's action, e.g. `errno`; empty otherwise.
    pub action: String,
}

impl SystemCall {
    /// In place of a name: the thread was in none. It touched memory that is a page of a file, and
    /// waited until that was read.
    pub const MAJOR_FAULT: &str = "page fault";

    /// Whether it is a major fault instead.
    #[must_use]
    pub fn is_major_fault(&self) -> bool {
        self.name == Self::MAJOR_FAULT
    }
}

/// Who had what somebody else waited for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Neighbour {
    /// Inode of its cgroup's directory.
    pub cgroup_id: u64,
    /// Path of that below the hierarchy's mount; empty where not known.
    #[serde(default)]
    pub cgroup_path: String,
    /// What a person calls it.
    pub name: String,
}

/// A thread waited for a CPU while one was idle that it may not use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Confinement {
    /// How many CPUs its cpuset and affinity leave it.
    pub cpus: u32,
}

/// Why a virtual CPU left guest mode.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VmExit {
    /// The architecture's name of the reason, e.g. `EPT_VIOLATION`.
    pub reason: String,
    /// An EPT or NPT violation.
    pub nested_page_fault: bool,
}

/// What is known of a delay beside its time. Cheap to clone: many delays share one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Particulars {
    /// Nothing.
    #[default]
    None,
    /// Of `cpu_throttle`, not attributed yet: inode of the cgroup whose quota held the thread
    /// back, 0 when the kernel did not say.
    QuotaOf(u64),
    /// Of `cpu_throttle`: that cgroup.
    Limiter(Arc<Limiter>),
    /// Of `runqueue`, not attributed yet: inode of the cgroup that had the CPU meanwhile.
    CpuWentTo(u64),
    /// Of `runqueue`: that cgroup.
    Neighbour(Arc<Neighbour>),
    /// Of `runqueue`, where no other cgroup had the CPU.
    Confined(Confinement),
    /// Of `memory_reclaim` and `oom_kill`.
    Memory {
        /// A memory cgroup was at its limit, not the host.
        memcg: bool,
        /// That limit, once attributed and where it can be found.
        limit: Option<Arc<MemoryLimit>>,
        /// What had been pushed out to the swap space was read again; nothing was freed.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_swap_in: bool,
    },
    /// Of `block_*`.
    Disk(Arc<Disk>),
    /// Of `tcp_*`, `net_drop`, `virtqueue`, `conntrack`.
    Flow(Arc<Flow>),
    /// Of `seccomp_denied`, `lock_wait`, `sleep`, `socket_wait`.
    SystemCall(Arc<SystemCall>),
    /// Of `kvm_exit`.
    VmExit(Arc<VmExit>),
}

impl Particulars {
    /// Whether nothing is known.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// The cgroup whose quota it was.
    #[must_use]
    pub const fn limiter(&self) -> Option<&Arc<Limiter>> {
        match self {
            Self::Limiter(limiter) => Some(limiter),
            _ => None,
        }
    }
}

/// A stretch of time that a thread lost (or, for `on_cpu`, used), or something that happened
/// to it at one moment (a refusal, a drop, a kill).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delay {
    /// The mechanism.
    pub cause: Cause,
    /// First nanosecond.
    pub start: MonoNs,
    /// One past the last nanosecond; `start` for what has no length.
    pub end: MonoNs,
    /// The process that suffered.
    pub process: ProcessKey,
    /// Thread id as the host sees it; 0 where not known.
    pub tid: u32,
    /// CPU on which it ended.
    pub cpu: u32,
    /// Cgroup of the thread in the CPU controller's hierarchy.
    pub cgroup_id: u64,
    /// More about it.
    #[serde(default, skip_serializing_if = "Particulars::is_none")]
    pub particulars: Particulars,
}

/// One thread's answer on a connection that its process accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// The process.
    pub process: ProcessKey,
    /// Who wrote, as the host sees it.
    pub tid: u32,
    /// When it had begun to read the request; `written` where it did not read it.
    pub read: MonoNs,
    /// When it wrote; of a long answer there may be several.
    pub written: MonoNs,
    /// It read what it answered, and worked on nothing else meanwhile.
    pub is_whole: bool,
}

/// A wait of one thread for an answer on a connection that its process made, known to be for one
/// request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// The process.
    pub process: ProcessKey,
    /// Who read the answer, as the host sees it.
    pub tid: u32,
    /// When the thread had begun to read the request, see [`Turn::read`].
    pub request: MonoNs,
    /// When it wrote what it asked, or began to connect.
    pub start: MonoNs,
    /// When it began to read the answer.
    pub end: MonoNs,
}

/// What a thread worked on, as its program says: half of its trace id and its span id, all zero
/// where it worked on none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadContext {
    /// The second half of the trace id, which is the random one.
    pub trace: [u8; 8],
    /// The span id.
    pub span: [u8; 8],
    /// The span id is not that of the application's own span.
    #[serde(default)]
    pub is_trace_only: bool,
}

impl ThreadContext {
    /// Whether the thread worked on no span.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.trace == [0; 8] && self.span == [0; 8]
    }
}

/// A stretch in which a thread was off the CPU, and what it was working on when that began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Away {
    /// The process.
    pub process: ProcessKey,
    /// The thread, as the host sees it.
    pub tid: u32,
    /// When it left the CPU.
    pub start: MonoNs,
    /// When it got one again.
    pub end: MonoNs,
    /// What it was working on.
    pub context: ThreadContext,
}

/// Time that the hypervisor took from one CPU between two polls of `/proc/stat`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steal {
    /// The CPU.
    pub cpu: u32,
    /// The poll before.
    pub start: MonoNs,
    /// This poll.
    pub end: MonoNs,
    /// Nanoseconds stolen in between.
    pub stolen_ns: u64,
}

/// Events that were lost, nobody knows of whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// None was lost before, as far as the last look tells.
    pub start: MonoNs,
    /// This look.
    pub end: MonoNs,
    /// How many.
    pub events: u64,
}

/// A time in which a sensor tells less than it could, as it costs too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saving {
    /// The sensor's id, one of [`agent_common::event::sensor`].
    pub sensor: u32,
    /// From then on.
    pub start: MonoNs,
    /// Until then, if nothing is said of it again.
    pub end: MonoNs,
}

/// What several may want at once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// A block device; consumed in microseconds that I/O is under way, added up over all of it.
    Disk(Arc<Disk>),
    /// Memory of the host, or below the limit of a memory cgroup; in pages freed for it.
    Memory {
        /// A memory cgroup was at its limit, not the host.
        memcg: bool,
    },
    /// The network from this slice on, `None` where that is not known; in UDP datagrams.
    Network(Option<Slice>),
    /// The host's own loopback, which nothing that leaves it waits for; in UDP datagrams.
    Loopback,
}

/// What one cgroup consumed of a resource in a short stretch of time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Consumption {
    /// Of what.
    pub resource: Resource,
    /// First nanosecond.
    pub start: MonoNs,
    /// One past the last nanosecond; `start` for what was at one moment.
    pub end: MonoNs,
    /// How much, see [`Resource`].
    pub amount: u64,
    /// Inode of the consumer's cgroup in the CPU controller's hierarchy; 0 where not known.
    pub cgroup_id: u64,
    /// Who that is, once attributed and where it can be found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<Arc<Neighbour>>,
}

/// What the sensors tell the pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// See [`Delay`].
    Delay(Delay),
    /// See [`Steal`].
    Steal(Steal),
    /// See [`Turn`].
    Turn(Turn),
    /// See [`Ask`].
    Ask(Ask),
    /// See [`Away`].
    Away(Away),
    /// See [`Consumption`].
    Consumption(Consumption),
    /// See [`Loss`].
    Loss(Loss),
    /// See [`Saving`].
    Saving(Saving),
}

/// Somebody is no longer what he was looked at as. Not for the pipeline: whoever keeps what he
/// was looked at as wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The process runs another program, or is in another cgroup.
    Process {
        /// Who.
        process: ProcessKey,
        /// Inode of its cgroup now; of a move in whichever hierarchy that was.
        cgroup_id: u64,
    },
    /// A cgroup with this inode was removed, in whichever hierarchy.
    GroupRemoved(u64),
    /// Changes were lost: it may be anybody.
    Anybody,
}

//! Single events as they lie in the ring buffer: `repr(C)`, no `bool`, no enum, no implicit
//! padding, so that every byte written by the kernel side means something to the reader.
//!
//! Every sensor writes the same [`Record`]; what its `kind`, `detail` and `extra` mean is
//! said in the module of the sensor's name.

pub mod block;
pub mod context;
pub mod cpu;
pub mod kvm;
pub mod memory;
pub mod net;
pub mod process;
pub mod seccomp;
pub mod tcp;
pub mod wait;

/// Which sensor wrote an event; the first four bytes of every record. Pinned by hand, never
/// reused.
pub mod sensor {
    /// CPU throttling and run-queue delay, [`super::cpu`].
    pub const CPU: u32 = 1;
    /// TCP connections, [`super::tcp`].
    pub const TCP: u32 = 2;
    /// Packet drops and stuck devices, [`super::net`].
    pub const NET: u32 = 3;
    /// Block I/O, [`super::block`].
    pub const BLOCK: u32 = 4;
    /// System calls refused by a filter, [`super::seccomp`].
    pub const SECCOMP: u32 = 5;
    /// Reclaim and out-of-memory kills, [`super::memory`].
    pub const MEMORY: u32 = 6;
    /// Blocked threads, [`super::wait`].
    pub const WAIT: u32 = 7;
    /// Virtual CPUs out of guest mode, [`super::kvm`].
    pub const KVM: u32 = 8;
    /// Log lines; never in the ring buffer.
    pub const LOGS: u32 = 9;
    /// Which span a thread works on, [`super::context`].
    pub const CONTEXT: u32 = 10;
    /// Processes that are no longer what they were, [`super::process`].
    pub const PROCESS: u32 = 11;
    /// Length of a per-sensor table: one past the highest id.
    pub const COUNT: u32 = 12;
}

/// Something that happened to one thread, one process or one cgroup.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// One of [`sensor`].
    pub sensor: u32,
    /// What happened: one of the sensor's `KIND_` constants.
    pub kind: u32,
    /// First nanosecond, `CLOCK_MONOTONIC`.
    pub start_ns: u64,
    /// One past the last nanosecond, `CLOCK_MONOTONIC`; `start_ns` for what has no length.
    pub end_ns: u64,
    /// Inode of the cgroup that suffered, in the CPU controller's hierarchy unless the sensor
    /// says otherwise.
    pub cgroup_id: u64,
    /// More about it, by kind.
    pub detail: u64,
    /// Start of the thread group's leader, nanoseconds since boot; 0 with `pid` 0.
    pub leader_start_boottime_ns: u64,
    /// Thread group id as the host sees it; 0 where only the cgroup is known.
    pub pid: u32,
    /// Thread id as the host sees it; 0 where it is not known.
    pub tid: u32,
    /// CPU on which it ended.
    pub cpu: u32,
    /// Still more about it, by kind.
    pub extra: u32,
}

const _: () = assert!(size_of::<Record>() == 64 && align_of::<Record>() == 8);

#[cfg(feature = "user")]
// SAFETY: `repr(C)` of plain integers without padding (asserted above): any bytes are a
// valid value and every byte is initialised.
unsafe impl aya::Pod for Record {}

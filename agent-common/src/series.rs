//! What is aggregated in the kernel for `/metrics`: one counter or histogram for each cgroup
//! and each combination of a metric's own labels.
//!
//! (The `cpu` sensor, which counts at every context switch, has tables of its own:
//! [`crate::cpu`].)

/// Which counter or histogram.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesKey {
    /// Inode of the cgroup's directory; 0 for what belongs to no cgroup.
    pub cgroup_id: u64,
    /// One of [`family`].
    pub family: u32,
    /// First label, as a number that the family gives a meaning.
    pub a: u32,
    /// Further labels, likewise.
    pub b: u64,
}

const _: () = assert!(size_of::<SeriesKey>() == 24 && align_of::<SeriesKey>() == 8);

/// The metrics. Pinned by hand: the sensor's id times 16, and a number.
pub mod family {
    // tcp
    /// Histogram of smoothed round trips; `b`: device id of the flow.
    pub const TCP_RTT: u32 = 2 * 16;
    /// Histogram of connection set-ups; `b` likewise.
    pub const TCP_CONNECT: u32 = 2 * 16 + 1;
    /// Counter of segments sent again; `b` likewise.
    pub const TCP_RETRANSMITS: u32 = 2 * 16 + 2;
    /// Counter of resets sent and received; `b` likewise.
    pub const TCP_RESETS: u32 = 2 * 16 + 3;
    /// Counter of connections that could not be set up; `b` likewise.
    pub const TCP_CONNECT_FAILURES: u32 = 2 * 16 + 4;
    /// Histogram of time in which the other end's window let nothing be sent; `b` likewise.
    pub const TCP_WINDOW_LIMITED: u32 = 2 * 16 + 5;
    /// Counter of times that a window was closed as the process had not read; `b` likewise.
    pub const TCP_ZERO_WINDOWS: u32 = 2 * 16 + 6;
    /// Counter of connections that a listening socket did not take; `b`: device id of no device,
    /// of which the network namespace counts only.
    pub const TCP_LISTEN_DROPS: u32 = 2 * 16 + 7;

    // net
    /// Counter of packets dropped; `a`: `enum skb_drop_reason`, `b`: device id.
    pub const NET_DROPS: u32 = 3 * 16;
    /// Counter of transmit queues found stuck; `b` likewise.
    pub const NET_TX_TIMEOUTS: u32 = 3 * 16 + 1;
    /// Counter of UDP datagrams sent; `b` likewise.
    pub const NET_UDP_SENDS: u32 = 3 * 16 + 2;

    // block
    /// Histogram of time in the block layer; `a`: the disk, major number * 2^20 + minor; `b`:
    /// operation + 256 * phase, both of [`crate::event::block`]. The cgroup is the I/O
    /// controller's.
    pub const BLOCK: u32 = 4 * 16;

    // seccomp
    /// Counter of refused system calls; `a`: [`crate::event::seccomp`] action, `b`: number of
    /// the system call, with [`crate::event::wait::COMPAT`] in it for a 32-bit one.
    pub const SECCOMP_DENIALS: u32 = 5 * 16;

    // memory
    /// Histogram of reclaim; `a`: 0 for the host, 1 for the limit of a memory cgroup, 2 for
    /// being put to sleep above `memory.high`.
    pub const MEMORY_RECLAIM: u32 = 6 * 16;
    /// Counter of kills; `a`: 1 for the limit of a memory cgroup, 0 for the host.
    pub const OOM_KILLS: u32 = 6 * 16 + 1;

    // wait
    /// Histogram of blocked time; `a`: one of the `KIND_` constants of [`crate::event::wait`].
    pub const WAIT: u32 = 7 * 16;

    // kvm
    /// Histogram of time out of guest mode; `a`: the reason, `b`: one of the `ISA_` constants
    /// of [`crate::event::kvm`].
    pub const KVM_EXIT: u32 = 8 * 16;
}

#[cfg(feature = "user")]
// SAFETY: `repr(C)` of integers without padding (asserted above): any bytes are a valid value.
unsafe impl aya::Pod for SeriesKey {}

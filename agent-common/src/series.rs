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

    // net

    // block

    // seccomp
    /// Counter of refused system calls; `a`: [`crate::event::seccomp`] action, `b`: number of
    /// the system call, with [`crate::event::wait::COMPAT`] in it for a 32-bit one.
    pub const SECCOMP_DENIALS: u32 = 5 * 16;

    // memory
    /// Histogram of reclaim; `a`: 1 for the memory cgroup's limit, 0 for the host's.
    pub const MEMORY_RECLAIM: u32 = 6 * 16;
    /// Counter of kills; `a` likewise.
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

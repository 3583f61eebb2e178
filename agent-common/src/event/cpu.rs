//! What the `cpu` sensor says of one stretch of one thread's time.

/// [`CpuEvent::kind`]: runnable, held back by a quota.
pub const KIND_THROTTLED: u32 = 1;
/// [`CpuEvent::kind`]: runnable, waiting for a CPU.
pub const KIND_RUNQUEUE: u32 = 2;
/// [`CpuEvent::kind`]: running.
pub const KIND_ON_CPU: u32 = 3;

/// One stretch of time of one thread.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuEvent {
    /// [`super::sensor::CPU`].
    pub sensor: u32,
    /// One of the `KIND_` constants.
    pub kind: u32,
    /// First nanosecond, `CLOCK_MONOTONIC`.
    pub start_ns: u64,
    /// One past the last nanosecond, `CLOCK_MONOTONIC`.
    pub end_ns: u64,
    /// Inode of the thread's cgroup in the CPU controller's hierarchy.
    pub cgroup_id: u64,
    /// Inode of the cgroup whose quota held it back; 0: not throttled, or not known.
    pub limiter_cgroup_id: u64,
    /// Start of the thread group's leader, nanoseconds since boot.
    pub leader_start_boottime_ns: u64,
    /// Thread group id as the host sees it.
    pub pid: u32,
    /// Thread id as the host sees it.
    pub tid: u32,
    /// CPU of the switch that ended the stretch.
    pub cpu: u32,
    /// Always 0.
    pub pad: u32,
}

const _: () = assert!(size_of::<CpuEvent>() == 64 && align_of::<CpuEvent>() == 8);

#[cfg(feature = "user")]
// SAFETY: `repr(C)` of plain integers without padding (asserted above): any bytes are a
// valid value and every byte is initialised.
unsafe impl aya::Pod for CpuEvent {}

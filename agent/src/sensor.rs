//! What every sensor has in common: its name, its state, its reasons.

use serde::Serialize;

/// Whether a sensor works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SensorState {
    /// By its primary hook.
    On,
    /// By a fallback; `loses` says what that costs.
    Reduced,
    /// Not at all; `reason` says why.
    Off,
}

/// One line of `doctor` and of `/api/v1/sensors`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SensorStatus {
    /// `cpu`, `tcp`, ...
    pub name: &'static str,
    /// See [`SensorState`].
    pub state: SensorState,
    /// The hook in use, e.g. `tp_btf/sched_switch`; empty when off.
    pub hook: String,
    /// Why it is reduced or off; empty when on.
    pub reason: String,
    /// What that loses; empty when on.
    pub loses: String,
    /// What would fix it; empty when on.
    pub fix: String,
}

/// A histogram as the kernel side keeps it: log2 slots of nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelHistogram {
    /// `slots[i]` counts values below `2^(FIRST_SLOT_LOG2_NS + i)` ns that no lower slot
    /// counts; the last one counts all the rest.
    pub slots: Vec<u64>,
    /// Sum of all values in nanoseconds, exact.
    pub sum_ns: u64,
}

/// Upper bound of the first slot: 2^10 ns, about a microsecond.
pub const FIRST_SLOT_LOG2_NS: u32 = 10;

/// What the `cpu` sensor counted for one cgroup since the agent started (monotonic).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupCpu {
    /// Inode of the cgroup's directory.
    pub cgroup_id: u64,
    /// Single throttled intervals.
    pub throttled: KernelHistogram,
    /// Waits for a CPU, throttle time subtracted.
    pub runqueue: KernelHistogram,
}

/// The sensors of the design, in the order in which they are shown.
pub const NAMES: &[&str] = &[
    "cpu", "tcp", "net", "block", "seccomp", "memory", "wait", "kvm", "logs",
];

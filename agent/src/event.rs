//! Typed kernel events as they enter the pipeline: decoded, not yet attributed.

use std::sync::Arc;

use crate::{process::ProcessKey, time::MonoNs, vocabulary::Cause};

/// The cgroup whose CPU quota holds another (or itself) back.
#[derive(Clone, Debug, PartialEq)]
pub struct Limiter {
    /// Inode of its directory.
    pub cgroup_id: u64,
    /// Path below the hierarchy's mount.
    pub cgroup_path: String,
    /// Its quota in CPUs: quota / period.
    pub cores: f64,
    /// The file in that directory that sets it: another one in each cgroup version.
    pub quota_file: &'static str,
    /// The limiting group is an ancestor of the victim's own.
    pub is_ancestor: bool,
}

/// A stretch of time that a thread lost (or, for `on_cpu`, used).
#[derive(Clone, Debug, PartialEq)]
pub struct Delay {
    /// The mechanism.
    pub cause: Cause,
    /// First nanosecond.
    pub start: MonoNs,
    /// One past the last nanosecond.
    pub end: MonoNs,
    /// The process that suffered.
    pub process: ProcessKey,
    /// Thread id as the host sees it.
    pub tid: u32,
    /// CPU on which it ended.
    pub cpu: u32,
    /// Cgroup of the thread in the CPU controller's hierarchy.
    pub cgroup_id: u64,
    /// For `cpu_throttle`: the cgroup whose quota held it back, 0 when the kernel did not say.
    pub limiter_cgroup_id: u64,
    /// For `cpu_throttle`: that cgroup, once attributed.
    pub limiter: Option<Arc<Limiter>>,
}

/// Time that the hypervisor took from one CPU between two polls of `/proc/stat`.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// What the sensors tell the pipeline.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// See [`Delay`].
    Delay(Delay),
    /// See [`Steal`].
    Steal(Steal),
}

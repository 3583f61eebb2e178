//! What names a process beyond the reuse of its pid, and what is known about it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{stack::Stack, workload::Workload};

/// A process (thread group) for as long as the host runs: the pid in the agent's pid
/// namespace and the start time, so that a reused pid is another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessKey {
    /// Thread group id as the host sees it.
    pub pid: u32,
    /// Start time in clock ticks (1/100 s) since boot: field 22 of `/proc/PID/stat`,
    /// `task_struct.group_leader.start_boottime / 10_000_000` in the kernel.
    pub start_ticks: u64,
}

/// What the agent knows about a process: found once, at first sight, from `/proc`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The process.
    pub process: ProcessKey,
    /// `comm`, at most 15 bytes, lossily decoded: not to be trusted, escape on output.
    pub comm: String,
    /// Inode of the directory in the hierarchy that the CPU controller is on.
    pub cgroup_id: u64,
    /// Path of that cgroup below its mount, e.g. `/kubepods/burstable/pod.../...`.
    pub cgroup_path: String,
    /// What a person calls it.
    pub workload: Workload,
    /// The isolation layers around it, innermost first.
    pub stack: Stack,
}

/// Shared, as one identity stands behind many spans and events.
pub type SharedIdentity = Arc<Identity>;

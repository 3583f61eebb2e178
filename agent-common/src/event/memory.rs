//! What the `memory` sensor says of a thread that had to free memory, or was killed for it.

/// The thread freed memory because the host ran short of it.
pub const KIND_DIRECT_RECLAIM: u32 = 1;
/// The thread freed memory because a memory cgroup was at its limit (`memory.high` or
/// `memory.max`, its own or an ancestor's).
pub const KIND_MEMCG_RECLAIM: u32 = 2;
/// The thread was put to sleep because its cgroup, or an ancestor, was above `memory.high`.
pub const KIND_HIGH_SLEEP: u32 = 4;
/// The process was chosen by the out-of-memory killer; `extra` is 1 if a memory cgroup was at
/// its limit, 0 if the host was.
pub const KIND_OOM_KILL: u32 = 3;

//! What the `cpu` sensor says of one stretch of one thread's time.

/// Runnable, held back by a quota; `detail` is the inode of the cgroup whose quota it was,
/// 0 where not known.
pub const KIND_THROTTLED: u32 = 1;
/// Runnable, waiting for a CPU; `detail` is the inode of the cgroup that had most of it
/// meanwhile, 0 where that was idle; `extra` is the number of CPUs that the thread may use, if it
/// may not use one that was idle meanwhile, else 0.
pub const KIND_RUNQUEUE: u32 = 2;
/// Running.
pub const KIND_ON_CPU: u32 = 3;

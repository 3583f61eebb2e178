//! What the `process` sensor says of a process that is no longer what it was looked at as.

/// The process runs another program.
pub const KIND_EXEC: u32 = 1;
/// The process, or one of its threads, was moved to the cgroup `cgroup_id`, in whichever
/// hierarchy.
pub const KIND_MOVED: u32 = 2;
/// The cgroup `cgroup_id` was removed, in whichever hierarchy; `pid` is 0.
pub const KIND_GROUP_REMOVED: u32 = 3;

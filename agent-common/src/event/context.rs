//! What the `context` sensor says of a stretch in which a thread of a process that publishes its
//! threads' contexts was off the CPU: which span it was working on when it left.
//!
//! `detail` is the span id and `cgroup_id` the second half of the trace id, both as they lie in
//! memory; 0 where there is none.

/// The thread was off the CPU.
pub const KIND_AWAY: u32 = 1;

/// Of `extra`: the context could not be read, as its memory was not there just then.
pub const UNREADABLE: u32 = 1;
/// Of `extra`: only the trace id is the application's own.
pub const TRACE_ONLY: u32 = 2;

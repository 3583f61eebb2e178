//! What the `seccomp` sensor says of a system call that a filter refused. `detail` is its
//! number, with [`super::wait::COMPAT`] in it for a 32-bit one; `extra` is the action.

/// A filter refused a system call.
pub const KIND_DENIED: u32 = 1;

/// Action: it returned an error (`SECCOMP_RET_ERRNO`), or was decided by a tracer or another
/// process (`TRACE`, `USER_NOTIF`).
pub const ACTION_ERRNO: u32 = 1;
/// Action: the thread got a signal (`SECCOMP_RET_TRAP`).
pub const ACTION_TRAP: u32 = 2;
/// Action: the thread or process was ended (`SECCOMP_RET_KILL_*`).
pub const ACTION_KILL: u32 = 3;

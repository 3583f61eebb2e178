//! What the `wait` sensor says of a stretch in which a thread was blocked. `detail` is the
//! number of the system call it was in, [`NO_CALL`] outside of one (a page fault).

/// In `futex` and its kin.
pub const KIND_LOCK: u32 = 1;
/// In `nanosleep` and its kin.
pub const KIND_SLEEP: u32 = 2;
/// Waiting for a socket or a pipe, alone or among many.
pub const KIND_SOCKET: u32 = 3;
/// Waiting for a disk.
pub const KIND_DISK: u32 = 4;
/// Waiting for memory.
pub const KIND_MEMORY: u32 = 5;
/// In another system call.
pub const KIND_OTHER: u32 = 6;
/// It touched memory that is in the swap space, and waits until that is read.
pub const KIND_SWAP_IN: u32 = 7;
/// It touched memory that is a page of a file, and waits until that is read.
pub const KIND_MAJOR_FAULT: u32 = 8;
/// Likewise, of a page that was in memory not long ago and had to go (`CONFIG_PSI`).
pub const KIND_REFAULT: u32 = 9;

/// Not in a system call.
pub const NO_CALL: u64 = u64::MAX;
/// Set in the number of a system call of a 32-bit program, whose numbers are others.
pub const COMPAT: u64 = 1 << 32;
/// Length of the table that gives the kind of each system call, by its number.
pub const MAX_CALLS: u32 = 512;
/// In that table: the kind is that of the file that the first argument stands for.
pub const BY_FILE: u32 = 100;

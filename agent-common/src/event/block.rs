//! What the `block` sensor says of a thread's I/O: in `detail` the disk (major number *
//! 2^20 + minor), in `extra` the operation.

/// The thread waited for I/O that a limit (`io.max`, `blkio.throttle.*`) held back.
pub const KIND_THROTTLE: u32 = 1;
/// Its I/O waited for the device: for a free request, then in the I/O scheduler.
pub const KIND_QUEUE: u32 = 2;
/// The device worked on it.
pub const KIND_DEVICE: u32 = 3;

/// Operations, as labels have them. Numbers up to 254 are the kernel's `REQ_OP_`; those
/// without a name here are `other`.
pub mod operation {
    /// `REQ_OP_READ`.
    pub const READ: u32 = 0;
    /// `REQ_OP_WRITE`.
    pub const WRITE: u32 = 1;
    /// `REQ_OP_FLUSH`, and a write of nothing that asks for a flush.
    pub const FLUSH: u32 = 2;
    /// `REQ_OP_DISCARD`.
    pub const DISCARD: u32 = 3;
}

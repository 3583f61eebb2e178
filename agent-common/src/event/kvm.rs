//! What the `kvm` sensor says of a stretch in which a virtual CPU was out of guest mode.
//! `detail` is the reason as the processor numbers it; `extra` is one of the `ISA_` constants,
//! which says whose numbers they are.

/// Out of guest mode, from an exit to the next entry.
pub const KIND_EXIT: u32 = 1;

/// Intel's (`EXIT_REASON_*`).
pub const ISA_VMX: u32 = 1;
/// AMD's (`SVM_EXIT_*`).
pub const ISA_SVM: u32 = 2;
/// Arm's exception classes (`ESR_ELx_EC_*`).
pub const ISA_ARM64: u32 = 3;
/// Not of a processor: [`HALT_POLL`] and [`HALT_WAIT`].
pub const ISA_NONE: u32 = 0;

/// The host's thread spun for a wake-up of its halted virtual CPU.
pub const HALT_POLL: u32 = 1;
/// It slept.
pub const HALT_WAIT: u32 = 2;

/// Length of the table that says where the reason of an exit is.
pub const LAYOUT_LEN: u32 = 4;
/// In that table: one of the `ISA_` constants.
pub const LAYOUT_ISA: u32 = 0;
/// In that table: one of the `REASON_` constants.
pub const LAYOUT_REASON: u32 = 1;
/// In that table: index of the argument that is the reason or the virtual CPU, plus 256
/// times the offset of the first member.
pub const LAYOUT_FIRST: u32 = 2;
/// In that table: offset of the second member.
pub const LAYOUT_SECOND: u32 = 3;

/// The argument itself is the reason.
pub const REASON_ARGUMENT: u32 = 1;
/// A member of what the argument points to.
pub const REASON_MEMBER: u32 = 2;
/// A member of what a member of what the argument points to points to.
pub const REASON_POINTED: u32 = 3;

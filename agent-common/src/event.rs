//! Single events as they lie in the ring buffer: `repr(C)`, no `bool`, no enum, no implicit
//! padding, so that every byte written by the kernel side means something to the reader.

pub mod cpu;

/// Which sensor wrote an event; the first four bytes of every record. Pinned by hand, never
/// reused.
pub mod sensor {
    /// Payload [`super::cpu::CpuEvent`].
    pub const CPU: u32 = 1;
    /// Length of a per-sensor table: one past the highest id.
    pub const COUNT: u32 = 2;
}

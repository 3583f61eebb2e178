//! What the `net` sensor says. `detail` is always the
//! [`device_id`](crate::device::device_id) of the device concerned, 0 where there is none.

/// A packet was dropped; `extra` is the kernel's `enum skb_drop_reason`.
pub const KIND_DROP: u32 = 1;
/// A transmit queue of the device was stuck, from its last transmission until the kernel's
/// watchdog found it so; `extra` is its number.
pub const KIND_TX_TIMEOUT: u32 = 2;
/// From the drop of a segment of data on the process's connection until it was sent again, or
/// until the process could read it; `extra` as of [`KIND_DROP`].
pub const KIND_DROP_WAIT: u32 = 3;
/// From when the process sent on a connection through a queue that was stuck, until it used the
/// connection again and the queue had moved on; `extra` is the queue's number.
pub const KIND_STUCK_WAIT: u32 = 4;

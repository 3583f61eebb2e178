//! What the `net` sensor says. `detail` is always the
//! [`device_id`](crate::device::device_id) of the device concerned, 0 where there is none.

/// A packet was dropped; `extra` is the kernel's `enum skb_drop_reason`.
pub const KIND_DROP: u32 = 1;
/// A transmit queue of the device was stuck; `extra` is its number.
pub const KIND_TX_TIMEOUT: u32 = 2;

//! What the `tcp` sensor says of a connection of one process. `detail` is always the
//! [`device_id`](crate::device::device_id) of the device that the flow leaves through.

/// From the SYN to the established connection; `extra` is 1 if it was not established.
pub const KIND_CONNECT: u32 = 1;
/// From the first sending of a lost segment, as near as the kernel's timers tell, to its
/// retransmission; `extra` is 1 if the retransmission timer had to expire.
pub const KIND_RETRANSMIT: u32 = 2;
/// What the smoothed round trip is longer than the shortest, up to the moment when the
/// process used the connection.
pub const KIND_RTT: u32 = 3;

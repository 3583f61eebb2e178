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
/// A thread of a tracked process answered on a connection that was accepted: from its first
/// reading of the request to this writing. `detail` tells connections apart and has no other
/// meaning; `extra` holds `TURN_` bits.
pub const KIND_TURN: u32 = 4;
/// A thread of a tracked process waited for an answer on a connection that was not accepted: from
/// its first writing, or from when it began to connect, to its first reading. `detail` is the `start_ns` that
/// [`KIND_TURN`] would have of the request for which it asked: when it had begun to read that.
pub const KIND_ASK: u32 = 5;

/// Of `extra`: the thread had read another request since, or had one unanswered when it read
/// this one, or did so a moment ago: it works on several at once.
pub const TURN_INTERLEAVED: u32 = 1;
/// Of `extra`: what is answered was not read by this thread, or not as far as is known;
/// `start_ns` is `end_ns`.
pub const TURN_NOT_READ: u32 = 2;

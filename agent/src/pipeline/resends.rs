//! What waits for a packet that was refused: the refusal takes no time, the wait until the
//! packet is sent again does. That wait is told as a retransmission or as a connection that
//! takes long; where the thread's own packet was refused as it began, the reason is known.
//!
//! Only connection tracking counts here: it refuses nothing but first packets of connections,
//! so that what waits is never somebody else's. A packet dropped for any other reason may be
//! one of many, whose loss costs no time.

use std::mem::take;

use crate::vocabulary::Cause;

/// Between the refusal and the beginning of the wait for it. The wait is told by the timer
/// that ended it, which runs in ticks of the kernel's clock: 10 ms where that is slowest.
const SLACK_NS: u64 = 10_000_000;

/// Finds them; kept from span to span to save allocations.
#[derive(Debug, Default)]
pub struct Resends {
    /// `(thread, time)`.
    refused: Vec<(u32, u64)>,
    /// `(thread, start, end)`.
    waits: Vec<(u32, u64, u64)>,
}

impl Resends {
    /// Takes what a thread of the span met from `start` to `end`.
    pub fn note(&mut self, cause: Cause, tid: u32, (start, end): (u64, u64)) {
        match cause {
            Cause::Conntrack => self.refused.push((tid, start)),
            Cause::TcpRetransmit | Cause::TcpConnect => self.waits.push((tid, start, end)),
            _ => {}
        }
    }

    /// The waits that began with a refusal, from it on, by thread; forgets what was noted.
    pub fn waits(&mut self) -> Vec<(u32, (u64, u64))> {
        let mut refused = take(&mut self.refused);
        let mut waits = take(&mut self.waits);
        refused.sort_unstable();
        let wait = |(tid, start, end): &(u32, u64, u64)| {
            let from = start.saturating_sub(SLACK_NS);
            let first = refused.partition_point(|one| *one < (*tid, from));
            let (of, at) = *refused.get(first)?;
            (of == *tid && at < *end).then_some((of, (at.max(*start), *end)))
        };
        let found = waits.iter().filter_map(wait).collect();
        refused.clear();
        waits.clear();
        (self.refused, self.waits) = (refused, waits);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn waits(of: &[(Cause, u32, u64, u64)]) -> Vec<(u64, u64)> {
        let mut resends = Resends::default();
        for (cause, tid, start, end) in of {
            resends.note(*cause, *tid, (start * MS, end * MS));
        }
        let found = resends.waits();
        assert_eq!(resends.waits(), [], "forgotten");
        found
            .iter()
            .map(|(tid, (start, end))| {
                assert_eq!(*tid, 7);
                (start / MS, end / MS)
            })
            .collect()
    }

    #[test]
    fn the_wait_for_a_refused_packet_is_the_refusals() {
        use Cause::{Conntrack, NetDrop, SocketWait, TcpConnect, TcpRetransmit};
        let refused = |tid, at| (Conntrack, tid, at, at);
        // Two SYNs of one connection, the second sent after a second, the third after two.
        assert_eq!(
            waits(&[
                refused(7, 1004),
                (TcpRetransmit, 7, 1000, 3000),
                refused(7, 2),
                (TcpRetransmit, 7, 0, 1000),
            ]),
            [(1004, 3000), (2, 1000)]
        );
        // The timer's beginning is known to a tick only; a whole connect begins before.
        assert_eq!(
            waits(&[refused(7, 995), (TcpConnect, 7, 1000, 1200)]),
            [(1000, 1200)]
        );
        assert_eq!(
            waits(&[refused(7, 1500), (TcpConnect, 7, 0, 3000)]),
            [(1500, 3000)]
        );
        for other in [
            [refused(8, 1001), (TcpRetransmit, 7, 1000, 3000)],
            [refused(7, 900), (TcpRetransmit, 7, 1000, 3000)],
            [refused(7, 3000), (TcpRetransmit, 7, 1000, 3000)],
            [(NetDrop, 7, 1001, 1001), (TcpRetransmit, 7, 1000, 3000)],
            [refused(7, 1001), (SocketWait, 7, 1000, 3000)],
        ] {
            assert_eq!(waits(&other), [], "{other:?}");
        }
    }
}

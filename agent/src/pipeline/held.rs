//! What the local devices held up, where somebody waited for it: from the drop of a segment until
//! it was sent again or read (`net_drop`), from a request into a stuck transmit queue until its
//! answer (`virtqueue`; of other devices, `net_drop`).
//!
//! The kernel side tells those by connection, and a thread may do anything else meanwhile. So only
//! what lies in the same thread's own waits for a socket counts: who computed, or waited for a
//! lock, was not held up by the network. Of an event loop with several requests it is not known
//! whose connection it was, and nobody's wait is explained by it.

use super::{
    place::Place,
    retries::Stretch,
    scope::Scope,
    timeline::{Entry, Timeline},
};
use crate::{process::Identity, vocabulary::Cause};

/// Such waits of one span that are looked at.
const MAX_HELD: usize = 256;

/// Finds them; kept from span to span to save allocations.
#[derive(Debug, Default)]
pub struct Held(Vec<(u32, Stretch)>);

impl Held {
    /// Takes what the span met, if it is such a wait: it then counts by [`Held::stretches`] only.
    pub fn takes(&mut self, entry: &Entry) -> bool {
        let is = matches!(entry.cause, Cause::NetDrop | Cause::Virtqueue);
        if is && entry.end > entry.start && self.0.len() < MAX_HELD {
            let stretch = Stretch {
                cause: entry.cause,
                start: entry.start,
                end: entry.end,
            };
            self.0.push((entry.tid, stretch));
        }
        is
    }

    /// The parts that were waited for; forgets what was noted. Looks at the span's delays a second
    /// time, which is seldom needed.
    pub fn stretches(
        &mut self,
        scope: &Scope,
        timeline: &Timeline,
        identity: &Identity,
        place: Place,
    ) -> Vec<Stretch> {
        let mut stretches = Vec::new();
        if self.0.is_empty() || scope.is_loop_in_company() {
            self.0.clear();
            return stretches;
        }
        scope.delays(timeline, identity, place, &mut |entry, _| {
            if entry.cause != Cause::SocketWait {
                return;
            }
            let own = self.0.iter().filter(|(tid, _)| *tid == entry.tid);
            let parts = own.map(|(_, held)| Stretch {
                start: held.start.max(entry.start),
                end: held.end.min(entry.end),
                ..*held
            });
            stretches.extend(parts.filter(|part| part.end > part.start));
        });
        self.0.clear();
        stretches
    }
}

//! What held packets up, where somebody waited for it: from the drop of a segment until it was
//! sent again or came (`net_drop`; `conntrack` where connection tracking refused it), from a
//! request into a stuck transmit queue until its answer (`virtqueue`; of other devices,
//! `net_drop`), from the sending of a segment until it was sent again (`tcp_retransmit`) or came late (`tcp_rtt`).
//!
//! The kernel side tells those by connection, and a thread may do anything else meanwhile: who
//! computed, or waited for a lock, was not held up by the network. So what the local devices did
//! counts only where the same thread waited for a socket; of an event loop with several requests
//! only while it waited for what it asked for this one, and if that is not known, nobody's wait is
//! explained by it. A segment that was lost or late further away is known by its connection alone,
//! and does not count while a thread that is known to have worked for the span, or the loop that
//! did, was busy; of a loop only while it waited for what it asked for this request, where that is
//! known.

use super::{
    place::Place,
    retries::Stretch,
    scope::Scope,
    timeline::{Entry, Timeline},
};
use crate::{process::Identity, vocabulary::Cause};

/// Parts of one span's that are found; a thread that waits so often has other troubles.
const MAX_PARTS: usize = 1 << 16;

/// A time of a thread, and what was held up in it.
#[derive(Clone, Debug)]
struct One<T> {
    tid: u32,
    start: u64,
    end: u64,
    what: T,
}

/// What is to be cut to what was waited for; kept from span to span to save allocations.
#[derive(Debug)]
pub struct Held<T> {
    /// Counts where its thread waited for a socket.
    waiting: Vec<One<T>>,
    /// Counts where its thread is not known to have done something else.
    idle: Vec<One<T>>,
}

impl<T> Default for Held<T> {
    fn default() -> Self {
        Self {
            waiting: Vec::new(),
            idle: Vec::new(),
        }
    }
}

impl<T: Clone> Held<T> {
    /// Takes what the span met, if it is such a wait: it then counts by [`Held::parts`] only.
    pub fn takes(&mut self, scope: &Scope, entry: &Entry, what: impl FnOnce() -> T) -> bool {
        let list = match entry.cause {
            Cause::NetDrop | Cause::Virtqueue | Cause::Conntrack => &mut self.waiting,
            Cause::TcpRetransmit | Cause::TcpRtt if is_of_one_thread(scope) => &mut self.idle,
            _ => return false,
        };
        // A moment takes no time, and says only that it was.
        if entry.end > entry.start {
            let what = what();
            for (start, end) in scope.while_asking(entry.start, entry.end) {
                list.push(One {
                    tid: entry.tid,
                    start,
                    end,
                    what: what.clone(),
                });
            }
        }
        true
    }

    /// Takes a time of a thread in which it may have waited for a segment to be sent again.
    pub fn resent(&mut self, tid: u32, (start, end): (u64, u64), what: T) {
        self.idle.push(One {
            tid,
            start,
            end,
            what,
        });
    }

    /// The parts that were waited for; forgets what was taken. Looks at the span's delays a second
    /// time, which is seldom needed.
    pub fn parts(
        &mut self,
        scope: &Scope,
        timeline: &Timeline,
        identity: &Identity,
        place: Place,
    ) -> Vec<(T, u64, u64)> {
        let mut parts = Vec::new();
        if scope.is_loop_in_company() && !scope.knows_asks() {
            self.waiting.clear();
        }
        if self.waiting.is_empty() && self.idle.is_empty() {
            return parts;
        }
        let (mut waits, mut others) = (Times::default(), Times::default());
        scope.delays(
            timeline,
            identity,
            place,
            &mut |entry, _| match entry.cause {
                Cause::SocketWait => waits.add(entry),
                Cause::OnCpu
                | Cause::Runqueue
                | Cause::LockWait
                | Cause::Sleep
                | Cause::BlockDevice
                | Cause::BlockQueue
                    if is_of_one_thread(scope) =>
                {
                    others.add(entry);
                }
                _ => {}
            },
        );
        waits.settle();
        others.settle();
        for one in self.waiting.drain(..) {
            let within = waits.within(one.tid, one.start, one.end);
            let left = MAX_PARTS.saturating_sub(parts.len());
            parts.extend(within.take(left).map(|(s, e)| (one.what.clone(), s, e)));
        }
        for one in self.idle.drain(..) {
            let mut from = one.start;
            let left = MAX_PARTS.saturating_sub(parts.len());
            let taken = others.within(one.tid, one.start, one.end);
            let end = std::iter::once((one.end, one.end));
            for (start, end) in taken.take(left).chain(end) {
                if start > from {
                    parts.push((one.what.clone(), from, start));
                }
                from = end;
            }
        }
        parts
    }
}

/// Whether what a thread did meanwhile tells that it did not wait.
fn is_of_one_thread(scope: &Scope) -> bool {
    scope.is_certain() || scope.is_loop_in_company()
}

impl Held<Cause> {
    /// As [`Held::parts`], for the sweep.
    pub fn stretches(
        &mut self,
        scope: &Scope,
        timeline: &Timeline,
        identity: &Identity,
        place: Place,
    ) -> Vec<Stretch> {
        self.merge();
        let parts = self.parts(scope, timeline, identity, place);
        let stretch = |(cause, start, end)| Stretch { cause, start, end };
        parts.into_iter().map(stretch).collect()
    }

    /// What overlaps is one: several connections of a thread were held up at once.
    fn merge(&mut self) {
        for list in [&mut self.waiting, &mut self.idle] {
            list.sort_unstable_by_key(|one| (one.tid, one.what, one.start));
            list.dedup_by(|next, one| {
                let same = (next.tid, next.what) == (one.tid, one.what) && next.start <= one.end;
                if same {
                    one.end = one.end.max(next.end);
                }
                same
            });
        }
    }
}

/// What threads did, by thread and time.
#[derive(Debug, Default)]
struct Times(Vec<(u32, u64, u64)>);

impl Times {
    fn add(&mut self, entry: &Entry) {
        self.0.push((entry.tid, entry.start, entry.end));
    }

    /// In order, without overlaps.
    fn settle(&mut self) {
        self.0.sort_unstable();
        self.0.dedup_by(|next, one| {
            let same = next.0 == one.0 && next.1 <= one.2;
            if same {
                one.2 = one.2.max(next.2);
            }
            same
        });
    }

    /// Those of a thread, as far as they lie between two times.
    fn within(&self, tid: u32, start: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
        let before = |one: &(u32, u64, u64)| (one.0, one.2) <= (tid, start);
        let first = self.0.partition_point(before);
        self.0[first..]
            .iter()
            .take_while(move |one| one.0 == tid && one.1 < end)
            .map(move |one| (one.1.max(start), one.2.min(end)))
    }
}

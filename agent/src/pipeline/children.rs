//! The span index: which intervals of a span were its children's.
//!
//! Bounds: a ring of the last 192 Ki children by default, 28 bytes each and at most 4 more for the
//! index: 6 MB when full. The oldest gives way, and is counted. A parent is kept as a
//! keyed 64-bit hash of its trace id and span id: two parents among so many share one
//! with probability 2^-29, and nobody outside can choose ids that do.
//!
//! Not on the request path, and so not here: children of kind CONSUMER (they run on their
//! own), links, a span that names itself as parent.

use std::hash::BuildHasher;

// Seeded at random, as ids and names come from the network; cheaper than the standard
// one.
use foldhash::quality::RandomState;

use crate::{
    span::{SpanId, TraceId},
    trace::clock_slack_ns,
};

/// The children seen so far: a hash table whose chains run through the ring, newest first,
/// so that what gave way needs no removal.
#[derive(Debug)]
pub struct ChildIndex {
    /// The first child has sequence number 1; each stays until the one `capacity` later takes
    /// its slot.
    ring: Vec<Child>,
    /// Most children kept.
    capacity: u64,
    /// Children ever seen, which is the sequence number of the last one.
    seen: u64,
    /// By a parent's hash: the latest child of the parents that fall there. At least half as
    /// many as children, a power of two.
    latest: Vec<Low>,
    keys: RandomState,
    evicted: u64,
}

/// Packed: what a chain is followed by lies together, and nothing is wasted in between.
#[derive(Clone, Copy, Debug)]
#[repr(C, packed(4))]
struct Child {
    parent: u64,
    /// The child before of those whose parents fall into the same place.
    previous: Low,
    /// Its highest bit, which no time has before the year 2262: [`ChildTime::by_other_clock`].
    start: u64,
    end_unix_ns: u64,
}

/// See [`Child::start`].
const BY_OTHER_CLOCK: u64 = 1 << 63;

/// When a child was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChildTime {
    /// Wall time.
    pub start_unix_ns: u64,
    /// Wall time.
    pub end_unix_ns: u64,
    /// It is of nobody on this host, so its times may be another clock's.
    pub by_other_clock: bool,
}

impl ChildTime {
    /// Its start and end by the clock of the call from `start` to `end` that it answers. One of
    /// another host that cannot have been called and have answered then is moved to the call's middle, or
    /// to its start if it is longer: as [`trace`](crate::trace) does it.
    #[must_use]
    pub fn by_clock_of_call(self, (start, end): (u64, u64)) -> (u64, u64) {
        let (from, until) = (self.start_unix_ns, self.end_unix_ns);
        let (own_ns, whole_ns) = (until.saturating_sub(from), end.saturating_sub(start));
        let slack_ns = clock_slack_ns(whole_ns);
        // One that took longer than the call may have gone on after its caller gave up.
        let fits = from.saturating_add(slack_ns) >= start
            && from <= end
            && (until <= end.saturating_add(slack_ns) || own_ns > whole_ns);
        if !self.by_other_clock || fits {
            return (from, until);
        }
        let from = start.saturating_add(whole_ns.saturating_sub(own_ns) / 2);
        (from, from.saturating_add(own_ns))
    }
}

const _: () = assert!(size_of::<Child>() == 28);

/// The low half of a sequence number: what it stands for is one of the last 2^32. One that is older
/// leads to a child of another parent, which is passed over.
type Low = u32;

/// Where the children of a span would be, until the next [`ChildIndex::add`].
#[derive(Clone, Copy, Debug)]
pub struct Parent {
    key: u64,
    /// Sequence number of the latest child that may be its; 0: there is none.
    at: u64,
}

/// Chains are one or two long where the index is full, and most of what is in them is another
/// parent's: so many children are passed over for all spans of a batch at once.
const STEPS_TOGETHER: usize = 3;

/// No child's sequence number. Zero, as a table of zeros takes no memory before it is used.
const NONE: Low = 0;

impl ChildIndex {
    /// An index of at most `capacity` children (at least one).
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        Self {
            ring: Vec::with_capacity(capacity),
            capacity: capacity as u64,
            seen: 0,
            latest: vec![NONE; capacity.div_ceil(2).next_power_of_two()],
            keys: RandomState::default(),
            evicted: 0,
        }
    }

    /// Notes a child's interval under its parent.
    pub fn add(&mut self, trace: TraceId, parent: SpanId, time: ChildTime) {
        let parent = self.key(trace, parent);
        let place = self.place(parent);
        self.seen += 1;
        let child = Child {
            parent,
            previous: std::mem::replace(&mut self.latest[place], self.seen as Low),
            start: time.start_unix_ns & !BY_OTHER_CLOCK
                | if time.by_other_clock {
                    BY_OTHER_CLOCK
                } else {
                    0
                },
            end_unix_ns: time.end_unix_ns,
        };
        let slot = self.slot(self.seen);
        match self.ring.get_mut(slot) {
            Some(oldest) => {
                *oldest = child;
                self.evicted += 1;
            }
            None => self.ring.push(child),
        }
    }

    /// Where the children of spans are, in order. For all of them one step at a time: the memory
    /// that the index is spread over is waited for together, and not for one span after another.
    pub fn places_of(&self, spans: impl Iterator<Item = (TraceId, SpanId)>) -> Vec<Parent> {
        let place_of = |(trace, span)| {
            let key = self.key(trace, span);
            let at = self.whole(self.latest[self.place(key)]);
            Parent { key, at }
        };
        let mut places: Vec<Parent> = spans.map(place_of).collect();
        for _ in 0..STEPS_TOGETHER {
            for place in &mut places {
                place.at = match self.child(place.at) {
                    Some(child) if child.parent == place.key => place.at,
                    Some(child) => self.before(place.at, child),
                    None => 0,
                };
            }
        }
        places
    }

    /// When a span's children were, the latest seen first.
    pub fn of(&self, parent: Parent) -> impl Iterator<Item = ChildTime> + '_ {
        let Parent { key, mut at } = parent;
        let chain = std::iter::from_fn(move || {
            let child = self.child(at)?;
            at = self.before(at, child);
            Some(child)
        });
        chain
            .filter(move |child| child.parent == key)
            .map(|child| ChildTime {
                start_unix_ns: child.start & !BY_OTHER_CLOCK,
                end_unix_ns: child.end_unix_ns,
                by_other_clock: child.start & BY_OTHER_CLOCK != 0,
            })
    }

    /// The child with this sequence number, unless it gave way: what is before it in its chain is
    /// older, and did so too.
    fn child(&self, at: u64) -> Option<&Child> {
        let is_here = at != 0 && at + self.capacity > self.seen;
        is_here.then(|| &self.ring[self.slot(at)])
    }

    /// Sequence number of the one before in its chain, 0 at the end.
    const fn before(&self, at: u64, child: &Child) -> u64 {
        let before = self.whole(child.previous);
        if before < at { before } else { 0 }
    }

    /// Hashed as two numbers: as arrays, the hasher is given their lengths too.
    fn key(&self, trace: TraceId, span: SpanId) -> u64 {
        let numbers = (u128::from_ne_bytes(trace), u64::from_ne_bytes(span));
        self.keys.hash_one(numbers)
    }

    /// The latest sequence number with this low half.
    const fn whole(&self, low: Low) -> u64 {
        self.seen
            .saturating_sub((self.seen as Low).wrapping_sub(low) as u64)
    }

    fn place(&self, parent: u64) -> usize {
        parent as usize & (self.latest.len() - 1)
    }

    fn slot(&self, sequence: u64) -> usize {
        ((sequence - 1) % self.capacity) as usize
    }

    /// Children that gave way to newer ones since the last call.
    pub fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: TraceId = [7; 16];

    fn span(n: u32) -> SpanId {
        (u64::from(n) + 1).to_be_bytes()
    }

    #[test]
    fn sequence_numbers_may_pass_four_billion() {
        let mut index = ChildIndex::new(4);
        index.seen = u64::from(Low::MAX) - 7; // a multiple of the capacity
        for n in 0..20u32 {
            let parent = n % 2;
            index.add(TRACE, span(parent), time(n.into(), 1_000));
            let found: Vec<u64> = of(&index, parent).iter().map(|(at, _)| *at).collect();
            let own = (n.saturating_sub(3)..=n).rev().filter(|n| n % 2 == parent);
            assert_eq!(found, own.map(u64::from).collect::<Vec<_>>());
        }
    }

    fn of(index: &ChildIndex, parent: u32) -> Vec<(u64, u64)> {
        let places = index.places_of(std::iter::once((TRACE, span(parent))));
        let times = index.of(places[0]);
        times.map(|t| (t.start_unix_ns, t.end_unix_ns)).collect()
    }

    fn time(start_unix_ns: u64, end_unix_ns: u64) -> ChildTime {
        ChildTime {
            start_unix_ns,
            end_unix_ns,
            by_other_clock: false,
        }
    }

    #[test]
    fn a_child_of_another_host_is_moved_into_its_parent_and_one_of_this_is_not() {
        const S: u64 = 1_000_000_000;
        let parent = (100 * S, 110 * S);
        // What it is, by which clock from and to, and by the parent's.
        let table = [
            ("within", (102, 104), (102, 104)),
            ("half a minute late", (132, 138), (102, 108)),
            ("early", (95, 101), (102, 108)),
            ("half out", (108, 112), (103, 107)),
            ("longer than its parent", (10, 40), (100, 130)),
            (
                "still at work when its caller gave up",
                (107, 130),
                (107, 130),
            ),
        ];
        for (what, (start, end), (from, until)) in table {
            let own = time(start * S, end * S);
            assert_eq!(own.by_clock_of_call(parent), (start * S, end * S), "{what}");
            let mut index = ChildIndex::new(4);
            let by_other_clock = true;
            let other = ChildTime {
                by_other_clock,
                ..own
            };
            index.add(TRACE, span(0), other);
            let places = index.places_of(std::iter::once((TRACE, span(0))));
            let kept: Vec<_> = index.of(places[0]).collect();
            assert_eq!(kept, [other], "{what}");
            assert_eq!(
                kept[0].by_clock_of_call(parent),
                (from * S, until * S),
                "{what}"
            );
        }
        let mad = ChildTime {
            by_other_clock: true,
            ..time(0, u64::MAX)
        };
        assert_eq!(mad.by_clock_of_call((u64::MAX, 0)), (u64::MAX, u64::MAX));
    }

    #[test]
    fn children_are_found_by_trace_and_parent() {
        let mut index = ChildIndex::new(8);
        assert_eq!(of(&index, 0).len(), 0);
        index.add(TRACE, span(0), time(10, 20));
        index.add(TRACE, span(1), time(11, 12));
        index.add(TRACE, span(0), time(15, 30));
        index.add([8; 16], span(0), time(1, 2));
        assert_eq!(of(&index, 0), [(15, 30), (10, 20)]);
    }

    #[test]
    fn the_oldest_gives_way_and_leaves_no_trace() {
        for parents in 1..8 {
            let mut index = ChildIndex::new(4);
            for n in 0..100u32 {
                index.add(TRACE, span(n % parents), time(n.into(), 1_000));
                let newest = n.saturating_sub(3)..=n;
                for parent in 0..parents {
                    let found: Vec<u64> = of(&index, parent).iter().map(|(at, _)| *at).collect();
                    let own = newest.clone().rev().filter(|n| n % parents == parent);
                    assert_eq!(found, own.map(u64::from).collect::<Vec<_>>());
                }
            }
            assert_eq!(index.take_evicted(), 96);
        }
    }
}

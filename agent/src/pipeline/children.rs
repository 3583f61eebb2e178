//! The span index: which intervals of a span were its children's.
//!
//! Bounds: a ring of the last 256 Ki children by default, 32 bytes each and at most 17 more
//! for the index: 17 MB when full. The oldest gives way, and is counted. A parent is kept as a
//! keyed 64-bit hash of its trace id and span id: two parents among 256 Ki share one
//! with probability 2^-29, and nobody outside can choose ids that do.
//!
//! Not on the request path, and so not here: children of kind CONSUMER (they run on their
//! own), links, a span that names itself as parent.

use std::{
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, Hasher},
};

// Seeded at random, as ids and names come from the network; cheaper than the standard
// one.
use foldhash::quality::RandomState;

use crate::span::{SpanId, TraceId};

/// The children seen so far.
#[derive(Debug)]
pub struct ChildIndex {
    ring: Vec<Child>,
    /// Most children kept.
    capacity: u64,
    /// Children ever seen; the next one's sequence number. Sequence `n` is in the ring at
    /// `n % capacity` until `n + capacity` comes.
    next: u64,
    /// Sequence number of a parent's latest child.
    latest: HashMap<u64, u64, BuildHasherDefault<Hashed>>,
    keys: RandomState,
    evicted: u64,
}

#[derive(Clone, Copy, Debug)]
struct Child {
    parent: u64,
    start_unix_ns: u64,
    end_unix_ns: u64,
    /// The same parent's child before, [`NONE`] for the first.
    previous: u64,
}

const NONE: u64 = u64::MAX;

/// The key is a keyed hash already.
#[derive(Clone, Copy, Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

impl ChildIndex {
    /// An index of at most `capacity` children (at least one).
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            ring: Vec::new(),
            capacity: capacity.max(1) as u64,
            next: 0,
            latest: HashMap::default(),
            keys: RandomState::default(),
            evicted: 0,
        }
    }

    /// Notes a child's interval under its parent.
    pub fn add(&mut self, trace: TraceId, parent: SpanId, start_unix_ns: u64, end_unix_ns: u64) {
        let parent = self.key(trace, parent);
        let slot = (self.next % self.capacity) as usize;
        if let Some(old) = self.ring.get(slot) {
            self.evicted += 1;
            // The oldest of all is the oldest of its parent: when it also is the latest,
            // the parent has no other.
            if self.latest.get(&old.parent) == Some(&(self.next - self.capacity)) {
                self.latest.remove(&old.parent);
            }
        }
        let previous = self.latest.insert(parent, self.next).unwrap_or(NONE);
        let child = Child {
            parent,
            start_unix_ns,
            end_unix_ns,
            previous,
        };
        match self.ring.get_mut(slot) {
            Some(place) => *place = child,
            None => self.ring.push(child),
        }
        self.next += 1;
    }

    /// The intervals of a span's children in wall time, the latest seen first.
    pub fn of(&self, trace: TraceId, span: SpanId) -> impl Iterator<Item = (u64, u64)> + '_ {
        let latest = if self.ring.is_empty() {
            None
        } else {
            self.latest.get(&self.key(trace, span))
        };
        let mut at = latest.copied().unwrap_or(NONE);
        std::iter::from_fn(move || {
            // A link to a child that gave way ends the chain: what is before it is older.
            if at == NONE || at + self.capacity < self.next {
                return None;
            }
            let child = &self.ring[(at % self.capacity) as usize];
            at = child.previous;
            Some((child.start_unix_ns, child.end_unix_ns))
        })
    }

    /// Hashed as two numbers: as arrays, the hasher is given their lengths too.
    fn key(&self, trace: TraceId, span: SpanId) -> u64 {
        let numbers = (u128::from_ne_bytes(trace), u64::from_ne_bytes(span));
        self.keys.hash_one(numbers)
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
    fn children_are_found_by_trace_and_parent() {
        let mut index = ChildIndex::new(8);
        assert_eq!(index.of(TRACE, span(0)).count(), 0);
        index.add(TRACE, span(0), 10, 20);
        index.add(TRACE, span(1), 11, 12);
        index.add(TRACE, span(0), 15, 30);
        index.add([8; 16], span(0), 1, 2);
        let found: Vec<_> = index.of(TRACE, span(0)).collect();
        assert_eq!(found, [(15, 30), (10, 20)]);
    }

    #[test]
    fn the_oldest_gives_way_and_leaves_no_trace() {
        for parents in 1..8 {
            let mut index = ChildIndex::new(4);
            for n in 0..100u32 {
                index.add(TRACE, span(n % parents), n.into(), 1_000);
                assert!(
                    index.latest.len() <= 4,
                    "parents without children are forgotten"
                );
                let newest = n.saturating_sub(3)..=n;
                for parent in 0..parents {
                    let found: Vec<u64> = index.of(TRACE, span(parent)).map(|(at, _)| at).collect();
                    let own = newest.clone().rev().filter(|n| n % parents == parent);
                    assert_eq!(found, own.map(u64::from).collect::<Vec<_>>());
                }
            }
            assert_eq!(index.take_evicted(), 96);
        }
    }
}

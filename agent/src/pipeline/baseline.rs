//! What is usual, by service and operation: medians of the self time and of each cause's
//! time over the last [`SAMPLES`] spans without a verdict (a fault that lasts must not
//! become the norm). Robust: half of the samples may be anything.
//!
//! Bounds: at most `capacity` pairs (2 000 by default; an eighth of them, those unused for
//! longest, make room for new ones), 256 bytes each and 256 more for each cause that ever
//! came up: 1.5 MB in practice, 10 MB at most. Names are kept as a keyed 64-bit hash and
//! hashed over their first [`NAME_BYTES`] bytes.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hasher},
};

// Seeded at random, as ids and names come from the network; cheaper than the standard
// one.
use foldhash::quality::RandomState;

use crate::{verdict::Split, vocabulary::Cause};

/// Spans that a median is taken over.
pub const SAMPLES: usize = 64;
/// Spans before anything is called usual.
pub const WARM: u64 = 20;
/// Bytes of a service's and of an operation's name that tell them apart.
pub const NAME_BYTES: usize = 256;

/// Microseconds of the last spans, a ring.
type Ring = [u32; SAMPLES];

/// See the module.
#[derive(Debug)]
pub struct Baselines {
    capacity: usize,
    usual: HashMap<u64, Usual, RandomState>,
    names: RandomState,
    clock: u64,
}

/// One service's operation.
#[derive(Debug)]
struct Usual {
    last_used: u64,
    spans: u64,
    self_time: Ring,
    causes: Vec<(Cause, Box<Ring>)>,
}

/// A service's operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperationKey(u64);

impl Baselines {
    /// For at most `capacity` operations (at least one).
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            usual: HashMap::default(),
            names: RandomState::default(),
            clock: 0,
        }
    }

    /// The key of a service's operation; allocates nothing.
    #[must_use]
    pub fn key(&self, service: &str, operation: &[u8]) -> OperationKey {
        let mut hasher = self.names.build_hasher();
        for name in [service.as_bytes(), operation] {
            let name = &name[..name.len().min(NAME_BYTES)];
            hasher.write_usize(name.len());
            hasher.write(name);
        }
        OperationKey(hasher.finish())
    }

    /// Learns from a span that got no verdict.
    pub fn learn(&mut self, key: OperationKey, split: &Split) {
        self.clock += 1;
        if self.usual.len() >= self.capacity && !self.usual.contains_key(&key.0) {
            self.forget_an_eighth();
        }
        let usual = self.usual.entry(key.0).or_insert_with(|| Usual {
            last_used: 0,
            spans: 0,
            self_time: [0; SAMPLES],
            causes: Vec::new(),
        });
        usual.last_used = self.clock;
        let at = (usual.spans % SAMPLES as u64) as usize;
        usual.spans += 1;
        usual.self_time[at] = micros(split.self_time_ns);
        for (_, ring) in &mut usual.causes {
            ring[at] = 0;
        }
        for (cause, ns) in &split.parts {
            if *cause == Cause::Unexplained {
                continue;
            }
            if let Some((_, ring)) = usual.causes.iter_mut().find(|(c, _)| c == cause) {
                ring[at] = micros(*ns);
            } else {
                let mut ring = Box::new([0; SAMPLES]);
                ring[at] = micros(*ns);
                usual.causes.push((*cause, ring));
            }
        }
    }

    /// The usual self time in nanoseconds; `None` while too few spans were seen.
    #[must_use]
    pub fn self_time_ns(&self, key: OperationKey) -> Option<u64> {
        let usual = self.warm(key)?;
        Some(median_ns(&usual.self_time, usual.spans))
    }

    /// The usual time of a cause in nanoseconds, 0 if it never came up; `None` while too
    /// few spans were seen.
    #[must_use]
    pub fn cause_ns(&self, key: OperationKey, cause: Cause) -> Option<u64> {
        let usual = self.warm(key)?;
        let ring = usual.causes.iter().find(|(c, _)| *c == cause);
        Some(ring.map_or(0, |(_, ring)| median_ns(ring, usual.spans)))
    }

    fn warm(&self, key: OperationKey) -> Option<&Usual> {
        self.usual.get(&key.0).filter(|usual| usual.spans >= WARM)
    }

    fn forget_an_eighth(&mut self) {
        let mut ages: Vec<u64> = self.usual.values().map(|usual| usual.last_used).collect();
        let at = (self.capacity / 8).min(ages.len() - 1);
        let (_, oldest_kept, _) = ages.select_nth_unstable(at);
        let oldest_kept = *oldest_kept;
        let before = self.usual.len();
        self.usual.retain(|_, usual| usual.last_used >= oldest_kept);
        if self.usual.len() == before {
            self.usual.retain(|_, usual| usual.last_used > oldest_kept);
        }
    }
}

fn micros(ns: u64) -> u32 {
    u32::try_from(ns / 1_000).unwrap_or(u32::MAX)
}

fn median_ns(ring: &Ring, spans: u64) -> u64 {
    let mut samples = *ring;
    let filled = spans.min(SAMPLES as u64) as usize;
    let (_, median, _) = samples[..filled].select_nth_unstable(filled / 2);
    u64::from(*median) * 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(self_ms: u64, throttle_ms: u64) -> Split {
        let mut parts = vec![
            (Cause::CpuThrottle, throttle_ms * 1_000_000),
            (Cause::Unexplained, (self_ms - throttle_ms) * 1_000_000),
        ];
        parts.retain(|(_, ns)| *ns > 0);
        Split {
            self_time_ns: self_ms * 1_000_000,
            parts,
            downstream_ns: 0,
        }
    }

    #[test]
    fn nothing_is_usual_before_enough_spans() {
        let mut baselines = Baselines::new(8);
        let key = baselines.key("shop", b"GET /cart");
        for _ in 1..WARM {
            baselines.learn(key, &split(10, 1));
        }
        assert_eq!(baselines.self_time_ns(key), None);
        baselines.learn(key, &split(10, 1));
        assert_eq!(baselines.self_time_ns(key), Some(10_000_000));
        assert_eq!(baselines.cause_ns(key, Cause::CpuThrottle), Some(1_000_000));
        assert_eq!(baselines.cause_ns(key, Cause::Runqueue), Some(0));
    }

    #[test]
    fn outliers_and_spans_without_the_cause_count_as_what_they_are() {
        let mut baselines = Baselines::new(8);
        let key = baselines.key("shop", b"GET /cart");
        for n in 0..200 {
            // One in four is slow, throttled, and for a while: still not usual.
            let slow = n % 4 == 0;
            baselines.learn(key, &if slow { split(900, 800) } else { split(10, 0) });
        }
        assert_eq!(baselines.self_time_ns(key), Some(10_000_000));
        assert_eq!(baselines.cause_ns(key, Cause::CpuThrottle), Some(0));
        for _ in 0..SAMPLES {
            baselines.learn(key, &split(20, 15));
        }
        assert_eq!(
            baselines.cause_ns(key, Cause::CpuThrottle),
            Some(15_000_000)
        );
        for _ in 0..SAMPLES {
            baselines.learn(key, &split(20, 0));
        }
        assert_eq!(baselines.cause_ns(key, Cause::CpuThrottle), Some(0));
        assert_eq!(
            baselines.self_time_ns(key),
            Some(20_000_000),
            "old ones are forgotten"
        );
    }

    #[test]
    fn names_are_told_apart_and_those_unused_make_room() {
        let mut baselines = Baselines::new(16);
        assert_ne!(baselines.key("a", b"bc"), baselines.key("ab", b"c"));
        assert_eq!(baselines.key("a", b"b"), baselines.key("a", b"b"));
        let busy = baselines.key("shop", b"busy");
        for n in 0..1_000u32 {
            baselines.learn(busy, &split(10, 0));
            let rare = baselines.key("shop", &n.to_be_bytes());
            baselines.learn(rare, &split(10, 0));
            assert!(baselines.usual.len() <= 16);
        }
        assert_eq!(baselines.self_time_ns(busy), Some(10_000_000));
        let mut one = Baselines::new(1);
        for n in 0..10u32 {
            one.learn(one.key("shop", &n.to_be_bytes()), &split(10, 0));
            assert_eq!(one.usual.len(), 1);
        }
    }
}

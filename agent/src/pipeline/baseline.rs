//! What is usual, by service and operation: median and high end of the duration, of the self
//! time and of each cause's time, over the last [`SAMPLES`] spans that were as usual. Robust:
//! of the median half of the samples may be anything, of the high end two.
//!
//! A span with a verdict teaches nothing, as a fault that lasts must not become the norm; but
//! one that is slow by its own doing or its callees' may be so for good, and so one in
//! [`SLOW_IN`] of those is learned.
//!
//! Bounds: at most `capacity` operations (2 000 by default; an eighth of them, those unused for
//! longest, make room for new ones), 512 bytes each and 256 more for each cause that ever came
//! up: 3 MB in practice, 12 MB at most, whatever the number of distinct operations. Names are kept
//! as a keyed 64-bit hash and hashed over their first [`NAME_BYTES`] bytes.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hasher},
};

// Seeded, as ids and names come from the network; cheaper than the standard one.
use foldhash::quality::{FixedState, FoldHasher, RandomState};
use serde::{Deserialize, Serialize};

use crate::{verdict::Split, vocabulary::Cause, workload::Workload};

/// Spans that a median is taken over.
pub const SAMPLES: usize = 64;
/// Spans before anything is called usual.
pub const WARM: u64 = 20;
/// Bytes of a service's and of an operation's name that tell them apart.
pub const NAME_BYTES: usize = 256;
/// One in so many of the spans that are slow by their own doing is learned.
pub const SLOW_IN: u64 = 16;
/// Samples that may be beyond the high end.
const BEYOND_HIGH: usize = 2;

/// Microseconds of the last spans, a ring.
type Ring = [u32; SAMPLES];

/// See the module.
#[derive(Debug)]
pub struct Baselines {
    capacity: usize,
    operations: HashMap<u64, Operation, RandomState>,
    seed: u64,
    names: Names,
    clock: u64,
}

/// One service's operation.
#[derive(Debug)]
struct Operation {
    last_used: u64,
    spans: u64,
    slow: u64,
    whole: Ring,
    self_time: Ring,
    causes: Vec<(Cause, Box<Ring>)>,
}

/// A service's operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperationKey(u64);

/// Makes keys of names.
#[derive(Clone, Debug)]
pub struct Names(FixedState);

/// A service as one workload calls it: most spans of a batch are of one.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "the hasher has none")]
pub struct ServiceKey<'a>(FoldHasher<'a>);

/// What is usual of a time, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usual {
    /// Half of the samples are below.
    pub median_ns: u64,
    /// All samples but two are below, or as long.
    pub high_ns: u64,
}

/// What a restart keeps; `key`s are worth nothing without the seed, and with another hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    seed: u64,
    /// The hash of nothing with that seed: of another one, it is another.
    check: u64,
    /// The one unused for longest first.
    operations: Vec<SavedOperation>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedOperation {
    key: u64,
    spans: u64,
    slow: u64,
    whole: Vec<u32>,
    self_time: Vec<u32>,
    causes: Vec<(Cause, Vec<u32>)>,
}

/// Why what was saved cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The agent that wrote it hashed names differently.
    #[error("it was written by a version that names operations differently")]
    OtherHash,
    /// Its numbers do not fit together.
    #[error("its samples are not whole")]
    Samples,
}

impl Baselines {
    /// For at most `capacity` operations (at least one). `seed` should be random.
    #[must_use]
    pub fn new(capacity: usize, seed: u64) -> Self {
        Self {
            capacity: capacity.max(1),
            operations: HashMap::default(),
            seed,
            names: Names(FixedState::with_seed(seed)),
            clock: 0,
        }
    }

    /// Goes on from what was saved; of more operations than fit, the latest.
    ///
    /// # Errors
    /// [`Unusable`] if what was saved is not what [`Baselines::save`] gives.
    pub fn restore(capacity: usize, saved: Saved) -> Result<Self, Unusable> {
        let mut baselines = Self::new(capacity, saved.seed);
        if baselines.check() != saved.check {
            return Err(Unusable::OtherHash);
        }
        let too_many = saved.operations.len().saturating_sub(baselines.capacity);
        for of in saved.operations.into_iter().skip(too_many) {
            baselines.clock += 1;
            let mut causes: Vec<(Cause, Box<Ring>)> = Vec::new();
            for (cause, samples) in of.causes {
                if causes.iter().any(|(known, _)| *known == cause) {
                    return Err(Unusable::Samples);
                }
                causes.push((cause, Box::new(ring(&samples)?)));
            }
            let operation = Operation {
                last_used: baselines.clock,
                spans: of.spans,
                slow: of.slow,
                whole: ring(&of.whole)?,
                self_time: ring(&of.self_time)?,
                causes,
            };
            baselines.operations.insert(of.key, operation);
        }
        Ok(baselines)
    }

    /// What a restart should keep.
    #[must_use]
    pub fn save(&self) -> Saved {
        let mut all: Vec<(&u64, &Operation)> = self.operations.iter().collect();
        all.sort_unstable_by_key(|(_, operation)| operation.last_used);
        let operations = all.into_iter().map(|(key, of)| SavedOperation {
            key: *key,
            spans: of.spans,
            slow: of.slow,
            whole: of.whole.to_vec(),
            self_time: of.self_time.to_vec(),
            causes: of.causes.iter().map(|(c, r)| (*c, r.to_vec())).collect(),
        });
        Saved {
            seed: self.seed,
            check: self.check(),
            operations: operations.collect(),
        }
    }

    /// Operations known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// What makes keys: the same after a restart.
    #[must_use]
    pub fn names(&self) -> Names {
        self.names.clone()
    }

    /// The key of an operation of a service that lives anywhere.
    #[cfg(test)]
    pub(crate) fn key(&self, service: &str, operation: &[u8]) -> OperationKey {
        self.names
            .service(&Workload::default(), service)
            .operation(operation)
    }

    fn check(&self) -> u64 {
        let mut nothing = ServiceKey(self.names.0.build_hasher());
        nothing.add(b"");
        nothing.operation(b"").0
    }

    /// Learns from a span that was as usual.
    pub fn learn(&mut self, key: OperationKey, split: &Split) {
        self.operation(key).learn(split);
    }

    /// Learns from a span that was slow by its own doing or its callees'.
    pub fn learn_slow(&mut self, key: OperationKey, split: &Split) {
        let operation = self.operation(key);
        operation.slow += 1;
        if operation.slow.is_multiple_of(SLOW_IN) {
            operation.learn(split);
        }
    }

    /// The usual duration; `None` while too few spans were seen.
    #[must_use]
    pub fn whole(&self, key: OperationKey) -> Option<Usual> {
        let operation = self.warm(key)?;
        Some(usual(&operation.whole, operation.spans))
    }

    /// The usual self time; `None` while too few spans were seen.
    #[must_use]
    pub fn self_time(&self, key: OperationKey) -> Option<Usual> {
        let operation = self.warm(key)?;
        Some(usual(&operation.self_time, operation.spans))
    }

    /// The usual time of a cause, 0 if it never came up; `None` while too few spans were seen.
    #[must_use]
    pub fn cause(&self, key: OperationKey, cause: Cause) -> Option<Usual> {
        let operation = self.warm(key)?;
        let ring = operation.causes.iter().find(|(c, _)| *c == cause);
        Some(ring.map_or_else(Usual::default, |(_, ring)| usual(ring, operation.spans)))
    }

    fn warm(&self, key: OperationKey) -> Option<&Operation> {
        let operation = self.operations.get(&key.0);
        operation.filter(|operation| operation.spans >= WARM)
    }

    fn operation(&mut self, key: OperationKey) -> &mut Operation {
        self.clock += 1;
        if self.operations.len() >= self.capacity && !self.operations.contains_key(&key.0) {
            self.forget_an_eighth();
        }
        let operation = self.operations.entry(key.0).or_insert_with(|| Operation {
            last_used: 0,
            spans: 0,
            slow: 0,
            whole: [0; SAMPLES],
            self_time: [0; SAMPLES],
            causes: Vec::new(),
        });
        operation.last_used = self.clock;
        operation
    }

    fn forget_an_eighth(&mut self) {
        let all = self.operations.values();
        let mut ages: Vec<u64> = all.map(|operation| operation.last_used).collect();
        let at = (self.capacity / 8).min(ages.len() - 1);
        let (_, oldest_kept, _) = ages.select_nth_unstable(at);
        let oldest_kept = *oldest_kept;
        let before = self.operations.len();
        self.operations.retain(|_, of| of.last_used >= oldest_kept);
        if self.operations.len() == before {
            self.operations.retain(|_, of| of.last_used > oldest_kept);
        }
    }
}

impl Names {
    /// A service of this name in this workload: who sends spans in another's name has its own
    /// usual. Allocates nothing.
    #[must_use]
    pub fn service(&self, workload: &Workload, service: &str) -> ServiceKey<'_> {
        let mut key = ServiceKey(self.0.build_hasher());
        let place = [
            &workload.namespace,
            &workload.owner,
            &workload.container,
            &workload.unit,
            &workload.process,
        ];
        for name in place {
            key.add(name.as_bytes());
        }
        key.add(service.as_bytes());
        key
    }
}

impl ServiceKey<'_> {
    /// One of its operations.
    #[must_use]
    pub fn operation(&self, name: &[u8]) -> OperationKey {
        let mut key = self.clone();
        key.add(name);
        OperationKey(key.0.finish())
    }

    fn add(&mut self, name: &[u8]) {
        let name = &name[..name.len().min(NAME_BYTES)];
        self.0.write_u64(name.len() as u64);
        self.0.write(name);
    }
}

impl Operation {
    fn learn(&mut self, split: &Split) {
        let at = (self.spans % SAMPLES as u64) as usize;
        self.spans += 1;
        let whole_ns = split.self_time_ns.saturating_add(split.downstream_ns);
        self.whole[at] = micros(whole_ns);
        self.self_time[at] = micros(split.self_time_ns);
        for (_, ring) in &mut self.causes {
            ring[at] = 0;
        }
        let downstream = (Cause::Downstream, split.downstream_ns);
        for (cause, ns) in split.parts.iter().chain([&downstream]) {
            if *cause == Cause::Unexplained || *ns == 0 {
                continue;
            }
            if let Some((_, ring)) = self.causes.iter_mut().find(|(c, _)| c == cause) {
                ring[at] = micros(*ns);
            } else {
                let mut ring = Box::new([0; SAMPLES]);
                ring[at] = micros(*ns);
                self.causes.push((*cause, ring));
            }
        }
    }
}

fn ring(samples: &[u32]) -> Result<Ring, Unusable> {
    samples.try_into().map_err(|_| Unusable::Samples)
}

fn micros(ns: u64) -> u32 {
    u32::try_from(ns / 1_000).unwrap_or(u32::MAX)
}

fn usual(ring: &Ring, spans: u64) -> Usual {
    let mut samples = *ring;
    let filled = spans.min(SAMPLES as u64) as usize;
    let samples = &mut samples[..filled];
    let (_, median, above) = samples.select_nth_unstable(filled / 2);
    let median_ns = u64::from(*median) * 1_000;
    // Warm, so there are more above the median than may be beyond the high end.
    let at = above.len().saturating_sub(BEYOND_HIGH + 1);
    let (_, high, _) = above.select_nth_unstable(at);
    Usual {
        median_ns,
        high_ns: u64::from(*high) * 1_000,
    }
}

#[cfg(test)]
mod tests;

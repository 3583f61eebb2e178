//! Intervals of many processes within one bound: what is kept of requests, answers, asks and
//! thread contexts until it is too old.
//!
//! The process with the most gives way first, and what it loses is counted. Intervals of very
//! different lengths are kept apart, see [`Ring`].

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::ring::{Interval, Ring};
use crate::process::ProcessKey;

/// Each ring is for intervals up to four times as long as the ones before, the first one for those
/// below 2^22 ns (4 ms).
const LENGTHS: usize = 8;

/// By length, the shortest first.
type Rings<T> = [Ring<T>; LENGTHS];

/// At most `MAX` intervals; see the module.
#[derive(Debug)]
pub(super) struct ByProcess<T, const MAX: usize> {
    processes: HashMap<ProcessKey, Rings<T>, RandomState>,
    count: usize,
    evicted: u64,
}

impl<T, const MAX: usize> Default for ByProcess<T, MAX> {
    fn default() -> Self {
        Self {
            processes: HashMap::default(),
            count: 0,
            evicted: 0,
        }
    }
}

impl<T: Interval, const MAX: usize> ByProcess<T, MAX> {
    /// Intervals kept.
    #[cfg(test)]
    pub(super) const fn len(&self) -> usize {
        self.count
    }

    /// Whether nothing is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    /// Takes one.
    pub(super) fn add(&mut self, process: ProcessKey, interval: T) {
        if self.count >= MAX {
            self.evict();
        }
        let rings = self.processes.entry(process).or_default();
        rings[ring_of(interval.end() - interval.start())].insert(interval);
        self.count += 1;
    }

    /// Those that overlap `[start, end)`; of each length in order of their end.
    pub(super) fn overlapping(
        &self,
        process: ProcessKey,
        start: u64,
        end: u64,
    ) -> impl Iterator<Item = &T> {
        let rings = self.processes.get(&process).into_iter().flatten();
        rings.flat_map(move |ring| ring.overlapping(start, end))
    }

    /// At most so many overlap `[start, end)`; found without looking at each.
    pub(super) fn at_most(&self, process: ProcessKey, start: u64, end: u64) -> usize {
        let rings = self.processes.get(&process).into_iter().flatten();
        rings.map(|ring| ring.at_most(start, end)).sum()
    }

    /// Those that end in `[from, to]`, at most `most` of each length; what is changed must not
    /// be a time.
    pub(super) fn ending_mut(
        &mut self,
        process: ProcessKey,
        (from, to): (u64, u64),
        most: usize,
    ) -> impl Iterator<Item = &mut T> {
        let rings = self.processes.get_mut(&process).into_iter().flatten();
        rings.flat_map(move |ring| ring.ending_mut(from, to).take(most))
    }

    /// Forgets what ended before `horizon`.
    pub(super) fn expire(&mut self, horizon: u64) {
        let count = &mut self.count;
        self.processes.retain(|_, rings| {
            for ring in &mut *rings {
                *count -= ring.expire(horizon);
            }
            rings.iter().any(|ring| ring.len() > 0)
        });
    }

    /// Forgotten before their time since the last call.
    pub(super) fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
    }

    /// Forgets the oldest eighth of the longest ring of the process that has most.
    fn evict(&mut self) {
        let size = |rings: &Rings<T>| rings.iter().map(Ring::len).sum::<usize>();
        let most = self
            .processes
            .iter_mut()
            .max_by_key(|(process, rings)| (size(rings), **process));
        let Some((_, rings)) = most else { return };
        let Some(ring) = rings.iter_mut().max_by_key(|ring| ring.len()) else {
            return;
        };
        for _ in 0..ring.len().div_ceil(8) {
            ring.pop_front();
            self.count -= 1;
            self.evicted += 1;
        }
    }
}

/// The ring for intervals of this length.
const fn ring_of(length_ns: u64) -> usize {
    let bits = (u64::BITS - length_ns.leading_zeros()).saturating_sub(22);
    let ring = bits.div_ceil(2) as usize;
    if ring < LENGTHS { ring } else { LENGTHS - 1 }
}

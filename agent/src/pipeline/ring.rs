//! Intervals in order of their end, so that those that overlap another are found by a binary
//! search and a walk over little more than them.

use std::{cell::Cell, collections::VecDeque};

/// What has a start and an end, in nanoseconds of one clock.
pub trait Interval {
    /// First nanosecond.
    fn start(&self) -> u64;
    /// One past the last nanosecond.
    fn end(&self) -> u64;
}

/// See the module. Keep very long intervals in a ring of their own: a walk looks at what
/// ended up to one longest interval late.
#[derive(Debug)]
pub struct Ring<T> {
    entries: VecDeque<T>,
    longest_ns: u64,
    /// Where the last two searches ended: the next ones mostly are for a time nearby.
    last: Cell<(usize, usize)>,
}

impl<T> Default for Ring<T> {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            longest_ns: 0,
            last: Cell::default(),
        }
    }
}

impl<T: Interval> Ring<T> {
    /// Intervals kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Takes out the one that ended first.
    pub fn pop_front(&mut self) -> Option<T> {
        self.entries.pop_front()
    }

    /// Puts one in. Near the end, few entries move: what comes is nearly in order.
    pub fn insert(&mut self, entry: T) {
        self.longest_ns = self.longest_ns.max(entry.end() - entry.start());
        // By a quarter and not to twice its size: half of what is full of entries stayed empty.
        let len = self.entries.len();
        if len == self.entries.capacity() && len >= 64 {
            self.entries.reserve_exact(len / 4);
        }
        let end = entry.end();
        if self.entries.back().is_none_or(|last| last.end() <= end) {
            self.entries.push_back(entry);
        } else {
            let at = self.entries.partition_point(|e| e.end() <= end);
            self.entries.insert(at, entry);
        }
    }

    /// Forgets what ended before `horizon`; returns how many.
    pub fn expire(&mut self, horizon: u64) -> usize {
        let before = self.entries.len();
        while self.entries.front().is_some_and(|e| e.end() < horizon) {
            self.entries.pop_front();
        }
        if self.entries.is_empty() {
            self.longest_ns = 0;
        }
        if self.entries.capacity() > 64 && self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(self.entries.len() * 2);
        }
        before - self.entries.len()
    }

    /// Those that overlap `[start, end)`, in order of their end.
    pub fn overlapping(&self, start: u64, end: u64) -> impl Iterator<Item = &T> {
        self.range(start, end)
            .map(|at| &self.entries[at])
            .filter(move |e| e.start() < end)
    }

    /// At most so many overlap `[start, end)`.
    pub fn at_most(&self, start: u64, end: u64) -> usize {
        self.range(start, end).len()
    }

    /// Those that end in `[from, to]`; what is changed must not be a time.
    pub fn ending_mut(&mut self, from: u64, to: u64) -> impl Iterator<Item = &mut T> {
        let first = self.entries.partition_point(|e| e.end() < from);
        self.entries
            .range_mut(first..)
            .take_while(move |e| e.end() <= to)
    }

    /// The places of what may overlap.
    fn range(&self, start: u64, end: u64) -> std::ops::Range<usize> {
        let last_end = end.saturating_add(self.longest_ns);
        let (first, last) = self.last.get();
        let first = self.first_from(first, |e| e.end() <= start);
        let last = self.first_from(last, |e| e.end() < last_end);
        self.last.set((first, last));
        first..last.max(first)
    }

    /// As `partition_point`, by steps of growing width from where it may be: two places of a ring
    /// of a hundred thousand are looked at instead of seventeen all over it.
    fn first_from(&self, near: usize, is_before: impl Fn(&T) -> bool) -> usize {
        let len = self.entries.len();
        let near = near.min(len);
        let (mut low, mut high, mut step) = (near, near, 1);
        while low > 0 && !is_before(&self.entries[low - 1]) {
            high = low - 1;
            low = low.saturating_sub(step);
            step *= 2;
        }
        if low == near {
            while high < len && is_before(&self.entries[high]) {
                low = high + 1;
                high = high.saturating_add(step).min(len);
                step *= 2;
            }
        }
        while low < high {
            let middle = low.midpoint(high);
            if is_before(&self.entries[middle]) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Interval for (u64, u64) {
        fn start(&self) -> u64 {
            self.0
        }

        fn end(&self) -> u64 {
            self.1
        }
    }

    proptest! {
        /// Wherever the search before ended: the same as of a list that is gone through.
        #[test]
        fn what_overlaps_is_found_from_anywhere(
            ends in prop::collection::vec((0u64..1_000, 0u64..50), 0..200),
            asked in prop::collection::vec((0u64..1_100, 0u64..100), 1..20),
        ) {
            let mut ring = Ring::default();
            for (start, length) in &ends {
                ring.insert((*start, start + length));
            }
            let mut horizon = 0;
            for (start, length) in asked {
                let end = start + length;
                let mut found: Vec<_> = ring.overlapping(start, end).copied().collect();
                let all = ends.iter().map(|(from, length)| (*from, from + length));
                let kept = all.filter(|(_, until)| *until >= horizon);
                let overlaps = |(from, until): &(u64, u64)| *from < end && *until > start;
                let mut expected: Vec<_> = kept.filter(overlaps).collect();
                found.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(found, expected);
                horizon = horizon.max(start / 4);
                ring.expire(horizon);
            }
        }
    }
}

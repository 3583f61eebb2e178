//! Intervals in order of their end, so that those that overlap another are found by a binary
//! search and a walk over little more than them.

use std::collections::VecDeque;

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
}

impl<T> Default for Ring<T> {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            longest_ns: 0,
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
        let first = self.entries.partition_point(|e| e.end() <= start);
        let last_end = end.saturating_add(self.longest_ns);
        let last = self.entries.partition_point(|e| e.end() < last_end);
        first..last.max(first)
    }
}

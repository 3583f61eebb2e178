//! Which threads ran when a span began and when it ended: its times are taken by one that runs.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::pipeline::{
    thread::{self, Window},
    timeline::{Entry, Timeline},
};

/// Threads that are told apart in one span; with more, all count.
const MAX_THREADS: usize = 4_096;

/// By thread, what it is known to have done at the ends of a span; kept from span to span to save
/// allocations.
#[derive(Debug, Default)]
pub(super) struct Presence(HashMap<u32, Ends, RandomState>);

/// What a thread is known to have done at the ends of a span.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    at_start: bool,
    at_end: bool,
    /// It was off the CPU at one of them.
    away: bool,
}

impl Presence {
    /// How many are known to have run at both, and, in order, who cannot have made the span; `None` where
    /// nobody can be told apart. Only entries that `counts` are looked at.
    pub(super) fn find(
        &mut self,
        window: Window,
        timeline: &Timeline,
        counts: impl Fn(&Entry) -> bool,
    ) -> Option<(usize, Vec<u32>)> {
        let threads = &mut self.0;
        threads.clear();
        timeline.within(window.process, window.start, window.end, &mut |entry, _| {
            if entry.tid != 0 && counts(entry) && threads.len() < MAX_THREADS {
                threads.entry(entry.tid).or_default().add(entry, window);
            }
        });
        if threads.len() >= MAX_THREADS {
            return None;
        }
        let present = threads.values().filter(|ends| ends.was_present()).count();
        let left_out = move |ends: &Ends| {
            if present > 0 {
                !ends.was_present()
            } else {
                ends.away
            }
        };
        if threads.values().all(left_out) {
            return None; // it was handed from one to another, or is not seen
        }
        let away = threads.iter().filter(|(_, ends)| left_out(ends));
        let mut away: Vec<u32> = away.map(|(tid, _)| *tid).collect();
        away.sort_unstable();
        Some((present, away))
    }
}

impl Ends {
    fn add(&mut self, entry: &Entry, window: Window) {
        self.away |= thread::is_away(entry, window);
        self.at_start |= thread::ran_at_start(entry, window);
        self.at_end |= thread::ran_at_end(entry, window);
    }

    const fn was_present(self) -> bool {
        self.at_start && self.at_end && !self.away
    }
}

//! When kernel events were lost: a verdict about such a time says that it knows not all.
//!
//! Bound: [`MAX_LOSSES`] losses, the oldest gives way: those of 200 ms are one, so that is more
//! than the timeline's window.

use std::collections::VecDeque;

use crate::{event::Loss, time::MonoNs};

/// Losses remembered.
const MAX_LOSSES: usize = 1_024;

/// What is lost within this time is one loss.
const MERGED_NS: u64 = 200_000_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Losses(VecDeque<Loss>);

impl Losses {
    /// Takes a loss; the next one ends later.
    pub fn add(&mut self, loss: Loss) {
        if loss.events == 0 {
            return;
        }
        if let Some(last) = self.0.back_mut()
            && loss.end.0 < last.start.0.saturating_add(MERGED_NS)
        {
            last.end = last.end.max(loss.end);
            last.events = last.events.saturating_add(loss.events);
            return;
        }
        if self.0.len() >= MAX_LOSSES {
            self.0.pop_front();
        }
        self.0.push_back(loss);
    }

    /// Events lost between looks that touch `[start, end)`: of a shorter time nobody knows.
    #[must_use]
    pub fn within(&self, start: MonoNs, end: MonoNs) -> u64 {
        let touching = self.0.iter().filter(|l| l.start < end && l.end >= start);
        touching.fold(0, |sum, loss| sum.saturating_add(loss.events))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_counts_for_all_whose_time_it_touches() {
        let mut losses = Losses::default();
        for (start, end, events) in [(0, 10, 5), (10, 20, 0), (20, 30, 7)] {
            losses.add(Loss {
                start: MonoNs(start * MERGED_NS),
                end: MonoNs(end * MERGED_NS),
                events,
            });
        }
        for (start, end, expected) in [
            (0, 5, 5),
            (5, 25, 12),
            (11, 20, 0),
            (11, 19, 0),
            (30, 40, 7),
            (31, 40, 0),
        ] {
            assert_eq!(
                losses.within(MonoNs(start * MERGED_NS), MonoNs(end * MERGED_NS)),
                expected,
                "{start}..{end}"
            );
        }
        for n in 0..5_000 {
            losses.add(Loss {
                start: MonoNs(n * MERGED_NS),
                end: MonoNs((n + 1) * MERGED_NS),
                events: 1,
            });
        }
        assert_eq!(losses.0.len(), MAX_LOSSES);
    }
}

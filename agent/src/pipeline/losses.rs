//! When kernel events were lost, or not told to save cost: a verdict about such a time says that it
//! knows not all.
//!
//! Bound: [`MAX_LOSSES`] losses, the oldest gives way: those of 200 ms are one, so that is more
//! than the timeline's window. As many times of saving, of which those of a sensor that touch are
//! one.

use std::collections::VecDeque;

use crate::{
    event::{Loss, Saving},
    sensor,
    time::MonoNs,
};

/// Losses remembered.
const MAX_LOSSES: usize = 1_024;

/// What is lost within this time is one loss.
const MERGED_NS: u64 = 200_000_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Losses {
    lost: VecDeque<Loss>,
    savings: VecDeque<Saving>,
}

impl Losses {
    /// Takes a loss; the next one ends later.
    pub fn add(&mut self, loss: Loss) {
        if loss.events == 0 {
            return;
        }
        if let Some(last) = self.lost.back_mut()
            && loss.end.0 < last.start.0.saturating_add(MERGED_NS)
        {
            last.end = last.end.max(loss.end);
            last.events = last.events.saturating_add(loss.events);
            return;
        }
        if self.lost.len() >= MAX_LOSSES {
            self.lost.pop_front();
        }
        self.lost.push_back(loss);
    }

    /// Takes a time of saving; the next one of the sensor ends later.
    pub fn add_saving(&mut self, saving: Saving) {
        if saving.end <= saving.start {
            return;
        }
        let mut before = self.savings.iter_mut().rev();
        if let Some(last) = before.find(|last| last.sensor == saving.sensor)
            && saving.start <= last.end
        {
            last.end = last.end.max(saving.end);
            return;
        }
        if self.savings.len() >= MAX_LOSSES {
            self.savings.pop_front();
        }
        self.savings.push_back(saving);
    }

    /// Sensors that told less in `[start, end)`, in order of their names.
    #[must_use]
    pub fn saving(&self, start: MonoNs, end: MonoNs) -> Vec<&'static str> {
        let touching = self.savings.iter();
        let touching = touching.filter(|s| s.start < end && s.end > start);
        let mut names: Vec<_> = touching.filter_map(|s| sensor::name_of(s.sensor)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Events lost between looks that touch `[start, end)`: of a shorter time nobody knows.
    #[must_use]
    pub fn within(&self, start: MonoNs, end: MonoNs) -> u64 {
        let touching = self.lost.iter().filter(|l| l.start < end && l.end >= start);
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
        assert_eq!(losses.lost.len(), MAX_LOSSES);
    }

    #[test]
    fn who_told_less_is_known_by_time_and_name() {
        use agent_common::event::sensor::{SECCOMP, WAIT};

        let mut losses = Losses::default();
        let saving = |sensor, start, end| Saving {
            sensor,
            start: MonoNs(start),
            end: MonoNs(end),
        };
        for one in [
            saving(WAIT, 10, 20),
            saving(SECCOMP, 15, 25),
            saving(WAIT, 20, 30),
            saving(WAIT, 40, 50),
            saving(u32::MAX, 40, 50),
            saving(WAIT, 50, 50),
        ] {
            losses.add_saving(one);
        }
        assert_eq!(losses.savings.len(), 4, "those that touch are one");
        for (start, end, expected) in [
            (0, 10, &[][..]),
            (0, 11, &["wait"][..]),
            (18, 26, &["seccomp", "wait"][..]),
            (30, 40, &[][..]),
            (45, 46, &["wait"][..]),
        ] {
            let names = losses.saving(MonoNs(start), MonoNs(end));
            assert_eq!(names, expected, "{start}..{end}");
        }
        for n in 0..5_000 {
            losses.add_saving(saving(WAIT, 100 + n * 10, 105 + n * 10));
        }
        assert_eq!(losses.savings.len(), MAX_LOSSES);
    }
}

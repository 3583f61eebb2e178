//! Which drops were connection tracking's: its counters say so at the moment of the drop, and the
//! wait that follows one is told later.

use std::collections::VecDeque;

use agent_common::event::Record;

/// A drop is told at most once a tick of the clock: one that is meant may be told by another.
const SAME_DROP_NS: u64 = 10_000_000;
/// Drops remembered.
const MAX_REMEMBERED: usize = 1024;

/// Refusals of late, oldest first.
#[derive(Debug, Default)]
pub struct Refusals(VecDeque<Refusal>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Refusal {
    pid: u32,
    leader_start_boottime_ns: u64,
    device: u64,
    at_ns: u64,
}

impl Refusal {
    /// As if this record told of it, then.
    fn of(record: &Record, at_ns: u64) -> Self {
        Self {
            pid: record.pid,
            leader_start_boottime_ns: record.leader_start_boottime_ns,
            device: record.detail,
            at_ns,
        }
    }

    fn is_that_of(&self, other: &Self) -> bool {
        let at_ns = other.at_ns;
        Self { at_ns, ..*self } == *other && self.at_ns.abs_diff(at_ns) <= SAME_DROP_NS
    }
}

impl Refusals {
    /// The drop that was just told was one.
    pub fn note(&mut self, drop: &Record) {
        if self.0.len() >= MAX_REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(Refusal::of(drop, drop.end_ns));
    }

    /// Whether that wait began with one.
    pub fn began(&self, wait: &Record) -> bool {
        let asked = Refusal::of(wait, wait.start_ns);
        self.0.iter().any(|one| one.is_that_of(&asked))
    }
}

#[cfg(test)]
mod tests {
    use agent_common::event::{
        net::{KIND_DROP, KIND_DROP_WAIT},
        sensor,
    };

    use super::*;

    const MS: u64 = 1_000_000;

    fn record(kind: u32, (start_ms, end_ms): (u64, u64)) -> Record {
        Record {
            sensor: sensor::NET,
            kind,
            start_ns: start_ms * MS,
            end_ns: end_ms * MS,
            cgroup_id: 0,
            detail: 7,
            leader_start_boottime_ns: 1,
            pid: 100,
            tid: 100,
            cpu: 0,
            extra: 0,
        }
    }

    #[test]
    fn a_wait_is_the_refusals_that_it_began_with() {
        let mut refusals = Refusals::default();
        refusals.note(&record(KIND_DROP, (1_000, 1_000)));
        // Of another connection, later: the first one's is not forgotten.
        refusals.note(&record(KIND_DROP, (1_150, 1_150)));
        let wait = |start_ms| record(KIND_DROP_WAIT, (start_ms, 1_300));
        assert!(refusals.began(&wait(1_000)));
        assert!(refusals.began(&wait(1_009)), "told once a tick");
        assert!(refusals.began(&wait(1_150)));
        // A rule refused it before anything else met a full table.
        assert!(!refusals.began(&wait(900)));
        assert!(!refusals.began(&wait(1_050)));
        let elsewhere = Record {
            detail: 8,
            ..wait(1_000)
        };
        assert!(!refusals.began(&elsewhere));
        let pid_again = Record {
            leader_start_boottime_ns: 2,
            ..wait(1_000)
        };
        assert!(!refusals.began(&pid_again));
    }

    #[test]
    fn a_bounded_number_is_remembered() {
        let mut refusals = Refusals::default();
        for ms in 0..5_000 {
            refusals.note(&record(KIND_DROP, (ms, ms)));
        }
        assert_eq!(refusals.0.len(), MAX_REMEMBERED);
        assert!(!refusals.began(&record(KIND_DROP_WAIT, (3, 9_000))));
        assert!(refusals.began(&record(KIND_DROP_WAIT, (4_990, 9_000))));
    }
}

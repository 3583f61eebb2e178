//! What is tried again and again: a refusal takes no time, the pause after it does.
//!
//! Only of a thread that is known to work for the span, or where no other request was under way:
//! another's loop is not in its way.
//!
//! A system call that a filter refuses, or a connection that is refused, is over at once; the
//! program waits a little and tries again. So where a thread met at least [`LEAST`] of one kind
//! in a span, none more than [`MAX_PAUSE_NS`] after the one before, the time from the first to the
//! last is theirs. Not so where the thread gets on meanwhile: one that writes to a disk between
//! two refusals does not wait for the filter (SQLite as root asks for an owner in each
//! transaction and does well without). Less what the kernel or a limit took meanwhile, which has its own cause. What
//! is left of less than [`FLOOR_NS`] is nobody's reason.

use std::mem::take;

use crate::{event::Particulars, vocabulary::Cause};

/// Tries that make a series.
const LEAST: usize = 3;
/// Longest pause between two of a series.
const MAX_PAUSE_NS: u64 = 100_000_000;
/// Least time of all the series of a span.
const FLOOR_NS: u64 = 5_000_000;
/// A try that takes longer than this is a wait like any other.
const MAX_TRY_NS: u64 = 10_000_000;

/// Finds series; kept from span to span to save allocations.
#[derive(Debug, Default)]
pub struct Retries {
    tries: Vec<Try>,
    /// What took time by itself.
    taken: Vec<(u64, u64)>,
    /// When threads got on: `(thread, start)`.
    got_on: Vec<(u32, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Try {
    cause: Cause,
    tid: u32,
    start: u64,
    end: u64,
}

/// A stretch that belongs to tries of a kind, monotonic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// What was refused.
    pub cause: Cause,
    /// First nanosecond.
    pub start: u64,
    /// One past the last nanosecond.
    pub end: u64,
}

impl Retries {
    /// Takes what a thread of the span met from `start` to `end`.
    pub fn note(
        &mut self,
        cause: Cause,
        tid: u32,
        (start, end): (u64, u64),
        particulars: &Particulars,
    ) {
        let one = Try {
            cause,
            tid,
            start,
            end,
        };
        if one.is_refusal(particulars) {
            self.tries.push(one);
        } else if end > start && !is_own(cause) {
            self.taken.push((start, end));
            if cause != Cause::Runqueue {
                self.got_on.push((tid, start));
            }
        }
    }

    /// The stretches between tries, disjoint for each kind; forgets what was noted.
    pub fn stretches(&mut self) -> Vec<Stretch> {
        let mut taken = take(&mut self.taken);
        let mut found = Vec::new();
        if self.tries.len() >= LEAST {
            self.tries.sort_unstable();
            taken.sort_unstable();
            self.got_on.sort_unstable();
            let got_on = &self.got_on;
            let one_series = |a: &Try, b: &Try| {
                let next = got_on.partition_point(|at| *at < (a.tid, a.end));
                let between = got_on.get(next).is_some_and(|at| *at < (a.tid, b.start));
                a.cause == b.cause && a.tid == b.tid && a.is_before(b) && !between
            };
            for series in self.tries.chunk_by(one_series).filter(|s| s.len() >= LEAST) {
                let (start, end) = (series[0].start, series[series.len() - 1].end);
                without(start, end, &taken, |start, end| {
                    found.push(Stretch {
                        cause: series[0].cause,
                        start,
                        end,
                    });
                });
            }
        }
        self.tries.clear();
        self.got_on.clear();
        taken.clear();
        self.taken = taken;
        let all: u64 = found.iter().map(|s| s.end - s.start).sum();
        if all < FLOOR_NS {
            found.clear();
        }
        found
    }
}

impl Try {
    /// Whether the next one follows soon enough.
    const fn is_before(&self, next: &Self) -> bool {
        next.start.saturating_sub(self.end) <= MAX_PAUSE_NS
    }

    /// Whether it is one, over at once.
    fn is_refusal(&self, particulars: &Particulars) -> bool {
        let was_refused = match self.cause {
            // A dropped packet is sent again by the kernel; nobody need wait for it.
            Cause::SeccompDenied => true,
            // Only of those that failed is a reason known.
            Cause::TcpConnect => {
                matches!(particulars, Particulars::Flow(f) if !f.reason.is_empty())
            }
            _ => false,
        };
        was_refused && self.end.saturating_sub(self.start) <= MAX_TRY_NS
    }
}

/// What the program does between two tries.
const fn is_own(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::OnCpu | Cause::LockWait | Cause::Sleep | Cause::SocketWait
    )
}

/// Calls `f` with what is left of `[start, end)` without `taken`, which is in order.
fn without(start: u64, end: u64, taken: &[(u64, u64)], mut f: impl FnMut(u64, u64)) {
    let mut at = start;
    for (from, to) in taken {
        if *from >= end {
            break;
        }
        if *from > at {
            f(at, *from);
        }
        at = at.max(*to);
    }
    if at < end {
        f(at, end);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::event::Flow;

    const MS: u64 = 1_000_000;

    fn stretches(of: &[(Cause, u32, u64, u64)]) -> Vec<(Cause, u64, u64)> {
        let refused = Particulars::Flow(Arc::new(Flow {
            slice: None,
            device: String::new(),
            reason: "refused".into(),
        }));
        let mut retries = Retries::default();
        for (cause, tid, start, end) in of {
            retries.note(*cause, *tid, (start * MS, end * MS), &refused);
        }
        let found = retries.stretches();
        assert_eq!(retries.stretches(), [], "forgotten");
        found
            .iter()
            .map(|s| (s.cause, s.start / MS, s.end / MS))
            .collect()
    }

    #[test]
    fn three_refusals_in_a_row_take_the_time_between_them() {
        use Cause::{BlockDevice, SeccompDenied, Sleep, TcpConnect};
        let denied = |at| (SeccompDenied, 7, at, at);
        assert_eq!(stretches(&[denied(10), denied(20)]), []);
        assert_eq!(
            stretches(&[denied(30), denied(10), denied(20)]),
            [(SeccompDenied, 10, 30)]
        );
        assert_eq!(
            stretches(&[denied(10), (SeccompDenied, 8, 20, 20), denied(30)]),
            [],
            "of two threads"
        );
        assert_eq!(
            stretches(&[denied(10), denied(20), denied(400)]),
            [],
            "too long a pause to be one"
        );
        assert_eq!(
            stretches(&[denied(10), denied(11), denied(12)]),
            [],
            "a trifle"
        );
        assert_eq!(
            stretches(&[
                denied(10),
                denied(20),
                denied(30),
                (Sleep, 7, 10, 20),
                (BlockDevice, 8, 5, 12),
                (BlockDevice, 8, 22, 26)
            ]),
            [(SeccompDenied, 12, 22), (SeccompDenied, 26, 30)],
            "the disk's time is the disk's, a sleep between them is theirs"
        );
        assert_eq!(
            stretches(&[
                denied(10),
                denied(20),
                denied(30),
                denied(40),
                (BlockDevice, 7, 22, 26)
            ]),
            [],
            "it got on after the second"
        );
        let refused = |at| (TcpConnect, 7, at, at + 1);
        assert_eq!(
            stretches(&[refused(10), refused(21), refused(32)]),
            [(TcpConnect, 10, 33)]
        );
        let slow = |at| (TcpConnect, 7, at, at + 90);
        assert_eq!(
            stretches(&[slow(0), slow(100), slow(200)]),
            [],
            "waits like any other"
        );
    }

    #[test]
    fn connections_that_were_established_are_no_refusals() {
        let mut retries = Retries::default();
        let established = Particulars::Flow(Arc::new(Flow {
            slice: None,
            device: String::new(),
            reason: String::new(),
        }));
        for at in [10, 20, 30] {
            let times = (at * MS, (at + 1) * MS);
            retries.note(Cause::TcpConnect, 7, times, &established);
        }
        assert_eq!(retries.stretches(), []);
    }

    proptest! {
        #[test]
        fn what_is_left_is_what_was_not_taken(
            (start, length) in (0u64..50, 0u64..50),
            mut taken in prop::collection::vec((0u64..100, 0u64..20), 0..10),
        ) {
            let end = start + length;
            for (from, to) in &mut taken {
                *to += *from;
            }
            taken.sort_unstable();
            let mut left = Vec::new();
            without(start, end, &taken, |from, to| left.extend(from..to));
            let expected: Vec<u64> = (start..end)
                .filter(|at| !taken.iter().any(|(from, to)| (from..to).contains(&at)))
                .collect();
            prop_assert_eq!(left, expected);
        }
    }
}

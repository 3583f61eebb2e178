//! What a refusal costs: the time until the thread asks again.
//!
//! A refused system call takes no time by itself. A program that meets one tries again a
//! little later, and that is what a person waits for. So where one thread is refused at least
//! three times in one span, each within [`SOON_NS`] of the one before, the time in between
//! belongs to the refusal. Not so where the thread gets on meanwhile: one that writes to a
//! disk, or is held back by something else, between two refusals does not wait for the filter
//! (SQLite as root asks for an owner in each transaction and does well without).

use crate::vocabulary::Cause;

/// Longest pause of a loop: what is farther apart are two refusals.
pub const SOON_NS: u64 = 50_000_000;
/// Threads remembered in one span; of more, the first ones.
const MAX_THREADS: usize = 64;

/// The loops of each thread in one span.
#[derive(Debug, Default)]
pub(super) struct Retries(Vec<Loop>);

#[derive(Clone, Copy, Debug)]
struct Loop {
    tid: u32,
    /// Refusals in a row; 0 when the thread got on since.
    refusals: u32,
    /// When the first of them was.
    first: u64,
    /// When the last of them was.
    last: u64,
}

impl Retries {
    /// Starts with another span.
    pub(super) fn begin(&mut self) {
        self.0.clear();
    }

    /// Where a thread's delay begins: for a refusal in a loop, at the one before (for the
    /// third, at the first). To be called in order of time.
    pub(super) fn start(&mut self, cause: Cause, tid: u32, start: u64, end: u64) -> u64 {
        let known = self.0.iter_mut().find(|known| known.tid == tid);
        if cause != Cause::SeccompDenied {
            if let Some(known) = known.filter(|_| gets_on(cause)) {
                known.refusals = 0;
            }
            return start;
        }
        let Some(known) = known else {
            if self.0.len() < MAX_THREADS {
                self.0.push(Loop {
                    tid,
                    refusals: 1,
                    first: end,
                    last: end,
                });
            }
            return start;
        };
        let is_soon = known.last <= start && start - known.last <= SOON_NS;
        if known.refusals == 0 || !is_soon {
            *known = Loop {
                refusals: 1,
                first: end,
                last: end,
                ..*known
            };
            return start;
        }
        let before = known.last;
        known.refusals = known.refusals.saturating_add(1);
        known.last = end;
        match known.refusals {
            2 => start,
            3 => known.first,
            _ => before,
        }
    }
}

/// Whether a thread that has this is doing something else than to try again.
const fn gets_on(cause: Cause) -> bool {
    !matches!(
        cause,
        Cause::SeccompDenied
            | Cause::Runqueue
            | Cause::OnCpu
            | Cause::LockWait
            | Cause::Sleep
            | Cause::SocketWait
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start_ms(retries: &mut Retries, cause: Cause, tid: u32, at_ms: u64) -> u64 {
        retries.start(cause, tid, at_ms * 1_000_000, at_ms * 1_000_000) / 1_000_000
    }

    #[test]
    fn a_loop_takes_the_time_between_its_refusals() {
        let mut retries = Retries::default();
        let mut refused = |tid, at_ms| start_ms(&mut retries, Cause::SeccompDenied, tid, at_ms);
        assert_eq!([5, 8, 12, 20].map(|at| refused(1, at)), [5, 8, 5, 12]);
        assert_eq!(refused(1, 90), 90, "long after");
        assert_eq!([91, 92].map(|at| refused(2, at)), [91, 92], "twice only");
        retries.begin();
        let mut refused = |tid, at_ms| start_ms(&mut retries, Cause::SeccompDenied, tid, at_ms);
        assert_eq!(refused(2, 93), 93, "another span");
    }

    #[test]
    fn who_gets_on_does_not_wait_for_the_filter() {
        let mut retries = Retries::default();
        for at_ms in [5, 10, 15, 20, 25] {
            assert_eq!(
                start_ms(&mut retries, Cause::SeccompDenied, 1, at_ms),
                at_ms
            );
            start_ms(&mut retries, Cause::BlockDevice, 1, at_ms + 2);
        }
        for (at_ms, start) in [(30, 30), (35, 35), (40, 30)] {
            assert_eq!(
                start_ms(&mut retries, Cause::SeccompDenied, 1, at_ms),
                start
            );
            start_ms(&mut retries, Cause::Sleep, 1, at_ms + 2);
            start_ms(&mut retries, Cause::BlockDevice, 2, at_ms + 2);
        }
    }

    #[test]
    fn nothing_else_is_stretched() {
        let mut retries = Retries::default();
        assert_eq!(start_ms(&mut retries, Cause::SeccompDenied, 1, 5), 5);
        assert_eq!(start_ms(&mut retries, Cause::Runqueue, 1, 8), 8);
    }

    #[test]
    fn threads_without_end_are_bounded() {
        let mut retries = Retries::default();
        for tid in 0..10_000 {
            assert_eq!(start_ms(&mut retries, Cause::SeccompDenied, tid, 5), 5);
        }
        assert_eq!(retries.0.len(), MAX_THREADS);
    }
}

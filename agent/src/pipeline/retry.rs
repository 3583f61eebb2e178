//! What a refusal costs: the time until the thread asks again.
//!
//! A refused system call takes no time by itself. A program that meets one tries again a
//! little later, or a slower way, and that is what a person waits for. So where one thread is
//! refused twice within [`SOON_NS`] in one span, the time in between belongs to the refusal,
//! whatever the thread did meanwhile; a refusal that stays alone takes none.

use crate::vocabulary::Cause;

/// Longest pause of a loop: what is farther apart are two refusals.
pub const SOON_NS: u64 = 50_000_000;
/// Threads remembered in one span; of more, the first ones.
const MAX_THREADS: usize = 64;

/// The last refusal of each thread in one span.
#[derive(Debug, Default)]
pub(super) struct Retries(Vec<(u32, u64)>);

impl Retries {
    /// Starts with another span.
    pub(super) fn begin(&mut self) {
        self.0.clear();
    }

    /// Where a thread's delay begins: at the refusal before it, if it is one soon after
    /// another. To be called in order of time.
    pub(super) fn start(&mut self, cause: Cause, tid: u32, start: u64, end: u64) -> u64 {
        if cause != Cause::SeccompDenied {
            return start;
        }
        let Some((_, last)) = self.0.iter_mut().find(|(thread, _)| *thread == tid) else {
            if self.0.len() < MAX_THREADS {
                self.0.push((tid, end));
            }
            return start;
        };
        let before = std::mem::replace(last, end);
        let is_soon = before <= start && start - before <= SOON_NS;
        if is_soon { before } else { start }
    }
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
        assert_eq!([5, 8, 12].map(|at| refused(1, at)), [5, 5, 8]);
        assert_eq!(refused(1, 90), 90, "long after");
        assert_eq!(refused(2, 91), 91, "another thread");
        retries.begin();
        let mut refused = |tid, at_ms| start_ms(&mut retries, Cause::SeccompDenied, tid, at_ms);
        assert_eq!(refused(1, 92), 92, "another span");
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

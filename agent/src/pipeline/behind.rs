//! Whom a span waited for. A thread that waits for a lock, or sleeps before it tries again, is slow
//! by its program only where whoever had the lock went on meanwhile. Where another thread of the
//! same process was held back in that time, by a quota, a disk, or for want of a CPU, that is why:
//! a transaction that waits for one that waits for the disk is slow by the disk.
//!
//! Looked for only where a span is about to be told that its own program made it slow, or nothing
//! though it is slower than its like and waited longer: see [`Correlator`](super::correlate). The other threads'
//! delays then count as far as they lie in the span's own waits, in the order of precedence, so that
//! the parts still add up. What comes of it is named only if it takes at least a quarter of the
//! waits. A wait for a CPU is too common for that: it must take half of what the program was to be
//! blamed for.

use super::{
    judge::{Case, Rules},
    timeline::Entry,
};
use crate::{verdict::Split, vocabulary::Cause};

/// Own waits that are looked at; with more, the program keeps the blame.
const MAX_WAITS: usize = 1_024;

/// Least that a span waited for others where nothing is to be blamed.
const LEAST_WAITS_NS: u64 = 10_000_000;

/// Whether it may be a wait for another thread of the program.
pub const fn may_be(cause: Cause) -> bool {
    matches!(cause, Cause::LockWait | Cause::Sleep)
}

/// Whether who was waited for is to be asked, where `blamed` was to be: a thread that sleeps as
/// ever waits for nobody.
pub fn may_matter(blamed: Option<Cause>, case: &Case<'_>, rules: Rules) -> bool {
    let waits = waited(case.split);
    blamed.map_or_else(
        || waits >= LEAST_WAITS_NS && case.is_slower_with(rules, &[Cause::LockWait, Cause::Sleep]),
        may_be,
    )
}

fn waited(split: &Split) -> u64 {
    split.part(Cause::LockWait) + split.part(Cause::Sleep)
}

/// Whether it holds back a thread, and so whoever waits for it.
const fn holds(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::CpuThrottle
            | Cause::BlockThrottle
            | Cause::MemoryReclaim
            | Cause::BlockDevice
            | Cause::BlockQueue
            | Cause::Runqueue
    )
}

/// The span's own waits, in order, and whose they are.
#[derive(Clone, Debug, Default)]
pub struct Waits {
    tid: u32,
    times: Vec<(u64, u64)>,
}

impl Waits {
    /// Of this thread, still to be filled.
    pub const fn of(tid: u32) -> Self {
        Self {
            tid,
            times: Vec::new(),
        }
    }

    /// Takes what its thread did.
    pub fn add(&mut self, entry: &Entry) {
        if may_be(entry.cause) && entry.tid == self.tid && self.times.len() <= MAX_WAITS {
            self.times.push((entry.start, entry.end));
        }
    }

    /// In order, if there are any and not too many.
    pub fn ready(mut self) -> Option<Self> {
        self.times.sort_unstable();
        (1..=MAX_WAITS).contains(&self.times.len()).then_some(self)
    }

    /// Of a delay, as times: all of one of the span's own thread or of nobody's; of another's what
    /// lies in the waits.
    pub fn pieces(&self, entry: &Entry) -> impl Iterator<Item = (u64, u64)> {
        let (start, end, cause) = (entry.start, entry.end, entry.cause);
        let own = entry.tid == self.tid || entry.tid == 0;
        let first = match own || !holds(cause) {
            true => self.times.len(),
            false => self.times.partition_point(|(_, until)| *until <= start),
        };
        let others = self.times[first..].iter();
        let others = others.take_while(move |(from, _)| *from < end);
        let others = others.map(move |(from, until)| (start.max(*from), end.min(*until)));
        own.then_some((start, end)).into_iter().chain(others)
    }
}

/// Whether `found` is why the span waited, beside `blamed`, which else is its cause: `before` is the
/// split by the span's own thread alone, `now` the one with those that it waited for.
pub fn explains(found: Cause, now: &Split, blamed: Option<Cause>, before: &Split) -> bool {
    let more = now.part(found).saturating_sub(before.part(found));
    match found {
        Cause::Runqueue => blamed.is_some_and(|blamed| more >= before.part(blamed).div_ceil(2)),
        _ => holds(found) && more >= waited(before).div_ceil(4),
    }
}

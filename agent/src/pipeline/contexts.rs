//! What threads worked on, as their programs say: known at each stretch off the CPU, of what was
//! going on when it began.
//!
//! What happened to a thread inside of such a stretch happened to the span of its context. What
//! happened while the thread ran, between two stretches, is a span's if both were in its context,
//! or the one that there is since the span began or until it ended. Otherwise it is nobody's: an
//! event loop may have worked on many meanwhile.
//!
//! Bounds: 48 bytes a stretch, at most [`MAX_STRETCHES`] of all processes together (6 MB, twice
//! that while rings grow); the process with the most gives way first, and that is counted.

use super::{
    by_process::ByProcess,
    ring::Interval,
    thread::is_off_cpu,
    timeline::{Dropped, Entry},
};
use crate::{
    event::{Away, ThreadContext},
    process::ProcessKey,
    time::MonoNs,
};

/// Stretches kept of all processes.
const MAX_STRETCHES: usize = 1 << 17;
/// Stretches looked at for one span; where there are more, its threads are not known.
const MAX_LOOKED_AT: usize = 1 << 14;

/// One stretch off the CPU.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    start: u64,
    end: u64,
    tid: u32,
    context: ThreadContext,
}

impl Interval for Stretch {
    fn start(&self) -> u64 {
        self.start
    }

    fn end(&self) -> u64 {
        self.end
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Contexts(ByProcess<Stretch, MAX_STRETCHES>);

/// In whose context a stretch was, for one span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The span's.
    Own,
    /// Another trace's.
    Others,
    /// Nobody's, or that of another span of the same trace.
    Open,
}

/// What the threads of a process worked on about the time of a span.
#[derive(Clone, Debug, Default)]
pub struct Worked(Vec<(u32, u64, u64, Whose)>);

impl Contexts {
    /// Whether nobody publishes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes one.
    ///
    /// # Errors
    /// [`Dropped`] if its times cannot be; nothing has changed then.
    pub fn add(&mut self, away: &Away, horizon: MonoNs, now: MonoNs) -> Result<(), Dropped> {
        if away.end <= away.start {
            return Err(Dropped::Empty);
        }
        Dropped::check_end(away.end, horizon, now)?;
        let stretch = Stretch {
            start: away.start.0,
            end: away.end.0,
            tid: away.tid,
            context: away.context,
        };
        self.0.add(away.process, stretch);
        Ok(())
    }

    /// What overlaps `[start, end)`; `None` where nothing is known, or too much to look at.
    pub fn worked(
        &self,
        process: ProcessKey,
        (start, end): (u64, u64),
        whose: impl Fn(&ThreadContext) -> Whose,
    ) -> Option<Worked> {
        if self.0.at_most(process, start, end) > MAX_LOOKED_AT {
            return None;
        }
        let overlapping = self.0.overlapping(process, start, end);
        let mut all: Vec<_> = overlapping
            .map(|s| (s.tid, s.start, s.end, whose(&s.context)))
            .collect();
        all.sort_unstable_by_key(|(tid, start, ..)| (*tid, *start));
        (!all.is_empty()).then_some(Worked(all))
    }

    /// Forgets what is older than `horizon`.
    pub fn expire(&mut self, horizon: u64) {
        self.0.expire(horizon);
    }

    /// Stretches forgotten before their time since the last call.
    pub fn take_evicted(&mut self) -> u64 {
        self.0.take_evicted()
    }
}

impl Worked {
    /// The threads that were seen in the span's context, each once, in order.
    pub fn own_threads(&self) -> Vec<u32> {
        let own = self.0.iter().filter(|(.., whose)| *whose == Whose::Own);
        let mut threads: Vec<u32> = own.map(|(tid, ..)| *tid).collect();
        threads.dedup();
        threads
    }

    /// When threads were in other traces' contexts: thread, start, end.
    pub fn others(&self) -> impl Iterator<Item = (u32, u64, u64)> {
        let others = self.0.iter().filter(|(.., whose)| *whose == Whose::Others);
        others.map(|(tid, start, end, _)| (*tid, *start, *end))
    }

    /// Whether it happened to the span. Its middle decides, as clocks differ by microseconds.
    pub fn is_own(&self, entry: &Entry) -> bool {
        let first = self.0.partition_point(|(tid, ..)| *tid < entry.tid);
        let last = self.0.partition_point(|(tid, ..)| *tid <= entry.tid);
        let thread = &self.0[first..last];
        let middle = entry.start + (entry.end - entry.start) / 2;
        let next = thread.partition_point(|(_, _, end, _)| *end <= middle);
        let whose = |at: usize| thread.get(at).map(|(.., whose)| *whose);
        if thread
            .get(next)
            .is_some_and(|(_, start, ..)| *start <= middle)
        {
            return whose(next) == Some(Whose::Own);
        }
        if is_off_cpu(entry.cause) {
            return false; // its stretch was lost
        }
        let around = [next.checked_sub(1).and_then(whose), whose(next)];
        let mut known = around.into_iter().flatten().peekable();
        known.peek().is_some() && known.all(|whose| whose == Whose::Own)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::timeline::{Timeline, TimelineConfig},
        *,
    };
    use crate::{
        event::{Delay, Particulars},
        vocabulary::Cause,
    };

    const NOW: MonoNs = MonoNs(1_000_000_000_000);
    const MS: u64 = 1_000_000;

    fn process(pid: u32) -> ProcessKey {
        ProcessKey {
            pid,
            start_ticks: 1,
        }
    }

    fn away(pid: u32, tid: u32, start_ms: u64, end_ms: u64, span: u8) -> Away {
        Away {
            process: process(pid),
            tid,
            start: MonoNs(start_ms * MS),
            end: MonoNs(end_ms * MS),
            context: ThreadContext {
                trace: [span; 8],
                span: [span; 8],
                is_trace_only: false,
            },
        }
    }

    fn whose(context: &ThreadContext) -> Whose {
        match context.span[0] {
            0 => Whose::Open,
            1 => Whose::Own,
            _ => Whose::Others,
        }
    }

    /// Those of the timeline in which one was taken.
    fn entry(tid: u32, start_us: u64, end_us: u64, cause: Cause) -> Entry {
        let mut timeline = Timeline::new(TimelineConfig::default());
        let delay = Delay {
            cause,
            start: MonoNs(start_us * 1_000),
            end: MonoNs(end_us * 1_000),
            process: process(1),
            tid,
            cpu: 0,
            cgroup_id: 1,
            particulars: Particulars::None,
        };
        timeline.add(&delay, delay.end).unwrap();
        let mut found = None;
        timeline.within(process(1), 0, u64::MAX, &mut |entry, _| {
            found = Some(*entry)
        });
        found.unwrap()
    }

    fn waited(tid: u32, start_us: u64, end_us: u64) -> Entry {
        entry(tid, start_us, end_us, Cause::Runqueue)
    }

    #[test]
    fn what_happens_off_the_cpu_is_the_contexts() {
        let mut contexts = Contexts::default();
        for (tid, start, end, span) in [(5, 10, 20, 1), (5, 30, 40, 2), (6, 10, 40, 1)] {
            let away = away(1, tid, start, end, span);
            contexts.add(&away, MonoNs(0), NOW).unwrap();
        }
        let worked = contexts
            .worked(process(1), (5 * MS, 50 * MS), whose)
            .unwrap();
        assert_eq!(worked.own_threads(), [5, 6]);
        assert_eq!(worked.others().collect::<Vec<_>>(), [(5, 30 * MS, 40 * MS)]);
        // Off by some microseconds at both ends.
        assert!(worked.is_own(&waited(5, 9_995, 20_005)));
        assert!(!worked.is_own(&waited(5, 29_990, 40_000)));
        assert!(worked.is_own(&waited(6, 29_990, 40_000)));
        assert!(!worked.is_own(&waited(7, 10_000, 20_000)));
        assert!(contexts.worked(process(2), (0, 50 * MS), whose).is_none());
    }

    #[test]
    fn what_happens_on_the_cpu_is_the_contexts_around_it() {
        let mut contexts = Contexts::default();
        for (start, end, span) in [(10, 20, 1), (30, 40, 1), (50, 60, 0), (70, 80, 1)] {
            let away = away(1, 5, start, end, span);
            contexts.add(&away, MonoNs(0), NOW).unwrap();
        }
        let worked = contexts.worked(process(1), (0, 100 * MS), whose).unwrap();
        let own = |start_ms: u64, end_ms: u64| {
            worked.is_own(&entry(5, start_ms * 1_000, end_ms * 1_000, Cause::OnCpu))
        };
        assert!(own(5, 10), "since the span began");
        assert!(own(20, 30));
        assert!(!own(40, 50), "then it worked for nobody");
        assert!(!own(60, 70), "before it worked for nobody");
        assert!(own(80, 90), "until the span ended");
        let lost = waited(5, 20_000, 30_000);
        assert!(!worked.is_own(&lost), "nobody said what it was at");
    }

    #[test]
    fn the_one_with_most_gives_way() {
        let mut contexts = Contexts::default();
        contexts.add(&away(2, 5, 1, 2, 1), MonoNs(0), NOW).unwrap();
        for n in 0..2 * MAX_STRETCHES as u64 {
            let mut away = away(1, 5, 1, 2, 1);
            (away.start, away.end) = (MonoNs(n), MonoNs(n + 1));
            contexts.add(&away, MonoNs(0), NOW).unwrap();
        }
        assert!(contexts.0.len() <= MAX_STRETCHES);
        assert_eq!(
            contexts.take_evicted() as usize + contexts.0.len(),
            2 * MAX_STRETCHES + 1
        );
        assert!(contexts.worked(process(2), (0, 9 * MS), whose).is_some());
        contexts.expire(u64::MAX);
        assert!(contexts.is_empty());
        assert_eq!(contexts.0.len(), 0);
    }

    #[test]
    fn times_that_cannot_be_are_refused() {
        let mut contexts = Contexts::default();
        let mut add = |away: Away| contexts.add(&away, MonoNs(5 * MS), NOW);
        assert_eq!(add(away(1, 5, 9, 9, 1)), Err(Dropped::Empty));
        assert_eq!(add(away(1, 5, 3, 4, 1)), Err(Dropped::TooOld));
        let late = NOW.0 / MS + 2_000;
        assert_eq!(add(away(1, 5, 9, late, 1)), Err(Dropped::Future));
    }
}

//! Which thread worked on a request: the one that began to read it right before the span began
//! and wrote the answer right before or after the span ended.
//!
//! - *Right* is measured in the thread's own time: [`GAP_NS`] at most, not counting what it
//!   was off the CPU in between (throttled, queued, blocked). So a busy machine makes the
//!   answer neither wrong nor rarer.
//! - A span's times are taken by the thread itself, so a thread that was off the CPU at one of
//!   them is not the one.
//! - Both allow for the sender's clock: [`CLOCK_NS`], and a millisecond where it counts in
//!   milliseconds ([`slack_ns`]).
//! - If turns of more than one thread fit, or one that says nothing (an event loop's, a
//!   connection that was handed over), no thread is named.

use super::{
    timeline::{Entry, Timeline},
    turns::Turns,
};
use crate::{event::Particulars, process::ProcessKey, vocabulary::Cause};

/// Own time of a thread between reading and the span's start, and between its end and writing.
const GAP_NS: u64 = 5_000_000;
/// The same by the wall clock, being off the CPU included.
const REACH_NS: u64 = 500_000_000;
/// What happens up to this long before and after a span is looked at.
pub const LOOKS_AROUND_NS: u64 = 2 * REACH_NS;
/// By so much the two clocks may be off: their offset is a sample.
const CLOCK_NS: u64 = 100_000;
/// Running and queueing for so long together may go untold (of tracked processes).
const UNTOLD_NS: u64 = 200_000;
/// Resolution of coarse clocks.
const COARSE_NS: u64 = 1_000_000;
/// Turns looked at for one request; where there are more, no thread is named.
const MAX_TURNS: usize = 4_096;
/// Of those, such as may fit.
const MAX_CANDIDATES: usize = 512;
/// SDKs of languages whose runtimes move a request from thread to thread.
const MOVERS: &[&str] = &["go", "erlang", "elixir", "swift"];

/// SDKs of languages in which one thread runs all of a program's own code.
const LOOPS: &[&str] = &["nodejs", "webjs"];

/// System calls in which a thread waits for whatever comes next, of any request.
const WAITS_OF_A_LOOP: &[&str] = &[
    "epoll_wait",
    "epoll_pwait",
    "epoll_pwait2",
    "io_uring_enter",
];

/// Whether what a request needs is done by the thread that answers it, in an event loop.
#[must_use]
pub fn is_one_loop(language: &str) -> bool {
    LOOPS.contains(&language)
}

/// Whether a request stays on one thread in programs of this language
/// (`telemetry.sdk.language`), as far as that can be told.
#[must_use]
pub fn stays_on_a_thread(language: &str) -> bool {
    !MOVERS.contains(&language)
}

/// How far a sender's clock may be off, by the looks of a span's start.
#[must_use]
pub const fn slack_ns(start_unix_ns: u64) -> u64 {
    if start_unix_ns.is_multiple_of(COARSE_NS) {
        COARSE_NS + CLOCK_NS
    } else {
        CLOCK_NS
    }
}

/// A stretch of a process's time, monotonic, and how far its ends may be off.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// The process.
    pub process: ProcessKey,
    /// First nanosecond.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// See [`slack_ns`].
    pub slack_ns: u64,
}

/// A turn that may be the request's.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    tid: u32,
    is_whole: bool,
    read: u64,
    written: u64,
    /// Off the CPU between reading and start.
    off_before: u64,
    /// Off the CPU between end and writing.
    off_after: u64,
    was_away: bool,
}

/// The thread that worked on the request with this span, if just one can be.
#[must_use]
pub fn infer(turns: &Turns, timeline: &Timeline, window: Window) -> Option<u32> {
    let mut candidates = candidates(turns, window)?;
    measure(&mut candidates, timeline, window);
    let mut fitting = candidates.iter().filter(|c| fits(c, window));
    let first = fitting.next()?;
    let alone = first.is_whole && fitting.all(|c| c.is_whole && c.tid == first.tid);
    (alone && !went_back_to_its_loop(timeline, first.tid, window)).then_some(first.tid)
}

/// Whether the thread waited for whatever comes next while the request was under way: then
/// others work on it, and this one only reads and writes.
#[must_use]
pub fn went_back_to_its_loop(timeline: &Timeline, tid: u32, window: Window) -> bool {
    let from = moment(window.start, window.slack_ns).1;
    let to = moment(window.end, window.slack_ns).0;
    let mut went = false;
    if from < to {
        timeline.within(window.process, from, to, &mut |entry, particulars| {
            went |= entry.tid == tid
                && entry.cause == Cause::SocketWait
                && matches!(particulars, Particulars::SystemCall(call)
                    if WAITS_OF_A_LOOP.contains(&&*call.name));
        });
    }
    went
}

/// Whether the thread is known to have been off the CPU at the start or the end.
#[must_use]
pub fn was_away(timeline: &Timeline, tid: u32, window: Window) -> bool {
    let mut away = false;
    for at in [window.start, window.end] {
        let (from, to) = moment(at, window.slack_ns);
        timeline.within(window.process, from, to, &mut |entry, _| {
            away |= entry.tid == tid && is_away(entry, window);
        });
    }
    away
}

/// Whether the interval says that its thread was off the CPU at the start or the end.
#[must_use]
pub fn is_away(entry: &Entry, window: Window) -> bool {
    let at = |at| {
        let (from, to) = moment(at, window.slack_ns);
        entry.start <= from && entry.end >= to
    };
    is_off_cpu(entry.cause) && (at(window.start) || at(window.end))
}

/// The thread that answers all that the process answers, where it is one: an event loop, or a
/// server of one thread.
#[must_use]
pub fn only_one(turns: &Turns, window: Window) -> Option<u32> {
    let (mut only, mut reads) = (None, false);
    let from = window.start.saturating_sub(LOOKS_AROUND_NS);
    let until = window.end.saturating_add(LOOKS_AROUND_NS);
    for written in turns.written(window.process, from, until).take(MAX_TURNS) {
        if *only.get_or_insert(written.tid) != written.tid {
            return None;
        }
        reads |= written.read < written.at;
    }
    only.filter(|_| reads)
}

/// Whether the interval says that its thread ran at the start: it did, or something held it up
/// right after.
#[must_use]
pub fn ran_at_start(entry: &Entry, window: Window) -> bool {
    let (from, to) = moment(window.start, window.slack_ns);
    if entry.cause == Cause::OnCpu {
        entry.start <= to && entry.end >= from
    } else {
        entry.start >= from && entry.start <= to.saturating_add(UNTOLD_NS)
    }
}

/// Likewise at the end: something had held it up right before.
#[must_use]
pub fn ran_at_end(entry: &Entry, window: Window) -> bool {
    let (from, to) = moment(window.end, window.slack_ns);
    if entry.cause == Cause::OnCpu {
        entry.start <= to && entry.end >= from
    } else {
        entry.end <= to && entry.end >= from.saturating_sub(UNTOLD_NS)
    }
}

fn candidates(turns: &Turns, window: Window) -> Option<Vec<Candidate>> {
    let Window {
        process,
        start,
        end,
        slack_ns,
    } = window;
    let from = end
        .saturating_sub(REACH_NS)
        .max(start.saturating_sub(slack_ns));
    let until = end.saturating_add(REACH_NS);
    let mut candidates: Vec<Candidate> = Vec::new();
    for (seen, turn) in turns.written(process, from, until).enumerate() {
        if seen >= MAX_TURNS || candidates.len() >= MAX_CANDIDATES {
            return None;
        }
        let is_read = turn.read < turn.at;
        let began = turn.read <= start.saturating_add(slack_ns)
            && start.saturating_sub(turn.read) <= REACH_NS;
        if began || !is_read {
            candidates.push(Candidate {
                tid: turn.tid,
                is_whole: turn.is_whole,
                read: if is_read { turn.read } else { start },
                written: turn.at,
                off_before: 0,
                off_after: 0,
                was_away: false,
            });
        }
    }
    candidates.sort_unstable_by_key(|c| (c.tid, c.written, c.read));
    Some(candidates)
}

/// Fills in what the candidates' threads were off the CPU.
fn measure(candidates: &mut [Candidate], timeline: &Timeline, window: Window) {
    let Window {
        process,
        start,
        end,
        slack_ns,
    } = window;
    let Some(first_read) = candidates.iter().map(|c| c.read).min() else {
        return;
    };
    let first_written = candidates.iter().map(|c| c.written).min().unwrap_or(end);
    let last_written = candidates.iter().map(|c| c.written).max().unwrap_or(end);
    let around_start = moment(start, slack_ns);
    let around_end = moment(end, slack_ns);
    let mut near = |from: u64, to: u64, moment: (u64, u64), is_start: bool| {
        timeline.within(
            process,
            from.min(moment.0),
            to.max(moment.1),
            &mut |entry, _| {
                if !is_off_cpu(entry.cause) {
                    return;
                }
                let at = candidates.partition_point(|c| c.tid < entry.tid);
                for c in candidates[at..]
                    .iter_mut()
                    .take_while(|c| c.tid == entry.tid)
                {
                    c.was_away |= entry.start <= moment.0 && entry.end >= moment.1;
                    let overlap = |from: u64, to: u64| {
                        entry.end.min(to).saturating_sub(entry.start.max(from))
                    };
                    if is_start {
                        c.off_before += overlap(c.read, start);
                    } else {
                        c.off_after += overlap(end.min(c.written), end.max(c.written));
                    }
                }
            },
        );
    };
    near(first_read, start, around_start, true);
    near(
        first_written.min(end),
        last_written.max(end),
        around_end,
        false,
    );
}

fn fits(candidate: &Candidate, window: Window) -> bool {
    let before = window.start.saturating_sub(candidate.read);
    let after = window.end.abs_diff(candidate.written);
    // Where it did not read, being away at the start says nothing against it.
    (!candidate.was_away || !candidate.is_whole)
        && before.saturating_sub(candidate.off_before) <= GAP_NS + window.slack_ns
        && after.saturating_sub(candidate.off_after) <= GAP_NS + window.slack_ns
}

/// When that really was. A coarse clock shows the last tick.
const fn moment(at: u64, slack_ns: u64) -> (u64, u64) {
    (at.saturating_sub(CLOCK_NS), at.saturating_add(slack_ns))
}

/// What a thread does not run in.
#[must_use]
pub const fn is_off_cpu(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::CpuThrottle | Cause::Runqueue | Cause::LockWait | Cause::SocketWait | Cause::Sleep
    )
}

//! Splits a span's time by cause: one sweep over the boundaries of its children and of the
//! delays that overlap it, `O((n + m) log (n + m))`.
//!
//! Each instant is counted once, for the cause that stands first in [`PRECEDENCE`]:
//!
//! 1. `downstream`: an instant in a child span is the child's to explain, not the span's.
//! 2. What holds a thread by decree (a kill, the CPU quota, io.max, the memory limit, a
//!    filter): nothing that happens meanwhile would have helped.
//! 3. What a network path or a device does; the device before its queue, as a queue is
//!    long because the device is busy.
//! 4. The hypervisor, then the queue for a CPU.
//! 5. `on_cpu`: somebody in the process makes progress.
//! 6. Voluntary waits last: in a process with many threads some idle one always waits for
//!    a lock, a socket or a timer, and must not hide that another one runs. (Of a single
//!    thread, running and waiting never overlap, so there the order is of no matter.)
//!
//! Where some threads of the process wait for a CPU while others run, whose wait the
//! request's was is not known: the instant is shared between `runqueue` and `on_cpu` by
//! their number. (One thread never does both, so a request on its own is measured exactly;
//! in a pool that keeps every CPU busy somebody always waits, and the whole time would be
//! called a wait although every request makes progress.)
//!
//! Where it is not known which of several requests in flight, or which of several threads, it
//! was, an instant is shared: see [`Sweep::shared_by`]. What `k` threads lose at an instant
//! that `n` share counts `k/n` of it for each (at most all), in the order above, and what that
//! leaves is `unexplained`. So what all of them are told adds up to what was lost, not to a
//! multiple of it.
//!
//! What none of them covers is `unexplained`. The parts add up to the self time exactly:
//! they are the lengths of disjoint pieces that cover it.
//!
//! Steal: the hypervisor stretches what it interrupts. Of a piece of `runqueue` or
//! `on_cpu`, the part that was stolen from its CPU in that time becomes `steal`. Where
//! several threads wait at once, the CPU is that of the one that began last.

use crate::{verdict::Split, vocabulary::Cause};

/// Which cause an instant counts for, first match.
pub const PRECEDENCE: [Cause; 22] = [
    Cause::Downstream,
    Cause::OomKill,
    Cause::CpuThrottle,
    Cause::BlockThrottle,
    Cause::MemoryReclaim,
    Cause::SeccompDenied,
    Cause::Virtqueue,
    Cause::NetDrop,
    Cause::Conntrack,
    Cause::TcpRetransmit,
    Cause::BlockDevice,
    Cause::BlockQueue,
    Cause::TcpConnect,
    Cause::TcpRtt,
    Cause::KvmExit,
    Cause::Steal,
    Cause::Runqueue,
    Cause::OnCpu,
    Cause::LockWait,
    Cause::SocketWait,
    Cause::Sleep,
    Cause::Unexplained,
];

/// A cause's place in [`PRECEDENCE`].
const fn rank(cause: Cause) -> usize {
    let mut at = 0;
    while at < PRECEDENCE.len() {
        if PRECEDENCE[at] as u8 == cause as u8 {
            return at;
        }
        at += 1;
    }
    UNEXPLAINED
}

const DOWNSTREAM: usize = 0;
const UNEXPLAINED: usize = PRECEDENCE.len() - 1;
const STEAL: usize = rank(Cause::Steal);
const ON_CPU: usize = rank(Cause::OnCpu);
const RUNQUEUE: usize = rank(Cause::Runqueue);
/// In place of a cause's: another request in flight.
const REQUEST: usize = PRECEDENCE.len();
/// What can be open at an instant.
type Open = [u32; PRECEDENCE.len() + 1];

/// A stretch of a span's self time, in nanoseconds from the span's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The mechanism.
    pub cause: Cause,
    /// First nanosecond.
    pub start: u64,
    /// One past the last nanosecond.
    pub end: u64,
    /// How much of it the cause takes: all, except where steal or running threads take a part.
    pub cause_ns: u64,
}

impl Stretch {
    /// The part of `ns` that one of the sharers has of what happens to `threads` threads.
    fn part_of(&self, ns: u64, threads: u64) -> u64 {
        match u64::from(self.sharers) {
            sharers if sharers <= threads => ns,
            sharers => (u128::from(ns) * u128::from(threads) / u128::from(sharers)) as u64,
        }
    }
}

/// `ns * of / all`, rounded up.
fn ratio(ns: u64, of: u64, all: u64) -> u64 {
    (u128::from(ns) * u128::from(of)).div_ceil(u128::from(all.max(1))) as u64
}

/// Pieces of one stretch that are looked back on for one to add to.
const SIDE_BY_SIDE: usize = 8;

/// The sweep, with its buffers kept from span to span.
#[derive(Debug, Default)]
pub struct Sweep {
    duration: u64,
    /// Those who share an instant with no other request in flight.
    sharers: u32,
    boundaries: Vec<Boundary>,
    pieces: Vec<Piece>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Boundary {
    at: u64,
    /// Closing sorts before opening.
    opens: bool,
    rank: u8,
    cpu: u16,
}

/// The time between two boundaries, and what is open in it.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    start: u64,
    end: u64,
    stolen_ns: u64,
    /// Those who share it.
    sharers: u32,
}

impl Sweep {
    /// Starts with a span of `duration` nanoseconds.
    pub fn begin(&mut self, duration: u64) {
        self.duration = duration;
        self.sharers = 1;
        self.boundaries.clear();
        self.pieces.clear();
    }

    /// What is lost is that of one among so many: threads that may be the span's. With other
    /// requests in flight, of the larger number.
    pub fn shared_by(&mut self, sharers: usize) {
        self.sharers = u32::try_from(sharers).unwrap_or(u32::MAX).max(1);
    }

    /// Another request in flight, of which the span's time cannot be told apart, as
    /// [`Sweep::child`].
    pub fn other_request(&mut self, start: i128, end: i128) {
        self.interval(REQUEST, 0, start, end);
    }

    /// Adds a child's interval, in nanoseconds from the span's start; clipped to the span.
    pub fn child(&mut self, start: i128, end: i128) {
        self.interval(DOWNSTREAM, 0, start, end);
    }

    /// Adds a delay, likewise.
    pub fn delay(&mut self, cause: Cause, cpu: u16, start: i128, end: i128) {
        self.interval(rank(cause), cpu, start, end);
    }

    /// Splits. `stolen(cpu, start, end)` says how much of that stretch (nanoseconds from
    /// the span's start) the hypervisor took from the CPU.
    pub fn run(&mut self, stolen: impl Fn(u16, u64, u64) -> u64) -> Split {
        self.boundaries.sort_unstable();
        let mut totals = [0u64; PRECEDENCE.len()];
        let mut open: Open = [0; PRECEDENCE.len() + 1];
        let mut cpu_of = [0u16; PRECEDENCE.len() + 1];
        let mut open_mask = 1u32 << UNEXPLAINED;
        open[UNEXPLAINED] = 1; // always: it is what is left
        let mut at = 0;
        let mut next = 0;
        while at < self.duration {
            while let Some(boundary) = self.boundaries.get(next).filter(|b| b.at <= at) {
                let rank = usize::from(boundary.rank);
                if boundary.opens {
                    open[rank] += 1;
                    if rank != REQUEST {
                        open_mask |= 1 << rank;
                    }
                    cpu_of[rank] = boundary.cpu;
                } else {
                    open[rank] -= 1;
                    if open[rank] == 0 && rank != REQUEST {
                        open_mask &= !(1 << rank);
                    }
                }
                next += 1;
            }
            let end = self.boundaries.get(next).map_or(self.duration, |b| b.at);
            let rank = open_mask.trailing_zeros() as usize;
            let stretch = Stretch {
                start: at,
                end,
                stolen_ns: match PRECEDENCE[rank] {
                    Cause::Runqueue | Cause::OnCpu => stolen(cpu_of[rank], at, end),
                    _ => 0,
                },
                sharers: self.sharers.max(open[REQUEST].saturating_add(1)),
            };
            if rank == DOWNSTREAM {
                totals[DOWNSTREAM] += end - at;
            } else {
                self.stretch(stretch, open_mask, &open, &mut totals);
            }
            at = end;
        }
        let parts = PRECEDENCE
            .into_iter()
            .zip(totals)
            .skip(1)
            .filter(|(_, ns)| *ns > 0);
        Split {
            self_time_ns: self.duration - totals[DOWNSTREAM],
            parts: parts.collect(),
            downstream_ns: totals[DOWNSTREAM],
        }
    }

    /// After [`Sweep::run`]: the pieces of delays, in order of time (`on_cpu`, `downstream`
    /// and `unexplained` are not among them).
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    fn interval(&mut self, rank: usize, cpu: u16, start: i128, end: i128) {
        let duration = i128::from(self.duration);
        let (start, end) = (
            start.clamp(0, duration) as u64,
            end.clamp(0, duration) as u64,
        );
        if start < end {
            let rank = rank as u8;
            self.boundaries.push(Boundary {
                at: start,
                opens: true,
                rank,
                cpu,
            });
            self.boundaries.push(Boundary {
                at: end,
                opens: false,
                rank,
                cpu,
            });
        }
    }

    /// Deals a stretch out to what is open in it, in order of precedence.
    fn stretch(
        &mut self,
        stretch: Stretch,
        mut open_mask: u32,
        open: &Open,
        totals: &mut [u64; PRECEDENCE.len()],
    ) {
        let Stretch { start, end, .. } = stretch;
        let mut rest = end - start;
        // Stolen is what the first of them would have had.
        let mut stolen_ns = stretch.stolen_ns.min(rest);
        while rest > 0 {
            let rank = open_mask.trailing_zeros() as usize;
            open_mask &= !(1 << rank);
            if rank >= UNEXPLAINED {
                totals[UNEXPLAINED] += rest;
                return;
            }
            // Where some wait for a CPU and others run, both have their part at once.
            let running = match rank {
                RUNQUEUE => open[ON_CPU],
                _ => 0,
            };
            let all = u64::from(open[rank]) + u64::from(running);
            let part = stretch.part_of(end - start, all).min(rest);
            rest -= part;
            let steal_ns = match std::mem::take(&mut stolen_ns) {
                0 => 0,
                stolen => stretch.part_of(stolen, all).min(part),
            };
            let part = part - steal_ns;
            let cause_ns = ratio(part, u64::from(open[rank]), all);
            totals[rank] += cause_ns;
            totals[STEAL] += steal_ns;
            if running > 0 {
                totals[ON_CPU] += part - cause_ns;
                open_mask &= !(1 << ON_CPU);
            }
            if rank != ON_CPU && cause_ns > 0 {
                self.piece(PRECEDENCE[rank], start, end, cause_ns);
            }
            if steal_ns > 0 {
                self.piece(Cause::Steal, start, end, steal_ns);
            }
        }
    }

    /// Adds a piece, to the one before when that touches it and is of the same cause.
    fn piece(&mut self, cause: Cause, start: u64, end: u64, cause_ns: u64) {
        // Of a shared stretch there are several, one beside the other.
        let mut lately = self.pieces.iter_mut().rev().take(SIDE_BY_SIDE);
        if let Some(last) = lately.find(|last| last.cause == cause && last.end == start) {
            last.end = end;
            last.cause_ns += cause_ns;
        } else {
            self.pieces.push(Piece {
                cause,
                start,
                end,
                cause_ns,
            });
        }
    }
}

#[cfg(test)]
mod tests;

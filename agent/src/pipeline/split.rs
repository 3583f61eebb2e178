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

/// The sweep, with its buffers kept from span to span.
#[derive(Debug, Default)]
pub struct Sweep {
    duration: u64,
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
    rank: usize,
    /// Intervals of the cause that are open.
    waiting: u32,
    /// Intervals of `on_cpu` that are open.
    running: u32,
    start: u64,
    end: u64,
    stolen_ns: u64,
}

impl Stretch {
    fn part_of_waiting(&self, ns: u64) -> u64 {
        let (waiting, running) = (u128::from(self.waiting), u128::from(self.running));
        (u128::from(ns) * waiting).div_ceil((waiting + running).max(1)) as u64
    }
}

impl Sweep {
    /// Starts with a span of `duration` nanoseconds.
    pub fn begin(&mut self, duration: u64) {
        self.duration = duration;
        self.boundaries.clear();
        self.pieces.clear();
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
        let mut open = [0u32; PRECEDENCE.len()];
        let mut cpu_of = [0u16; PRECEDENCE.len()];
        let mut open_mask = 1u32 << UNEXPLAINED;
        open[UNEXPLAINED] = 1; // always: it is what is left
        let mut at = 0;
        let mut next = 0;
        while at < self.duration {
            while let Some(boundary) = self.boundaries.get(next).filter(|b| b.at <= at) {
                let rank = usize::from(boundary.rank);
                if boundary.opens {
                    open[rank] += 1;
                    open_mask |= 1 << rank;
                    cpu_of[rank] = boundary.cpu;
                } else {
                    open[rank] -= 1;
                    if open[rank] == 0 {
                        open_mask &= !(1 << rank);
                    }
                }
                next += 1;
            }
            let end = self.boundaries.get(next).map_or(self.duration, |b| b.at);
            let rank = open_mask.trailing_zeros() as usize;
            let stretch = Stretch {
                rank,
                waiting: open[rank],
                running: open[ON_CPU],
                start: at,
                end,
                stolen_ns: match PRECEDENCE[rank] {
                    Cause::Runqueue | Cause::OnCpu => stolen(cpu_of[rank], at, end),
                    _ => 0,
                },
            };
            self.stretch(stretch, &mut totals);
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

    fn stretch(&mut self, stretch: Stretch, totals: &mut [u64; PRECEDENCE.len()]) {
        let Stretch {
            rank, start, end, ..
        } = stretch;
        let cause = PRECEDENCE[rank];
        let steal_ns = stretch.stolen_ns.min(end - start);
        let rest = end - start - steal_ns;
        let cause_ns = match cause {
            Cause::Runqueue => stretch.part_of_waiting(rest),
            _ => rest,
        };
        totals[rank] += cause_ns;
        totals[ON_CPU] += rest - cause_ns;
        totals[STEAL] += steal_ns;
        if matches!(cause, Cause::Downstream | Cause::Unexplained) {
            return;
        }
        if cause != Cause::OnCpu && cause_ns > 0 {
            self.piece(cause, start, end, cause_ns);
        }
        if steal_ns > 0 {
            self.piece(Cause::Steal, start, end, steal_ns);
        }
    }

    /// Adds a piece, to the one before when that touches it and is of the same cause.
    fn piece(&mut self, cause: Cause, start: u64, end: u64, cause_ns: u64) {
        if let Some(last) = self.pieces.last_mut()
            && last.cause == cause
            && last.end == start
        {
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

//! Split and baseline in, verdict out: one cause is named if it explains a stated part of
//! the self time, and nothing is if the span is healthy.
//!
//! A cause is a candidate by its [`Nature`] and its time:
//! - *held back* (quota, io.max, memory limit, a refusal, a loss): abnormal whenever it
//!   comes, however often; a service that is always throttled is told so each time. Floor
//!   1 ms; 20 ms of retransmissions and drops, as TCP also sends probes when an answer takes its
//!   time.
//! - *contention* (run queue, steal, disk queue, VM exits, slow path): normal in small doses on any
//!   busy host: floor 10 ms, about three time slices of the scheduler, and a tenth of the
//!   whole span: of a span that waited for its child nearly all the time, what happened in
//!   the short rest is no reason for anything. Of a wait for a CPU that makes the span slower
//!   than its like (below), and its self time 1.5 times the usual high end, 5 ms are enough.
//! - *service* (device time, connecting): normal work, news only beyond what is usual; so
//!   only with a baseline, and at `baseline_factor` times its usual time. Floor 10 ms. Likewise
//!   where of a wait for a disk or for memory no more is known than the system call; such a wait
//!   for a disk while none had nearly as much to do is no candidate: whom a file system's journal
//!   waited for is not known.
//! - *own* (on CPU, waiting for a lock, a timer, a peer): what a program does is never
//!   abnormal by itself; news only with a baseline, and only where it is known that the time is
//!   this request's ([`Owner`]).
//! - *downstream* (child spans): likewise news only with a baseline; and only where nothing of
//!   the span's own is named, as its self time is what a verdict is about.
//!
//! A candidate is named if it takes at least `share_threshold` of the self time; or, with a
//! baseline, if it takes at least `baseline_factor` times its usual time, the span's self
//! time is at least 1.5 times the usual, and the cause's excess is at least half of the
//! span's: then it is why this span is slower than its like. The one with the most time
//! wins; of equals, the first in the order of precedence.
//!
//! Where several share the blame and none is named (below a memory limit pages are freed, read
//! again from the disk, and waited for in its queue), it is the one that *held back* most, if the
//! self time is `baseline_factor` times the usual and so is that; what it took more than usual is at
//! least a fifth of the excess, 1 ms, and a tenth of the whole span; and what is not the program's own
//! doing took more than usual for at least half of the excess.
//!
//! What is own or downstream has to pass more, as programs differ from request to request: the
//! span (its self time; for downstream, all of it) takes `baseline_factor` times its usual and
//! 1.5 times its usual high end, and so does the cause of its own; the cause takes at least
//! `share_threshold` of it, and at least half of the excess, and that is at least 20 ms.

use std::cmp::Reverse;

use super::{
    baseline::{Baselines, OperationKey, Usual},
    fault::{Circumstances, fault_of},
    split::PRECEDENCE,
    words::{self, Evidence},
};
use crate::{
    process::Identity,
    verdict::{Split, Verdict},
    vocabulary::{Cause, Fault},
};

/// When a cause is named.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Part of the self time, 0..1.
    pub share_threshold: f64,
    /// Times its usual time.
    pub baseline_factor: f64,
}

/// What kind of news a cause is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// Abnormal whenever it comes.
    HeldBack,
    /// Normal in small doses.
    Contention,
    /// Normal work.
    Service,
    /// Of the program itself, its peers and children.
    Own,
}

/// Least time of a cause that is held back.
const FLOOR_HELD_BACK_NS: u64 = 1_000_000;
/// Least time of retransmissions: below, they are the probes that TCP sends when an answer takes
/// its time; a segment that is lost costs 200 ms where nothing comes after it.
const FLOOR_RETRANSMIT_NS: u64 = 20_000_000;
/// Least time of contention and service.
const FLOOR_NS: u64 = 10_000_000;
/// Least time of a wait for a CPU that makes a span slower than its like.
const FLOOR_SLOWER_NS: u64 = 5_000_000;
/// Least that a cause of its own takes more than usual.
const FLOOR_OWN_NS: u64 = 20_000_000;
/// Beyond the usual high end from this on (times 2: 3/2).
const BEYOND_HIGH: (u64, u64) = (3, 2);
/// Least part of the whole span (one in this many) that contention takes.
const DOSE: u64 = 10;
/// Much of what a span is slower than its like: one part in this many.
const MUCH: u64 = 5;
/// A span is slower than its like from this on (times 2: 3/2).
const SLOWER: (u64, u64) = (3, 2);

impl Nature {
    /// Whether what was news is none once it is always there.
    #[must_use]
    pub const fn may_become_usual(self) -> bool {
        matches!(self, Self::Service | Self::Own)
    }

    /// The nature of a cause in its circumstances, which are asked for only where they matter: to
    /// find them costs a walk over the span's delays.
    #[must_use]
    pub fn at(cause: Cause, circumstances: impl Fn() -> Circumstances) -> Self {
        match cause {
            // A wait in `fsync` may be one for a journal that waits for a CPU, a wait in a page
            // fault one for a page that others read: no queue and no limit was seen.
            Cause::BlockQueue | Cause::MemoryReclaim => {
                let at = circumstances();
                match at.is_only_a_call {
                    true if cause == Cause::BlockQueue && at.is_beyond_disks => Self::Own,
                    true => Self::Service,
                    false => Self::of(cause),
                }
            }
            _ => Self::of(cause),
        }
    }

    /// The nature of a cause.
    #[must_use]
    pub const fn of(cause: Cause) -> Self {
        match cause {
            Cause::CpuThrottle
            | Cause::MemoryReclaim
            | Cause::OomKill
            | Cause::BlockThrottle
            | Cause::TcpRetransmit
            | Cause::NetDrop
            | Cause::Virtqueue
            | Cause::Conntrack
            | Cause::SeccompDenied => Self::HeldBack,
            Cause::Runqueue | Cause::Steal | Cause::KvmExit | Cause::BlockQueue | Cause::TcpRtt => {
                Self::Contention
            }
            Cause::BlockDevice | Cause::TcpConnect => Self::Service,
            Cause::LockWait
            | Cause::Sleep
            | Cause::SocketWait
            | Cause::OnCpu
            | Cause::Downstream
            | Cause::Unexplained => Self::Own,
        }
    }
}

/// Whose time it is that the threads spent by which a span is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This request's, and no other's.
    Own,
    /// An event loop's that worked on other requests too. While it computes, or waits for a lock,
    /// none of them goes on, whichever it does that for.
    Loop {
        /// It is known when it waited for what it asked a peer for this request.
        asked: bool,
    },
    /// It may be another request's.
    Unknown,
}

impl Owner {
    /// Whether what the program did of itself held this request up.
    const fn is_told(self, cause: Cause) -> bool {
        match self {
            Self::Own => true,
            Self::Loop { asked } => match cause {
                Cause::OnCpu | Cause::LockWait => true,
                Cause::SocketWait => asked,
                _ => false,
            },
            Self::Unknown => false,
        }
    }
}

/// What a span is judged by.
#[derive(Clone, Copy)]
pub struct Case<'a> {
    /// Its time by cause.
    pub split: &'a Split,
    /// What the fault of a cause depends on.
    pub at: &'a dyn Fn(Cause) -> Circumstances,
    /// Whose time it is that its threads spent.
    pub owner: Owner,
    /// What is usual.
    pub baselines: &'a Baselines,
    /// Of it.
    pub key: OperationKey,
}

/// The cause to name, with the fault it has, or `None` for a healthy span.
#[must_use]
pub fn blame(case: &Case<'_>, rules: Rules) -> Option<(Cause, Fault)> {
    let fault = |cause| fault_of(cause, &(case.at)(cause));
    let most = |is_named: &dyn Fn(Cause, u64) -> bool| {
        let named = case.split.parts.iter().filter(|(c, ns)| is_named(*c, *ns));
        let named = named.filter_map(|(cause, ns)| Some((*cause, fault(*cause)?, *ns)));
        let rank = |cause| PRECEDENCE.iter().position(|c| *c == cause);
        let most = named.min_by_key(|(cause, _, ns)| (Reverse(*ns), rank(*cause)));
        most.map(|(cause, fault, _)| (cause, fault))
    };
    let alone = most(&|cause, ns| match Nature::of(cause) {
        Nature::Own => case.owner.is_told(cause) && case.is_own_news(rules, cause, ns),
        _ => case.is_candidate(rules, cause, ns) && case.is_much(rules, cause, ns),
    });
    let among_several = || most(&|cause, ns| case.holds_most(rules, cause, ns));
    let downstream = Cause::Downstream;
    alone.or_else(among_several).or_else(|| {
        let is_news = case.is_own_news(rules, downstream, case.split.downstream_ns);
        is_news.then(|| Some((downstream, fault(downstream)?)))?
    })
}

impl Case<'_> {
    /// Whether so much of a cause that is not its own can be news at all.
    fn is_candidate(&self, rules: Rules, cause: Cause, ns: u64) -> bool {
        let whole = self.whole_ns();
        // What kept the thread costs a look at the disks: not for what is too short anyway.
        if cause == Cause::BlockQueue && ns < FLOOR_NS {
            return false;
        }
        match Nature::at(cause, || (self.at)(cause)) {
            Nature::HeldBack if matches!(cause, Cause::TcpRetransmit | Cause::NetDrop) => {
                ns >= FLOOR_RETRANSMIT_NS
            }
            Nature::HeldBack => ns >= FLOOR_HELD_BACK_NS,
            Nature::Contention if ns < whole / DOSE => false,
            Nature::Contention if matches!(cause, Cause::Runqueue | Cause::Steal) => {
                ns >= FLOOR_NS || ns >= FLOOR_SLOWER_NS && self.is_slower_by(rules, cause, ns)
            }
            Nature::Contention => ns >= FLOOR_NS,
            Nature::Service => {
                let usual = self.baselines.cause(self.key, cause);
                ns >= FLOOR_NS
                    && usual.is_some_and(|u| is_times(ns, rules.baseline_factor, u.median_ns))
            }
            Nature::Own => false,
        }
    }

    /// Whether the cause takes enough of the span to be why it is slow.
    fn is_much(&self, rules: Rules, cause: Cause, ns: u64) -> bool {
        ns as f64 >= rules.share_threshold * self.split.self_time_ns as f64
            || self.makes_it_slower(rules, cause, ns)
    }

    /// Whether the cause held the span back for much of what it is slower than its like, and things
    /// of that kind did for most of it.
    fn holds_most(&self, rules: Rules, cause: Cause, ns: u64) -> bool {
        // Asked of every part of every healthy span: what is usual is looked up for few of them.
        if Nature::of(cause) != Nature::HeldBack || ns < FLOOR_HELD_BACK_NS {
            return false;
        }
        let is_held = || Nature::at(cause, || (self.at)(cause)) == Nature::HeldBack;
        let (self_time_ns, usual) = (self.split.self_time_ns, self.baselines.self_time(self.key));
        let Some(usual_ns) = usual.map(|usual| usual.median_ns) else {
            return false;
        };
        let excess = self_time_ns.saturating_sub(usual_ns);
        let beyond = |(cause, ns): &(Cause, u64)| {
            let usual = self.baselines.cause(self.key, *cause);
            ns.saturating_sub(usual.map_or(0, |usual| usual.median_ns))
        };
        let others = self.split.parts.iter();
        let others = others.filter(|(cause, _)| Nature::of(*cause) != Nature::Own);
        let more = beyond(&(cause, ns));
        is_times(self_time_ns, rules.baseline_factor, usual_ns)
            && self.is_candidate(rules, cause, more)
            && more >= excess.div_ceil(MUCH).max(self.whole_ns() / DOSE)
            && is_times(ns, rules.baseline_factor, ns - more)
            && others.map(beyond).sum::<u64>() >= excess.div_ceil(2)
            && is_held()
    }

    /// Whether the cause is why the span is slower than its like.
    fn makes_it_slower(&self, rules: Rules, cause: Cause, ns: u64) -> bool {
        let self_time_ns = self.split.self_time_ns;
        let Some((usual_self, usual)) = self
            .baselines
            .self_time(self.key)
            .zip(self.baselines.cause(self.key, cause))
        else {
            return false;
        };
        let excess = self_time_ns.saturating_sub(usual_self.median_ns);
        is_ratio(self_time_ns, SLOWER, usual_self.median_ns)
            && is_times(ns, rules.baseline_factor, usual.median_ns)
            && ns.saturating_sub(usual.median_ns) >= excess.div_ceil(2)
    }

    /// Whether the span is slower than its like, and these causes together take longer than usual.
    pub fn is_slower_with(&self, rules: Rules, causes: &[Cause]) -> bool {
        let usual = |cause: &Cause| self.baselines.cause(self.key, *cause);
        let usual: Option<u64> = causes.iter().map(|c| Some(usual(c)?.median_ns)).sum();
        let now: u64 = causes.iter().map(|cause| self.split.part(*cause)).sum();
        let usual_self = self.baselines.self_time(self.key);
        usual_self.is_some_and(|usual| is_ratio(self.split.self_time_ns, SLOWER, usual.median_ns))
            && usual.is_some_and(|usual| is_times(now, rules.baseline_factor, usual))
    }

    /// [`Self::makes_it_slower`], and beyond what is sometimes usual too.
    fn is_slower_by(&self, rules: Rules, cause: Cause, ns: u64) -> bool {
        let usual = self.baselines.self_time(self.key);
        usual.is_some_and(|usual| is_ratio(self.split.self_time_ns, BEYOND_HIGH, usual.high_ns))
            && self.makes_it_slower(rules, cause, ns)
    }

    /// Whether the program or its callees took unusually long.
    fn is_own_news(&self, rules: Rules, cause: Cause, ns: u64) -> bool {
        if cause == Cause::Unexplained || ns < FLOOR_OWN_NS {
            return false;
        }
        let (whole_ns, usual_whole) = match cause {
            Cause::Downstream => (self.whole_ns(), self.baselines.whole(self.key)),
            _ => (self.split.self_time_ns, self.baselines.self_time(self.key)),
        };
        let Some((usual_whole, usual)) = usual_whole.zip(self.baselines.cause(self.key, cause))
        else {
            return false;
        };
        let is_unusual = |ns: u64, usual: Usual| {
            is_times(ns, rules.baseline_factor, usual.median_ns)
                && is_ratio(ns, BEYOND_HIGH, usual.high_ns)
        };
        let more = ns.saturating_sub(usual.median_ns);
        let excess = whole_ns.saturating_sub(usual_whole.median_ns);
        is_unusual(whole_ns, usual_whole)
            && is_unusual(ns, usual)
            && ns as f64 >= rules.share_threshold * whole_ns as f64
            && more >= FLOOR_OWN_NS
            && more >= excess.div_ceil(2)
    }

    fn whole_ns(&self) -> u64 {
        let split = self.split;
        split.self_time_ns.saturating_add(split.downstream_ns)
    }
}

/// Whether `ns` is at least `usual` times a ratio.
fn is_ratio(ns: u64, (above, below): (u64, u64), usual: u64) -> bool {
    u128::from(ns) * u128::from(below) >= u128::from(usual) * u128::from(above)
}

fn is_times(ns: u64, factor: f64, usual: u64) -> bool {
    ns as f64 >= factor * usual as f64
}

/// Writes the verdict: the cause that [`blame`] named, and what is known about it.
/// `incident` is the name of the one it belongs to.
#[must_use]
pub fn verdict(
    (cause, fault): (Cause, Fault),
    split: &Split,
    identity: &Identity,
    evidence: &Evidence,
    incident: String,
) -> Verdict {
    // A child's time is not of the self time: of all of it, then.
    let (cause_ns, whole_ns) = match cause {
        Cause::Downstream => (
            split.downstream_ns,
            split.self_time_ns.saturating_add(split.downstream_ns),
        ),
        _ => (split.part(cause), split.self_time_ns),
    };
    let share = cause_ns as f64 / whole_ns.max(1) as f64;
    Verdict {
        fault,
        cause,
        share,
        culprit: words::printable(&evidence.culprit.name),
        incident,
        summary: words::summary(cause, share, whole_ns, identity, evidence),
        remedy: words::remedy(cause, fault, identity, evidence),
        evidence: words::numbers(cause, cause_ns, split, evidence),
    }
}

#[cfg(test)]
mod tests;

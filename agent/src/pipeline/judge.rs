//! Split and baseline in, verdict out: one cause is named if it explains a stated part of
//! the self time, and nothing is if the span is healthy.
//!
//! A cause is a candidate by its [`Nature`] and its time:
//! - *held back* (quota, io.max, memory limit, a refusal, a loss): abnormal whenever it
//!   comes, however often; a service that is always throttled is told so each time. Floor
//!   1 ms.
//! - *contention* (run queue, steal, disk queue, VM exits, slow path): normal in small doses on any
//!   busy host: floor 10 ms, about three time slices of the scheduler, and a tenth of the
//!   whole span: of a span that waited for its child nearly all the time, what happened in
//!   the short rest is no reason for anything.
//! - *service* (device time, connecting): normal work, news only beyond what is usual; so
//!   only with a baseline, and at `baseline_factor` times its usual time. Floor 10 ms.
//! - *own* (on CPU, waiting for a lock, a timer, a peer, a child, unexplained): never yet.
//!   A verdict `app` or `downstream` needs more than one process-wide sum to be right.
//!
//! A candidate is named if it takes at least `share_threshold` of the self time; or, with a
//! baseline, if it takes at least `baseline_factor` times its usual time, the span's self
//! time is at least 1.5 times the usual, and the cause's excess is at least half of the
//! span's: then it is why this span is slower than its like. The one with the most time
//! wins; of equals, the first in the order of precedence.

use super::{
    baseline::{Baselines, OperationKey},
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
/// Least time of contention and service.
const FLOOR_NS: u64 = 10_000_000;
/// Least part of the whole span (one in this many) that contention takes.
const DOSE: u64 = 10;
/// A span is slower than its like from this on (times 2: 3/2).
const SLOWER: (u64, u64) = (3, 2);

impl Nature {
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

/// The cause to name, with the fault it has, or `None` for a healthy span.
#[must_use]
pub fn blame(
    split: &Split,
    at: &dyn Fn(Cause) -> Circumstances,
    rules: Rules,
    baselines: &Baselines,
    key: OperationKey,
) -> Option<(Cause, Fault)> {
    let whole = split.self_time_ns.saturating_add(split.downstream_ns);
    let candidates = split.parts.iter().filter(|(cause, ns)| {
        let usual = || baselines.cause_ns(key, *cause);
        match Nature::of(*cause) {
            Nature::HeldBack => *ns >= FLOOR_HELD_BACK_NS,
            Nature::Contention => *ns >= FLOOR_NS && *ns >= whole / DOSE,
            Nature::Service => {
                *ns >= FLOOR_NS
                    && usual().is_some_and(|usual| is_times(*ns, rules.baseline_factor, usual))
            }
            Nature::Own => false,
        }
    });
    candidates
        .filter(|(cause, ns)| {
            *ns as f64 >= rules.share_threshold * split.self_time_ns as f64
                || makes_it_slower(split.self_time_ns, *cause, *ns, rules, baselines, key)
        })
        .filter_map(|(cause, ns)| Some((*cause, fault_of(*cause, &at(*cause))?, *ns)))
        .min_by_key(|(cause, _, ns)| {
            (
                std::cmp::Reverse(*ns),
                PRECEDENCE.iter().position(|c| c == cause),
            )
        })
        .map(|(cause, fault, _)| (cause, fault))
}

/// Whether the cause is why the span is slower than its like.
fn makes_it_slower(
    self_time_ns: u64,
    cause: Cause,
    ns: u64,
    rules: Rules,
    baselines: &Baselines,
    key: OperationKey,
) -> bool {
    let Some((usual_self, usual)) = baselines
        .self_time_ns(key)
        .zip(baselines.cause_ns(key, cause))
    else {
        return false;
    };
    let excess = self_time_ns.saturating_sub(usual_self);
    u128::from(self_time_ns) * u128::from(SLOWER.1) >= u128::from(usual_self) * u128::from(SLOWER.0)
        && is_times(ns, rules.baseline_factor, usual)
        && ns.saturating_sub(usual) >= excess.div_ceil(2)
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
    let cause_ns = split.part(cause);
    let share = cause_ns as f64 / split.self_time_ns.max(1) as f64;
    Verdict {
        fault,
        cause,
        share,
        culprit: words::printable(&evidence.culprit.name),
        incident,
        summary: words::summary(cause, share, split.self_time_ns, identity, evidence),
        remedy: words::remedy(cause, fault, identity, evidence),
        evidence: words::numbers(cause, cause_ns, split, evidence),
    }
}

#[cfg(test)]
mod tests;

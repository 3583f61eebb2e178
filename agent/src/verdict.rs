//! What the pipeline says about a span.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::{
    span::Joined,
    time::UnixNs,
    vocabulary::{Cause, Fault},
};

/// `(cause, nanoseconds)` of a span: one of a few causes, as nearly all are, costs no allocation.
pub type Parts = SmallVec<[(Cause, u64); 3]>;

/// A span's self time by cause, in nanoseconds; the parts add up to `self_time_ns` exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Duration minus the union of the child spans on the request path.
    pub self_time_ns: u64,
    /// `(cause, nanoseconds)`, non-zero parts only, of the self time.
    pub parts: Parts,
    /// Time in child spans (not part of the self time).
    pub downstream_ns: u64,
}

impl Split {
    /// Nanoseconds of a cause, 0 where it has no part.
    #[must_use]
    pub fn part(&self, cause: Cause) -> u64 {
        let part = self.parts.iter().find(|(c, _)| *c == cause);
        part.map_or(0, |(_, ns)| *ns)
    }
}

/// A stretch of a span's time, for a child span.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CauseInterval {
    /// The mechanism.
    pub cause: Cause,
    /// Where it lives.
    pub fault: Fault,
    /// First nanosecond, wall time.
    pub start: UnixNs,
    /// One past the last nanosecond, wall time.
    pub end: UnixNs,
    /// How much of it the cause takes: less than its length where neighbouring
    /// stretches were merged.
    pub cause_ns: u64,
}

/// The answer for one span.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Where the mechanism lives.
    pub fault: Fault,
    /// The mechanism.
    pub cause: Cause,
    /// Its part of the self time, 0..1.
    pub share: f64,
    /// The workload that consumed the resource; empty when it is the victim itself.
    pub culprit: String,
    /// Name of the incident that it belongs to, see [`crate::pipeline::incident`].
    pub incident: String,
    /// One sentence that a person understands.
    pub summary: String,
    /// One sentence: what to do.
    pub remedy: String,
    /// Numbers behind it; the name carries the unit, e.g. `cpu_throttle_ms`.
    pub evidence: Vec<(String, f64)>,
}

/// What the pipeline says about one span of a batch.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// The process behind the span and how it was found.
    pub joined: Joined,
    /// The thread whose delays were counted, where it was one: thread id as the host sees it.
    pub thread: Option<u32>,
    /// `None` where the span could not be judged (times missing, no identity, ...).
    pub split: Option<Split>,
    /// `None` for a healthy span.
    pub verdict: Option<Arc<Verdict>>,
    /// Child spans to add, at most 16, in time order; only with a verdict.
    pub intervals: Vec<CauseInterval>,
}

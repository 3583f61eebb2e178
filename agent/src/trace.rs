//! One trace across services and nodes: which hop made it slow, and what the agents of those
//! nodes say about that hop. Pure: spans in, a report out; where they come from is
//! `command::trace`'s and `export`'s affair.
//!
//! In order: [`tree`] makes one tree of whatever came (copies, cycles, missing parents),
//! [`clock`] brings the hosts' clocks together, [`path`] walks the critical path, and
//! [`report`] says what that means. Each step is bounded by sorting, `O(n log n)`, and none
//! recurses, so that a trace of 100 000 nested spans needs no deep stack. The result does not
//! depend on the order in which the spans come.

mod clock;
pub mod draw;
mod path;
pub mod read;
pub mod report;
mod tree;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

pub(crate) use self::clock::slack_ns as clock_slack_ns;
pub use self::report::Report;
use crate::{
    span::{SpanId, TraceId},
    vocabulary::{Cause, Fault},
};

/// Most spans of one trace that are looked at.
pub const MAX_SPANS: usize = 200_000;
/// `SpanKind.SPAN_KIND_SERVER`.
const SERVER: i32 = 2;
/// `SpanKind.SPAN_KIND_CLIENT`.
const CLIENT: i32 = 3;
/// `SpanKind.SPAN_KIND_PRODUCER`.
const PRODUCER: i32 = 4;
/// `SpanKind.SPAN_KIND_CONSUMER`.
const CONSUMER: i32 = 5;

/// A span of whatever source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TraceSpan {
    /// Its id; one of zeros is none.
    pub span_id: SpanId,
    /// Its parent's; zeros for a root.
    pub parent_span_id: SpanId,
    /// `service.name`.
    pub service: Arc<str>,
    /// Its name.
    pub operation: String,
    /// `SpanKind` as on the wire.
    pub kind: i32,
    /// Its status is an error.
    pub is_error: bool,
    /// Wall time of its first nanosecond, by its host's clock.
    pub start_unix_ns: u64,
    /// One past its last.
    pub end_unix_ns: u64,
    /// The node that it ran on: what an agent says, else what its resource says; empty
    /// where nobody does.
    pub node: Arc<str>,
    /// What an agent says about it.
    pub said: Option<Box<Said>>,
    /// An agent made it: a stretch of its parent's time, not a hop.
    pub stretch: Option<Stretch>,
}

/// What an agent says about a span, as its attributes have it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    /// Layer of the process.
    pub layer: String,
    /// Its isolation stack.
    pub stack: String,
    /// What to call who ran it; empty where only attributes are known.
    pub workload: String,
    /// How the span was joined.
    pub confidence: String,
    /// Time by cause in nanoseconds, children's time not among it.
    pub split: BTreeMap<Cause, u64>,
    /// When time was lost.
    pub stretches: Vec<Stretch>,
    /// The verdict, if there is one.
    pub verdict: Option<Answer>,
}

/// A verdict, as attributes have it.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Where the mechanism lives.
    pub fault: Fault,
    /// The mechanism.
    pub cause: Cause,
    /// Its part of the span's self time, 0..1.
    pub share: f64,
    /// Who consumed the resource; empty when it is the victim itself.
    pub culprit: String,
    /// The incident it belongs to.
    pub incident: String,
    /// One sentence.
    pub summary: String,
    /// What to do.
    pub remedy: String,
    /// Numbers, with the unit in the name.
    pub evidence: BTreeMap<String, f64>,
}

/// A stretch of a span's time that a cause took.
#[derive(Clone, Debug, PartialEq)]
pub struct Stretch {
    /// Where the mechanism lives.
    pub fault: Fault,
    /// The mechanism.
    pub cause: Cause,
    /// First nanosecond, wall time.
    pub start_unix_ns: u64,
    /// One past the last.
    pub end_unix_ns: u64,
}

/// What was odd about the spans, by number. Each is said in the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Oddities {
    /// Spans without an id.
    pub without_id: usize,
    /// Spans that came more than once.
    pub copies: usize,
    /// Spans whose parent is not among them.
    pub parent_missing: usize,
    /// Cycles that were cut.
    pub cycles: usize,
    /// Spans that end before they start: taken as having no length.
    pub backwards: usize,
    /// Stretches whose span is not there.
    pub stray_stretches: usize,
    /// Spans whose host's clock disagrees with their parent's.
    pub shifted: usize,
    /// Spans that nobody waited for.
    pub not_awaited: usize,
}

/// A trace brought in order.
#[derive(Debug)]
pub struct Analysis {
    /// The hops, in an order that does not depend on the input's.
    pub spans: Vec<TraceSpan>,
    /// What is known of each, by the same index.
    pub nodes: Vec<Node>,
    /// Indices in the order of a drawn tree: a parent before its children, those by start.
    pub order: Vec<usize>,
    /// The critical path in order of time; it covers the time from its first to its last
    /// nanosecond without gap or overlap.
    pub path: Vec<Segment>,
    /// What was odd.
    pub oddities: Oddities,
}

/// A span's place in the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Index of its parent.
    pub parent: Option<usize>,
    /// Steps from the root.
    pub depth: usize,
    /// Start by the root's clock, nanoseconds.
    pub start: i128,
    /// End by the root's clock.
    pub end: i128,
    /// What was added to its own clock's times.
    pub shift_ns: i128,
    /// It is on nobody's request path: started in passing, or by a message.
    pub not_awaited: bool,
    /// The parent it names is not there.
    pub parent_missing: bool,
    /// Time on the critical path that is its own.
    pub critical_ns: i128,
    /// Duration less the time in children that it waited for.
    pub self_ns: i128,
}

/// A piece of the critical path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Whose time it is; none: between spans whose common parent is not there.
    pub span: Option<usize>,
    /// First nanosecond by the root's clock.
    pub start: i128,
    /// One past the last.
    pub end: i128,
}

impl Segment {
    /// Its length in nanoseconds.
    #[must_use]
    pub const fn length(&self) -> i128 {
        self.end - self.start
    }
}

impl TraceSpan {
    /// Its times, the end not before the start; so wide that no shift of hostile times
    /// overflows.
    fn times(&self) -> (i128, i128) {
        let (start, end) = (self.start_unix_ns.into(), i128::from(self.end_unix_ns));
        (start, end.max(start))
    }
}

/// Brings the spans of one trace in order and finds its critical path.
#[must_use]
pub fn analyse(spans: Vec<TraceSpan>) -> Analysis {
    let mut analysis = tree::build(spans);
    clock::align(&mut analysis);
    path::find(&mut analysis);
    analysis
}

/// Both at once: what is shown of a trace.
#[must_use]
pub fn report(trace_id: TraceId, spans: Vec<TraceSpan>) -> Report {
    Report::of(trace_id, &analyse(spans))
}

//! One clock for all hosts of a trace.
//!
//! A span that ran on another host than its parent, and by its clock not within its parent's
//! time, is moved to the middle of it, and with it what it called on its host: the way there
//! and the way back are taken as equally long, as NTP does and as Jaeger's query service does
//! (`cmd/query/app/querysvc/adjuster/clockskew.go`). One that is longer than its parent is
//! moved to its parent's start. A host's shift, once found, holds for its other spans where
//! they fit with it. Spans of one host are never moved against each other.

use std::collections::HashMap;

use super::{Analysis, CLIENT, CONSUMER, Node, PRODUCER, SERVER, TraceSpan};

/// Moves the spans; says which nobody waited for.
pub(super) fn align(analysis: &mut Analysis) {
    let Analysis {
        spans,
        nodes,
        order,
        oddities,
        ..
    } = analysis;
    let mut by_host: HashMap<&str, i128> = HashMap::new();
    for &index in &*order {
        let Some(parent) = nodes[index].parent else {
            let node = &*spans[index].node;
            if !node.is_empty() {
                by_host.entry(node).or_insert(0);
            }
            continue;
        };
        let shift = shift(spans, nodes, parent, index, &by_host);
        let host = &*spans[index].node;
        if !host.is_empty() {
            by_host.entry(host).or_insert(shift);
        }
        let parent = nodes[parent].clone();
        let node = &mut nodes[index];
        node.shift_ns = shift;
        node.start += shift;
        node.end += shift;
        // What is inherited is one clock's error, told once.
        oddities.shifted += usize::from(shift != 0 && shift != parent.shift_ns);
    }
    for &index in &*order {
        let awaited = nodes[index]
            .parent
            .is_none_or(|parent| is_awaited(spans, nodes, parent, index));
        nodes[index].not_awaited = !awaited;
        oddities.not_awaited += usize::from(!awaited);
    }
}

/// By how much a clock may be off, or a span end late, without anybody having to wonder, by the
/// parent's duration: 1 % of it, at least 10 microseconds, at most 1 millisecond.
pub(crate) fn slack_ns(parent_ns: u64) -> u64 {
    (parent_ns / 100).clamp(10_000, 1_000_000)
}

fn slack(parent: &Node) -> i128 {
    let parent_ns = u64::try_from(parent.end - parent.start).unwrap_or(0);
    slack_ns(parent_ns).into()
}

fn shift(
    spans: &[TraceSpan],
    nodes: &[Node],
    parent: usize,
    child: usize,
    by_host: &HashMap<&str, i128>,
) -> i128 {
    let (caller, callee) = (&spans[parent], &spans[child]);
    let inherited = nodes[parent].shift_ns;
    let hosts_known = !caller.node.is_empty() && !callee.node.is_empty();
    let one_host = if hosts_known {
        caller.node == callee.node
    } else {
        // Nothing says that they are two, except that a call goes from one to the other.
        !(caller.kind == CLIENT && callee.kind == SERVER)
    };
    if one_host || nodes[child].parent_missing {
        return match by_host.get(&*callee.node) {
            Some(shift) if !callee.node.is_empty() => *shift,
            _ => inherited,
        };
    }
    let place = Place {
        parent: &nodes[parent],
        start: nodes[child].start,
        end: nodes[child].end,
        by_message: is_message(caller, callee),
    };
    let of_host = by_host.get(&*callee.node).copied();
    let candidates = [of_host, Some(0), Some(inherited)];
    candidates
        .into_iter()
        .flatten()
        .find(|shift| place.fits(*shift))
        .unwrap_or_else(|| place.best())
}

/// A child that may have to be moved.
struct Place<'a> {
    parent: &'a Node,
    start: i128,
    end: i128,
    by_message: bool,
}

impl Place<'_> {
    /// Whether it could have been called by its parent and answered in time.
    fn fits(&self, shift: i128) -> bool {
        let slack = slack(self.parent);
        let start = self.start + shift;
        let end = self.end + shift;
        let called = start >= self.parent.start - slack;
        let answered =
            start <= self.parent.end && (end <= self.parent.end + slack || self.is_longer());
        called && (answered || self.by_message)
    }

    fn best(&self) -> i128 {
        let spare = (self.parent.end - self.parent.start) - (self.end - self.start);
        let start = if self.by_message || self.is_longer() {
            self.parent.start
        } else {
            self.parent.start + spare / 2
        };
        start - self.start
    }

    fn is_longer(&self) -> bool {
        self.end - self.start > self.parent.end - self.parent.start
    }
}

fn is_message(parent: &TraceSpan, child: &TraceSpan) -> bool {
    parent.kind == PRODUCER || child.kind == CONSUMER
}

/// Whether the parent waited for the child: it cannot go on without what it asked another
/// service for, even if it lost patience; but it ended before what else it started had.
fn is_awaited(spans: &[TraceSpan], nodes: &[Node], parent: usize, child: usize) -> bool {
    if is_message(&spans[parent], &spans[child]) {
        return false;
    }
    let (above, below) = (&nodes[parent], &nodes[child]);
    if below.start >= above.end && below.end > below.start {
        return false;
    }
    spans[parent].kind == CLIENT || below.end <= above.end + slack(above)
}

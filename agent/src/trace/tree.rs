//! Spans into one tree, whatever came.
//!
//! - A span that came twice counts once: the copy that an agent spoke about, else the longer.
//!   A client's and a server's span of one id (Zipkin's way) are two: the server's is the
//!   client's child.
//! - A span whose parent is missing hangs below the root, as what is missing lay between.
//!   Without a root, such spans stand side by side.
//! - A cycle is cut before its earliest span.

use std::{
    cmp::Reverse,
    collections::{HashMap, hash_map::Entry},
};

use super::{Analysis, CLIENT, Node, Oddities, SERVER, Said, Stretch, TraceSpan};
use crate::span::SpanId;

/// Stretches kept of one span; an agent makes at most 16.
const MAX_STRETCHES: usize = 64;
const NO_ID: SpanId = [0; 8];

/// The tree, its times not yet aligned.
pub(super) fn build(spans: Vec<TraceSpan>) -> Analysis {
    let mut oddities = Oddities::default();
    let (mut hops, stretches) = part(spans, &mut oddities);
    let ids = unique(&mut hops, &mut oddities);
    attach(&mut hops, &ids, stretches, &mut oddities);
    let mut nodes = parents(&hops, &ids, &mut oddities);
    cut_cycles(&hops, &mut nodes, &mut oddities);
    adopt(&mut nodes);
    let order = order(&hops, &mut nodes);
    Analysis {
        spans: hops,
        nodes,
        order,
        path: Vec::new(),
        oddities,
    }
}

/// Hops in one order for all, and the stretches by their span.
fn part(
    spans: Vec<TraceSpan>,
    oddities: &mut Oddities,
) -> (Vec<TraceSpan>, HashMap<SpanId, Vec<Stretch>>) {
    let mut stretches: HashMap<SpanId, Vec<Stretch>> = HashMap::new();
    let mut hops = Vec::with_capacity(spans.len());
    for mut span in spans {
        if let Some(stretch) = span.stretch.take() {
            stretches
                .entry(span.parent_span_id)
                .or_default()
                .push(stretch);
        } else if span.span_id == NO_ID {
            oddities.without_id += 1;
        } else {
            oddities.backwards += usize::from(span.end_unix_ns < span.start_unix_ns);
            hops.push(span);
        }
    }
    hops.sort_by(|a, b| rank(a).cmp(&rank(b)));
    (hops, stretches)
}

/// Everything by which two spans may differ and one be preferred to the other.
fn rank(span: &TraceSpan) -> impl Ord + '_ {
    let verdict = span.said.as_ref().is_some_and(|s| s.verdict.is_some());
    let (start, end) = span.times();
    (
        start,
        Reverse(end),
        span.span_id,
        (Reverse(verdict), Reverse(span.said.is_some())),
        span.kind,
        (&*span.service, &*span.operation, &*span.node),
        span.parent_span_id,
        span.is_error,
    )
}

/// Which spans bear an id: nearly always one.
#[derive(Clone, Copy, Debug)]
struct Bearers {
    /// The one that its children hang below.
    inner: usize,
    /// The client's, where client and server share the id.
    outer: Option<usize>,
}

/// Leaves each span once; says where each id is then.
fn unique(hops: &mut Vec<TraceSpan>, oddities: &mut Oddities) -> HashMap<SpanId, Bearers> {
    let mut best: HashMap<(SpanId, u8), usize> = HashMap::with_capacity(hops.len());
    for (index, hop) in hops.iter().enumerate() {
        let side = match hop.kind {
            SERVER => 1,
            CLIENT => 2,
            _ => 0,
        };
        match best.entry((hop.span_id, side)) {
            Entry::Vacant(place) => {
                place.insert(index);
            }
            Entry::Occupied(mut place) => {
                if worth(hop) > worth(&hops[*place.get()]) {
                    place.insert(index);
                }
            }
        }
    }
    let is_best = |index: usize, hop: &TraceSpan| {
        let of = |side| best.get(&(hop.span_id, side)).copied();
        match (of(0), of(1), of(2)) {
            (None, server, client) => server == Some(index) || client == Some(index),
            // A copy that lost its kind is no third span.
            (Some(plain), None, None) => plain == index,
            (Some(_), server, client) => server.or(client) == Some(index),
        }
    };
    let keep: Vec<bool> = hops
        .iter()
        .enumerate()
        .map(|(i, hop)| is_best(i, hop))
        .collect();
    oddities.copies = keep.iter().filter(|kept| !**kept).count();
    let mut kept = keep.into_iter();
    hops.retain(|_| kept.next().unwrap_or(false));
    let mut ids: HashMap<SpanId, Bearers> = HashMap::with_capacity(hops.len());
    for (index, hop) in hops.iter().enumerate() {
        ids.entry(hop.span_id)
            .and_modify(|bearers| {
                let (inner, outer) = match hop.kind {
                    SERVER => (index, bearers.inner),
                    _ => (bearers.inner, index),
                };
                *bearers = Bearers {
                    inner,
                    outer: Some(outer),
                };
            })
            .or_insert(Bearers {
                inner: index,
                outer: None,
            });
    }
    ids
}

/// Of two copies the larger one is kept.
fn worth(span: &TraceSpan) -> (bool, bool, i128) {
    let (start, end) = span.times();
    let verdict = span.said.as_ref().is_some_and(|s| s.verdict.is_some());
    (verdict, span.said.is_some(), end - start)
}

/// Gives each span its stretches.
fn attach(
    hops: &mut [TraceSpan],
    ids: &HashMap<SpanId, Bearers>,
    stretches: HashMap<SpanId, Vec<Stretch>>,
    oddities: &mut Oddities,
) {
    for (id, mut list) in stretches {
        let Some(bearers) = ids.get(&id) else {
            oddities.stray_stretches += list.len();
            continue;
        };
        // Of a pair, the one that an agent spoke about.
        let outer = bearers.outer.filter(|outer| hops[*outer].said.is_some());
        let inner = Some(bearers.inner).filter(|inner| hops[*inner].said.is_some());
        let index = inner.or(outer).unwrap_or(bearers.inner);
        let said = hops[index]
            .said
            .get_or_insert_with(|| Box::new(Said::default()));
        // An agent's own memory has them already.
        if said.stretches.is_empty() {
            list.sort_by_key(|s| (s.start_unix_ns, s.end_unix_ns, s.cause, s.fault));
            list.dedup();
            list.truncate(MAX_STRETCHES);
            said.stretches = list;
        }
    }
}

fn parents(
    hops: &[TraceSpan],
    ids: &HashMap<SpanId, Bearers>,
    oddities: &mut Oddities,
) -> Vec<Node> {
    let mut nodes = Vec::with_capacity(hops.len());
    for (index, hop) in hops.iter().enumerate() {
        let outer = ids.get(&hop.span_id).and_then(|bearers| bearers.outer);
        let (start, end) = hop.times();
        let mut node = Node {
            start,
            end,
            ..Node::default()
        };
        if outer.is_some_and(|outer| outer != index) {
            node.parent = outer;
        } else if hop.parent_span_id != NO_ID {
            node.parent = ids.get(&hop.parent_span_id).map(|bearers| bearers.inner);
            node.parent_missing = node.parent.is_none();
            oddities.parent_missing += usize::from(node.parent_missing);
        }
        nodes.push(node);
    }
    nodes
}

/// Cuts each cycle before its earliest span; that one is the first by index.
fn cut_cycles(hops: &[TraceSpan], nodes: &mut [Node], oddities: &mut Oddities) {
    /// Which walk came by; 0: none.
    const UNSEEN: usize = 0;
    let mut seen = vec![UNSEEN; hops.len()];
    for first in 0..nodes.len() {
        let walk = first + 1;
        let mut at = Some(first);
        while let Some(index) = at {
            if seen[index] == walk {
                cut(nodes, index);
                oddities.cycles += 1;
                break;
            }
            if seen[index] != UNSEEN {
                break;
            }
            seen[index] = walk;
            at = nodes[index].parent;
        }
    }
}

fn cut(nodes: &mut [Node], on_cycle: usize) {
    let mut earliest = on_cycle;
    let mut at = nodes[on_cycle].parent;
    while let Some(index) = at.filter(|index| *index != on_cycle) {
        earliest = earliest.min(index);
        at = nodes[index].parent;
    }
    nodes[earliest].parent = None;
    nodes[earliest].parent_missing = true;
}

/// The longest of those that name no parent; none if all do.
pub(super) fn main_root(nodes: &[Node]) -> Option<usize> {
    let roots =
        (0..nodes.len()).filter(|i| nodes[*i].parent.is_none() && !nodes[*i].parent_missing);
    // Of equals the first.
    roots.min_by_key(|i| Reverse(nodes[*i].end - nodes[*i].start))
}

/// Hangs what lost its parent below the root, where it lies within the root's time.
fn adopt(nodes: &mut [Node]) {
    let Some(root) = main_root(nodes) else { return };
    let (from, to) = (nodes[root].start, nodes[root].end);
    for node in nodes {
        if node.parent_missing && node.parent.is_none() && node.start < to && node.end > from {
            node.parent = Some(root);
        }
    }
}

/// The order of a drawn tree; sets the depths.
fn order(hops: &[TraceSpan], nodes: &mut [Node]) -> Vec<usize> {
    let children = children(nodes);
    let main = main_root(nodes);
    let mut roots: Vec<usize> = (0..hops.len())
        .filter(|i| nodes[*i].parent.is_none())
        .collect();
    // What is on the path first; the others by start, as they are.
    roots.sort_by_key(|i| Some(*i) != main);
    let mut order = Vec::with_capacity(hops.len());
    let mut open: Vec<usize> = roots.into_iter().rev().collect();
    while let Some(index) = open.pop() {
        nodes[index].depth = nodes[index].parent.map_or(0, |p| nodes[p].depth + 1);
        order.push(index);
        open.extend(children[index].iter().rev());
    }
    order
}

/// Indices of each span's children, ascending.
pub(super) fn children(nodes: &[Node]) -> Vec<Vec<usize>> {
    let mut children = vec![Vec::new(); nodes.len()];
    for (index, node) in nodes.iter().enumerate() {
        if let Some(parent) = node.parent {
            children[parent].push(index);
        }
    }
    children
}

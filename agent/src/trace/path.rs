//! The critical path: from the end of the root backwards, always into the child that returned
//! last. This is the walk of CRISP (Zhang et al., USENIX ATC 2022) and of Jaeger's page.
//!
//! Where CRISP leaves out a child that overlaps the one after it, this walk follows it up to
//! where it stands: of the children that run at that moment, the one that ends first. So no
//! moment in which an awaited child ran is the parent's, and what a span contributes is part
//! of its self time, which is what a verdict speaks of. A child that ends after its parent is
//! cut at the parent's end, as CRISP does.
//!
//! The pieces cover the root's time exactly: they touch, and none overlaps.

use super::{Analysis, Node, Segment, tree};

/// Finds the path, and each span's part of it and self time.
pub(super) fn find(analysis: &mut Analysis) {
    let children = tree::children(&analysis.nodes);
    let nodes = &mut analysis.nodes;
    for index in 0..nodes.len() {
        nodes[index].self_ns = self_time(nodes, index, &children[index]);
    }
    analysis.path = walk(nodes, &children, &analysis.order);
    for segment in &analysis.path {
        if let Some(index) = segment.span {
            nodes[index].critical_ns += segment.length();
        }
    }
}

/// Duration less the union of the children that it waited for.
fn self_time(nodes: &[Node], index: usize, children: &[usize]) -> i128 {
    let (from, to) = (nodes[index].start, nodes[index].end);
    let awaited = children.iter().filter(|child| !nodes[**child].not_awaited);
    let mut times: Vec<_> = awaited.map(|c| (nodes[*c].start, nodes[*c].end)).collect();
    times.sort_unstable();
    let mut covered = 0;
    let mut at = from;
    for (start, end) in times {
        let (start, end) = (start.max(at), end.min(to));
        covered += (end - start).max(0);
        at = at.max(end);
    }
    to - from - covered
}

fn walk(nodes: &[Node], children: &[Vec<usize>], order: &[usize]) -> Vec<Segment> {
    let Some(&first) = order.first() else {
        return Vec::new();
    };
    let roots = order.iter().copied().filter(|i| nodes[*i].parent.is_none());
    let mut open = vec![match tree::main_root(nodes) {
        Some(root) => Frame::new(nodes, Some(root), &children[root], span_of(nodes, root)),
        // Nobody knows what was around them.
        None => {
            let roots: Vec<usize> = roots.collect();
            let from = roots.iter().map(|i| nodes[*i].start).min();
            let to = roots.iter().map(|i| nodes[*i].end).max();
            match &*roots {
                [only] => Frame::new(nodes, Some(*only), &children[*only], span_of(nodes, *only)),
                _ => Frame::new(
                    nodes,
                    None,
                    &roots,
                    from.zip(to).unwrap_or_else(|| span_of(nodes, first)),
                ),
            }
        }
    }];
    let mut path = Vec::new();
    while let Some(frame) = open.last_mut() {
        match frame.step(nodes, &mut path) {
            Some((child, time)) => {
                open.push(Frame::new(nodes, Some(child), &children[child], time));
            }
            None => drop(open.pop()),
        }
    }
    path.reverse();
    path
}

fn span_of(nodes: &[Node], index: usize) -> (i128, i128) {
    (nodes[index].start, nodes[index].end)
}

/// The walk through one span, from its end to its start.
struct Frame {
    span: Option<usize>,
    start: i128,
    /// Where the walk stands.
    at: i128,
    /// The awaited children by end, the last one first.
    children: Vec<usize>,
    /// The next of them that may end before where the walk stands.
    next: usize,
    /// Those before it that end later than where the walk stands, the one that ends first on
    /// top.
    running: Vec<usize>,
}

impl Frame {
    fn new(
        nodes: &[Node],
        span: Option<usize>,
        children: &[usize],
        (start, end): (i128, i128),
    ) -> Self {
        let awaited = |child: &&usize| !nodes[**child].not_awaited;
        let mut children: Vec<usize> = children.iter().filter(awaited).copied().collect();
        children.sort_by_key(|c| (std::cmp::Reverse(nodes[*c].end), nodes[*c].start, *c));
        Self {
            span,
            start,
            at: end,
            children,
            next: 0,
            running: Vec::new(),
        }
    }

    /// Walks on to the next child and says which part of it is on the path; none at the
    /// span's start. The span's own time in between goes to `path`.
    fn step(&mut self, nodes: &[Node], path: &mut Vec<Segment>) -> Option<(usize, (i128, i128))> {
        if self.at <= self.start {
            return None;
        }
        while let Some(child) = self.children.get(self.next) {
            if nodes[*child].end <= self.at {
                break;
            }
            self.running.push(*child);
            self.next += 1;
        }
        while let Some(child) = self.running.last() {
            if nodes[*child].start < self.at {
                break;
            }
            self.running.pop();
        }
        let returned = self.children.get(self.next);
        let child = match (self.running.pop(), returned) {
            (Some(running), _) => Some(running),
            (None, Some(returned)) if nodes[*returned].end > self.start => {
                self.next += 1;
                Some(*returned)
            }
            (None, _) => None,
        };
        let Some(child) = child else {
            self.own(self.start, path);
            return None;
        };
        let end = nodes[child].end.min(self.at);
        let start = nodes[child].start.max(self.start).min(end);
        self.own(end, path);
        self.at = start;
        Some((child, (start, end)))
    }

    /// From where the walk stands back to `to` is the span's own.
    fn own(&mut self, to: i128, path: &mut Vec<Segment>) {
        if to < self.at {
            path.push(Segment {
                span: self.span,
                start: to,
                end: self.at,
            });
            self.at = to;
        }
    }
}

//! What is said of a trace: the document of `isostack-agent trace --output json` and of
//! `/api/v1/traces/ID`. `deploy/openapi.yaml` describes it.

mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

pub use self::words::duration;
use self::words::{notes, summary};
use super::{Analysis, Answer, Stretch, TraceSpan};
use crate::{
    span::{TraceId, hex, kind_word},
    vocabulary::{Cause, Fault},
};

/// Spans listed; those on the critical path come before others.
pub const MAX_LISTED: usize = 2_000;
/// Names from outside are repeated up to so many bytes.
const MAX_NAME_BYTES: usize = 256;
/// Sentences from outside, likewise.
const MAX_SENTENCE_BYTES: usize = 1_024;
/// A verdict on another hop than the slowest is the trace's if it explains so much of it.
const WORTH_TELLING: f64 = 0.05;
/// How the path is found, as in [`super::path`].
const ALGORITHM: &str = "last-returning child (CRISP, Jaeger)";

/// A trace, localised.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// One sentence: which hop, what held it up, and who.
    pub summary: String,
    /// Time that the critical path covers.
    pub duration_ms: f64,
    /// Wall time of its first nanosecond by the root's clock, as a string.
    pub start_unix_nano: String,
    /// How the path was found.
    pub algorithm: String,
    /// The hops that the answer had to wait for, by when it did first.
    pub critical_path: Vec<Hop>,
    /// Time on the path that lies in no span: what was around them is not there.
    pub gap_ms: f64,
    /// The hop with the most time on the path; none where all of it is a gap.
    pub slowest_hop: Option<Hop>,
    /// What an agent said, of the slowest hop if there is a verdict on it; none without.
    pub verdict: Option<TraceVerdict>,
    /// How many spans the trace has, stretches not counted.
    pub spans_total: usize,
    /// Services, at most 64.
    pub services: Vec<String>,
    /// The tree, a parent before its children; at most [`MAX_LISTED`].
    pub spans: Vec<Hop>,
    /// Spans that are not in `spans` because there are too many.
    pub spans_left_out: usize,
    /// What was odd, a sentence each.
    pub notes: Vec<String>,
}

/// A span in its trace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hop {
    /// 16 hexadecimal digits.
    pub span_id: String,
    /// The parent that it names; empty for a root.
    pub parent_span_id: String,
    /// Steps from the root.
    pub depth: usize,
    /// `service.name`.
    pub service: String,
    /// Its name.
    pub operation: String,
    /// `server`, `client`, ...
    pub kind: String,
    /// Its status is an error.
    pub error: bool,
    /// Its node; empty where nobody says.
    pub node: String,
    /// Wall time of its start by its own clock, as a string.
    pub start_unix_nano: String,
    /// Start after the trace's, by the root's clock.
    pub start_ms: f64,
    /// Its length.
    pub duration_ms: f64,
    /// What was added to its clock's times.
    pub clock_shift_ms: f64,
    /// Nobody waited for it.
    pub not_awaited: bool,
    /// Duration less the time in children that it waited for.
    pub self_time_ms: f64,
    /// Time on the critical path that is its own.
    pub critical_ms: f64,
    /// The same as a part of the whole path, 0..1.
    pub share: f64,
    /// When it is on the path: start and end after the trace's start; at most 64.
    pub segments: Vec<(f64, f64)>,
    /// Layer of its process; empty where no agent says.
    pub layer: String,
    /// Its isolation stack.
    pub stack: String,
    /// What to call who ran it; empty where not known.
    pub workload: String,
    /// How it was joined with the kernel's events; empty where no agent saw it.
    pub confidence: String,
    /// Its self time by cause, as an agent measured it.
    pub split: BTreeMap<Cause, f64>,
    /// When time was lost.
    pub stretches: Vec<Lost>,
    /// The verdict on it.
    pub verdict: Option<HopVerdict>,
}

/// A stretch of a hop's time that a cause took; after the trace's start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lost {
    /// Where the mechanism lives.
    pub fault: Fault,
    /// The mechanism.
    pub cause: Cause,
    /// Start.
    pub start_ms: f64,
    /// End.
    pub end_ms: f64,
}

/// What an agent said of one hop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HopVerdict {
    /// Where the mechanism lives.
    pub fault: Fault,
    /// The mechanism.
    pub cause: Cause,
    /// Its part of the self time, 0..1.
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

/// The verdict on the trace: on which hop it is, and what it says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceVerdict {
    /// The hop's span.
    pub span_id: String,
    /// Its service.
    pub service: String,
    /// Its operation.
    pub operation: String,
    /// Its node.
    pub node: String,
    /// Layer of its process.
    pub layer: String,
    /// How it was joined.
    pub confidence: String,
    /// What is said.
    #[serde(flatten)]
    pub answer: HopVerdict,
}

impl Report {
    /// Says what an analysis means.
    #[must_use]
    pub fn of(trace_id: TraceId, analysis: &Analysis) -> Self {
        let (from, to) = match (analysis.path.first(), analysis.path.last()) {
            (Some(first), Some(last)) => (first.start, last.end),
            // All spans of the path have no length.
            _ => analysis.order.first().map_or((0, 0), |i| {
                (analysis.nodes[*i].start, analysis.nodes[*i].end)
            }),
        };
        let teller = Teller {
            analysis,
            from,
            total: to - from,
        };
        let segments = teller.segments();
        let mut on_path: Vec<usize> = Vec::new();
        let mut seen = BTreeSet::new();
        on_path.extend(
            analysis
                .path
                .iter()
                .filter_map(|s| s.span)
                .filter(|i| seen.insert(*i)),
        );
        let hop = |index: usize| teller.hop(index, segments.get(&index));
        let by_time = |i: &&usize| (analysis.nodes[**i].critical_ns, std::cmp::Reverse(**i));
        let slowest = on_path.iter().max_by_key(by_time).copied();
        let slowest_hop = slowest.map(hop);
        let verdict = teller.verdict(slowest, &on_path);
        let listed = listed(analysis, &seen);
        let gap = analysis.path.iter().filter(|s| s.span.is_none());
        let gap_ms = ms(gap.map(super::Segment::length).sum());
        let mut report = Self {
            trace_id: hex(&trace_id),
            summary: String::new(),
            duration_ms: ms(teller.total),
            start_unix_nano: from.to_string(),
            algorithm: ALGORITHM.to_owned(),
            critical_path: on_path.iter().take(MAX_LISTED).map(|i| hop(*i)).collect(),
            gap_ms,
            slowest_hop,
            verdict,
            spans_total: analysis.spans.len(),
            services: services(&analysis.spans),
            spans_left_out: analysis.order.len() - listed.len(),
            spans: listed.into_iter().map(hop).collect(),
            notes: notes(&analysis.oddities),
        };
        report.summary = summary(&report);
        report
    }
}

struct Teller<'a> {
    analysis: &'a Analysis,
    from: i128,
    total: i128,
}

impl Teller<'_> {
    fn segments(&self) -> BTreeMap<usize, Vec<(f64, f64)>> {
        /// More would not be told apart in any picture.
        const MOST: usize = 64;
        let mut segments: BTreeMap<usize, Vec<(f64, f64)>> = BTreeMap::new();
        for segment in &self.analysis.path {
            let Some(index) = segment.span else { continue };
            let of_span = segments.entry(index).or_default();
            if of_span.len() < MOST {
                of_span.push((ms(segment.start - self.from), ms(segment.end - self.from)));
            }
        }
        segments
    }

    fn hop(&self, index: usize, segments: Option<&Vec<(f64, f64)>>) -> Hop {
        let (span, node) = (&self.analysis.spans[index], &self.analysis.nodes[index]);
        let said = span.said.as_deref();
        let text = |of: fn(&super::Said) -> &String| said.map_or_else(String::new, |s| clip(of(s)));
        let split = said.into_iter().flat_map(|s| &s.split);
        let stretches = said.into_iter().flat_map(|s| &s.stretches);
        Hop {
            span_id: hex(&span.span_id),
            parent_span_id: match span.parent_span_id {
                [0, 0, 0, 0, 0, 0, 0, 0] => String::new(),
                parent => hex(&parent),
            },
            depth: node.depth,
            service: clip(&span.service),
            operation: clip(&span.operation),
            kind: kind_word(span.kind).to_owned(),
            error: span.is_error,
            node: clip(&span.node),
            start_unix_nano: span.start_unix_ns.to_string(),
            start_ms: ms(node.start - self.from),
            duration_ms: ms(node.end - node.start),
            clock_shift_ms: ms(node.shift_ns),
            not_awaited: node.not_awaited,
            self_time_ms: ms(node.self_ns),
            critical_ms: ms(node.critical_ns),
            share: self.share(node.critical_ns),
            segments: segments.cloned().unwrap_or_default(),
            layer: text(|s| &s.layer),
            stack: text(|s| &s.stack),
            workload: text(|s| &s.workload),
            confidence: text(|s| &s.confidence),
            split: split
                .map(|(cause, ns)| (*cause, ms((*ns).into())))
                .collect(),
            stretches: stretches.map(|s| self.lost(s, node.shift_ns)).collect(),
            verdict: said.and_then(|s| s.verdict.as_ref()).map(HopVerdict::of),
        }
    }

    fn share(&self, ns: i128) -> f64 {
        if self.total == 0 {
            return 0.0;
        }
        ns as f64 / self.total as f64
    }

    fn lost(&self, stretch: &Stretch, shift: i128) -> Lost {
        let after = |at: u64| ms(i128::from(at) + shift - self.from);
        Lost {
            fault: stretch.fault,
            cause: stretch.cause,
            start_ms: after(stretch.start_unix_ns),
            end_ms: after(stretch.end_unix_ns),
        }
    }

    /// The slowest hop's verdict; without one, of those on the path the one that explains
    /// most time, if that is worth telling.
    fn verdict(&self, slowest: Option<usize>, on_path: &[usize]) -> Option<TraceVerdict> {
        let of = |index: usize| self.analysis.spans[index].said.as_deref()?.verdict.as_ref();
        if let Some((index, answer)) = slowest.and_then(|i| Some((i, of(i)?))) {
            return Some(self.trace_verdict(index, answer));
        }
        let cost = |index: usize, answer: &Answer| {
            answer.share.clamp(0.0, 1.0) * self.share(self.analysis.nodes[index].critical_ns)
        };
        on_path
            .iter()
            .filter_map(|i| Some((*i, of(*i)?)))
            .filter(|(i, answer)| cost(*i, answer) >= WORTH_TELLING)
            .max_by(|(a, x), (b, y)| cost(*a, x).total_cmp(&cost(*b, y)))
            .map(|(index, answer)| self.trace_verdict(index, answer))
    }

    fn trace_verdict(&self, index: usize, answer: &Answer) -> TraceVerdict {
        let hop = self.hop(index, None);
        TraceVerdict {
            span_id: hop.span_id,
            service: hop.service,
            operation: hop.operation,
            node: hop.node,
            layer: hop.layer,
            confidence: hop.confidence,
            answer: HopVerdict::of(answer),
        }
    }
}

impl HopVerdict {
    fn of(answer: &Answer) -> Self {
        let finite = |v: f64| if v.is_finite() { v } else { 0.0 };
        let evidence = answer.evidence.iter();
        Self {
            fault: answer.fault,
            cause: answer.cause,
            share: finite(answer.share),
            culprit: clip(&answer.culprit),
            incident: clip(&answer.incident),
            summary: clip_to(&answer.summary, MAX_SENTENCE_BYTES),
            remedy: clip_to(&answer.remedy, MAX_SENTENCE_BYTES),
            evidence: evidence.map(|(k, v)| (clip(k), finite(*v))).collect(),
        }
    }
}

/// Which spans are listed, in the tree's order: those on the path, then the longest; and
/// what they hang below, so that the tree holds together.
fn listed(analysis: &Analysis, on_path: &BTreeSet<usize>) -> Vec<usize> {
    if analysis.order.len() <= MAX_LISTED {
        return analysis.order.clone();
    }
    let nodes = &analysis.nodes;
    let mut by_length: Vec<usize> = (0..nodes.len()).collect();
    by_length.sort_by_key(|i| (std::cmp::Reverse(nodes[*i].end - nodes[*i].start), *i));
    let mut keep = vec![false; nodes.len()];
    let mut room = MAX_LISTED;
    let slowest_first = {
        let mut path: Vec<usize> = on_path.iter().copied().collect();
        path.sort_by_key(|i| (std::cmp::Reverse(nodes[*i].critical_ns), *i));
        path
    };
    for index in slowest_first.into_iter().chain(by_length) {
        let mut line = Vec::new();
        let mut at = Some(index);
        while let Some(i) = at.filter(|i| !keep[*i] && line.len() <= room) {
            line.push(i);
            at = nodes[i].parent;
        }
        if line.len() > room {
            continue;
        }
        room -= line.len();
        for i in line {
            keep[i] = true;
        }
        if room == 0 {
            break;
        }
    }
    analysis
        .order
        .iter()
        .copied()
        .filter(|i| keep[*i])
        .collect()
}

fn services(spans: &[TraceSpan]) -> Vec<String> {
    const MOST: usize = 64;
    let names: BTreeSet<&Arc<str>> = spans.iter().map(|span| &span.service).collect();
    names
        .into_iter()
        .take(MOST)
        .map(|name| clip(name))
        .collect()
}

fn clip(name: &str) -> String {
    clip_to(name, MAX_NAME_BYTES)
}

fn clip_to(text: &str, bytes: usize) -> String {
    text[..text.floor_char_boundary(bytes)].to_owned()
}

fn ms(ns: i128) -> f64 {
    ns as f64 / 1e6
}

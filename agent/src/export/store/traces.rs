//! Whole traces, for who asks about one: the latest spans of all traces, whatever their
//! verdict, and longer those of traces in which a span got one. Its siblings, which came
//! before or come after it, would otherwise be gone when somebody looks.

use std::{
    collections::{HashMap, VecDeque},
    ops::Range,
    sync::Arc,
};

use foldhash::quality::RandomState;

use super::{PerSecond, StoredEvent, StoredSpan, is_verdict, keep, passed, view};
use crate::{
    span::{Resource, SpanBatch, SpanView, TraceId},
    time::MonoNs,
    trace::read::Passed,
    verdict::Judgement,
};

/// Bounds of what is kept for traces.
#[derive(Clone, Copy, Debug)]
pub struct TraceBounds {
    /// Latest spans, of all traces together; at least 1.
    pub latest: usize,
    /// Traces with a verdict.
    pub pinned: usize,
    /// Spans of one of them.
    pub spans_of_one: usize,
    /// Traces pinned in any one second.
    pub pinned_per_second: usize,
    /// Kernel events kept with one of them.
    pub events_of_one: usize,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Traces {
    bounds: TraceBounds,
    latest: Latest,
    pinned: HashMap<TraceId, Pinned, RandomState>,
    /// Their ids, the first pinned first.
    order: VecDeque<TraceId>,
    pinned_now: PerSecond,
}

#[derive(Debug, Default)]
struct Pinned {
    spans: Vec<Arc<StoredSpan>>,
    left_out: usize,
    events: Vec<StoredEvent>,
}

/// The spans of one trace that are still here.
#[derive(Debug, Default)]
pub(crate) struct KeptTrace {
    /// Them.
    pub spans: Vec<Arc<StoredSpan>>,
    /// How many more there were than are kept.
    pub left_out: usize,
    /// Kernel events in the time of those with a verdict.
    pub events: Vec<StoredEvent>,
}

impl Traces {
    pub fn new(bounds: TraceBounds) -> Self {
        Self {
            bounds,
            latest: Latest::new(bounds.latest),
            pinned: HashMap::default(),
            order: VecDeque::new(),
            pinned_now: PerSecond::default(),
        }
    }

    /// Takes the spans of a batch; `kept` are those of them that the other rings keep, with
    /// their places, in order. `events` knows those in the time of one with a verdict.
    pub fn add(
        &mut self,
        batch: &SpanBatch,
        judgements: Vec<Judgement>,
        kept: &[(usize, Arc<StoredSpan>)],
        events: impl Fn(&StoredSpan) -> Vec<StoredEvent>,
    ) {
        let (names, ends) = names(batch);
        let mut kept = kept.iter().peekable();
        let mut resources = batch.resources.iter().peekable();
        let mut start = 0;
        for (at, ((span, end), judgement)) in
            batch.spans.iter().zip(ends).zip(judgements).enumerate()
        {
            let name = std::mem::replace(&mut start, end)..end;
            while resources.next_if(|r| r.spans.end <= at).is_some() {}
            let Some(resource) = resources.peek().filter(|r| r.spans.contains(&at)) else {
                continue;
            };
            let stored = kept.next_if(|(kept, _)| *kept == at).map(|(_, span)| span);
            let raw = Raw {
                span: span.clone(),
                resource: resource.resource.clone(),
                passed: passed(batch, span, &judgement),
                judgement,
                names: names.clone(),
                name,
            };
            self.note(&raw, stored, batch.received, &events);
            self.latest.push(raw);
        }
    }

    /// Keeps a span for longer if its trace is one with a verdict.
    fn note(
        &mut self,
        raw: &Raw,
        stored: Option<&Arc<StoredSpan>>,
        now: MonoNs,
        events: impl Fn(&StoredSpan) -> Vec<StoredEvent>,
    ) {
        let has_verdict = raw.has_verdict();
        let trace_id = raw.span.trace_id;
        if !has_verdict && !self.pinned.contains_key(&trace_id) {
            return;
        }
        let span = stored.cloned().unwrap_or_else(|| raw.stored());
        let max = self.bounds.pinned_per_second;
        if let Some(pinned) = self.pinned.get_mut(&trace_id) {
            pinned.push(span.clone(), self.bounds.spans_of_one);
        } else if self.pinned_now.take(now, 1, max) == 1 {
            self.pin(&span);
        }
        if has_verdict && let Some(pinned) = self.pinned.get_mut(&trace_id) {
            let room = self.bounds.events_of_one;
            let room = room.saturating_sub(pinned.events.len());
            if room > 0 {
                pinned.events.extend(events(&span).into_iter().take(room));
            }
        }
    }

    fn pin(&mut self, span: &Arc<StoredSpan>) {
        if self.order.len() >= self.bounds.pinned.max(1)
            && let Some(oldest) = self.order.pop_front()
        {
            self.pinned.remove(&oldest);
        }
        let mut pinned = Pinned::default();
        pinned.push(span.clone(), self.bounds.spans_of_one);
        for earlier in self.latest.of(span.trace_id) {
            pinned.push(earlier, self.bounds.spans_of_one);
        }
        self.order.push_back(span.trace_id);
        self.pinned.insert(span.trace_id, pinned);
    }

    /// What is here of a trace.
    pub fn of(&self, trace_id: TraceId) -> KeptTrace {
        match self.pinned.get(&trace_id) {
            Some(pinned) => KeptTrace {
                spans: pinned.spans.clone(),
                left_out: pinned.left_out,
                events: pinned.events.clone(),
            },
            None => KeptTrace {
                spans: self.latest.of(trace_id).collect(),
                left_out: 0,
                events: Vec::new(),
            },
        }
    }
}

impl Pinned {
    fn push(&mut self, span: Arc<StoredSpan>, max: usize) {
        if self.spans.len() < max {
            self.spans.push(span);
        } else {
            self.left_out += 1;
        }
    }
}

/// The latest spans, as they came from the pipeline: most are never looked at, and are made
/// what the views need only where somebody does.
#[derive(Debug)]
struct Latest {
    ring: VecDeque<Raw>,
    capacity: usize,
}

/// One of them.
#[derive(Debug)]
struct Raw {
    span: SpanView,
    resource: Arc<Resource>,
    judgement: Judgement,
    passed: Option<Arc<Passed>>,
    /// Of all spans of its batch, one after the other; this one's from here.
    names: Arc<str>,
    name: Range<usize>,
}

impl Latest {
    fn new(capacity: usize) -> Self {
        Self {
            ring: VecDeque::new(),
            capacity: capacity.max(1),
        }
    }

    fn push(&mut self, raw: Raw) {
        if self.ring.len() >= self.capacity {
            self.ring.pop_front();
        }
        self.ring.push_back(raw);
    }

    /// The spans of a trace, newest first. Looks at all: who asks is a person, or the verdicts
    /// that are let through in a second.
    fn of(&self, trace_id: TraceId) -> impl Iterator<Item = Arc<StoredSpan>> {
        let of_trace = self.ring.iter().rev();
        let of_trace = of_trace.filter(move |raw| raw.span.trace_id == trace_id);
        of_trace.map(Raw::stored)
    }
}

impl Raw {
    fn stored(&self) -> Arc<StoredSpan> {
        let name = self.names.get(self.name.clone()).unwrap_or_default();
        let passed = self.passed.clone();
        Arc::new(keep(
            &self.span,
            name,
            &self.resource,
            &self.judgement,
            passed,
        ))
    }

    /// An agent has a verdict on it: this one, or one upstream.
    fn has_verdict(&self) -> bool {
        self.judgement.verdict.is_some() || self.passed.as_deref().is_some_and(is_verdict)
    }
}

/// The names of a batch's spans in one piece of memory, and where each ends.
fn names(batch: &SpanBatch) -> (Arc<str>, Vec<usize>) {
    let mut names = String::with_capacity(batch.spans.len() * 32);
    let mut ends = Vec::with_capacity(batch.spans.len());
    for span in &batch.spans {
        names.push_str(view::clip(&batch.name(span)));
        ends.push(names.len());
    }
    (names.into(), ends)
}

impl Default for TraceBounds {
    fn default() -> Self {
        Self {
            latest: 16_384,
            pinned: 200,
            spans_of_one: 1_000,
            pinned_per_second: 40,
            events_of_one: 256,
        }
    }
}

#[cfg(test)]
mod tests;

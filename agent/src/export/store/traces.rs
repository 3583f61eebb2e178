//! Whole traces, for who asks about one: the latest spans of all traces, whatever their
//! verdict, and longer those of traces in which a span got one. Its siblings, which came
//! before or come after it, would otherwise be gone when somebody looks.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use foldhash::quality::RandomState;

use super::{
    PerSecond, StoredEvent, StoredSpan,
    latest::{Latest, Settled},
};
use crate::{
    span::{SpanBatch, TraceId},
    time::MonoNs,
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

    /// Takes the spans of a batch, judged; `kept` are those of them that the other rings keep, with
    /// their places, in order. `events` knows those in the time of one with a verdict.
    pub fn add(
        &mut self,
        batch: SpanBatch,
        judgements: Vec<Judgement>,
        kept: &[(usize, Arc<StoredSpan>)],
        events: impl Fn(&StoredSpan) -> Vec<StoredEvent>,
    ) {
        let received = batch.received;
        let batch = Settled::new(batch, judgements);
        let mut kept = kept.iter().peekable();
        for at in 0..batch.len() {
            let stored = kept.next_if(|(kept, _)| *kept == at).map(|(_, span)| span);
            let trace_id = batch.trace_id(at);
            if (batch.has_verdict(at) || self.pinned.contains_key(&trace_id))
                && let Some(span) = stored.cloned().or_else(|| batch.stored(at))
            {
                self.note(span, (&batch, at), received, &events);
            }
        }
        self.latest.push(batch);
    }

    /// Keeps a span of a trace with a verdict for longer.
    fn note(
        &mut self,
        span: Arc<StoredSpan>,
        (batch, at): (&Settled, usize),
        now: MonoNs,
        events: impl Fn(&StoredSpan) -> Vec<StoredEvent>,
    ) {
        let trace_id = span.trace_id;
        let max = self.bounds.pinned_per_second;
        if let Some(pinned) = self.pinned.get_mut(&trace_id) {
            pinned.push(span.clone(), self.bounds.spans_of_one);
        } else if self.pinned_now.take(now, 1, max) == 1 {
            self.pin(&span, batch.of(trace_id, 0..at));
        }
        if batch.has_verdict(at)
            && let Some(pinned) = self.pinned.get_mut(&trace_id)
        {
            let room = self.bounds.events_of_one;
            let room = room.saturating_sub(pinned.events.len());
            if room > 0 {
                pinned.events.extend(events(&span).into_iter().take(room));
            }
        }
    }

    /// Keeps the trace of this span, with what came `before` it in its batch.
    fn pin(&mut self, span: &Arc<StoredSpan>, before: impl Iterator<Item = Arc<StoredSpan>>) {
        if self.order.len() >= self.bounds.pinned.max(1)
            && let Some(oldest) = self.order.pop_front()
        {
            self.pinned.remove(&oldest);
        }
        let mut pinned = Pinned::default();
        pinned.push(span.clone(), self.bounds.spans_of_one);
        for earlier in before.chain(self.latest.of(span.trace_id)) {
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

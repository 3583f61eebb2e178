//! The latest spans of all traces, batch by batch as they came from the pipeline: most are never
//! looked at, and are made what the views need only where somebody does.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use super::{StoredSpan, is_verdict, keep, passed, view};
use crate::{
    span::{ResourceSpans, SpanBatch, SpanView, TraceId},
    trace::read::Passed,
    verdict::Judgement,
};

/// Spans of a batch that may have given way and still be here.
const LARGE: usize = 2_048;

/// See the module's head. A batch is freed when all of it has given way, a large one by halves.
#[derive(Debug)]
pub(super) struct Latest {
    batches: VecDeque<Settled>,
    /// Spans of the first batch that have given way already.
    gone: usize,
    /// Of all batches, without those.
    spans: usize,
    capacity: usize,
}

/// A batch without its bytes.
#[derive(Debug)]
pub(super) struct Settled {
    spans: Vec<SpanView>,
    judgements: Vec<Judgement>,
    resources: Vec<ResourceSpans>,
    /// What agents upstream say of spans, by their places, in order.
    passed: Vec<(usize, Arc<Passed>)>,
    /// Of all spans, one after the other, and where each ends.
    names: Box<str>,
    ends: Vec<u32>,
}

impl Latest {
    /// Of at most `capacity` spans (at least one).
    pub fn new(capacity: usize) -> Self {
        Self {
            batches: VecDeque::new(),
            gone: 0,
            spans: 0,
            capacity: capacity.max(1),
        }
    }

    pub fn push(&mut self, mut batch: Settled) {
        batch.leave(self.capacity);
        if batch.len() == 0 {
            return; // such come in any number
        }
        self.spans += batch.len();
        self.batches.push_back(batch);
        while self.spans > self.capacity
            && let Some(first) = self.batches.front()
        {
            let (left, beyond) = (first.len() - self.gone, self.spans - self.capacity);
            if left > beyond {
                self.gone += beyond;
                self.spans = self.capacity;
                self.free_what_is_gone();
            } else {
                self.batches.pop_front();
                self.gone = 0;
                self.spans -= left;
            }
        }
    }

    /// Spans that take memory.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.batches.iter().map(Settled::len).sum()
    }

    /// Of a large batch what has given way is freed before its last span has.
    fn free_what_is_gone(&mut self) {
        if let Some(first) = self.batches.front_mut()
            && self.gone > LARGE.max(first.len() / 2)
        {
            first.leave(first.len() - self.gone);
            self.gone = 0;
        }
    }

    /// The spans of a trace, newest first. Looks at all: who asks is a person, or the verdicts
    /// that are let through in a second.
    pub fn of(&self, trace_id: TraceId) -> impl Iterator<Item = Arc<StoredSpan>> {
        let batches = self.batches.iter().enumerate().rev();
        batches.flat_map(move |(at, batch)| {
            let first = if at == 0 { self.gone } else { 0 };
            batch.of(trace_id, first..batch.len())
        })
    }
}

impl Settled {
    /// `judgements[i]` is about `batch.spans[i]`.
    pub fn new(batch: SpanBatch, judgements: Vec<Judgement>) -> Self {
        let mut names = String::with_capacity(batch.spans.len() * 32);
        let mut ends = Vec::with_capacity(batch.spans.len());
        let mut said = Vec::new();
        for (at, (span, judgement)) in batch.spans.iter().zip(&judgements).enumerate() {
            names.push_str(view::clip(&batch.name(span)));
            // Clipped, and fewer than 2^18.
            ends.push(names.len() as u32);
            if let Some(passed) = passed(&batch, span, judgement) {
                said.push((at, passed));
            }
        }
        let (mut spans, mut resources) = (batch.spans, batch.resources);
        // Room was made by the request's size, and empty resources take two bytes of it.
        spans.shrink_to_fit();
        resources.retain(|resource| !resource.spans.is_empty());
        resources.shrink_to_fit();
        Self {
            spans,
            judgements,
            resources,
            passed: said,
            names: names.into(),
            ends,
        }
    }

    /// Leaves the last `max` spans of more: one request may hold many more than are kept.
    fn leave(&mut self, max: usize) {
        let Some(beyond) = self.len().checked_sub(max).filter(|beyond| *beyond > 0) else {
            return;
        };
        let names = self.ends[beyond - 1];
        self.names = self.names.get(names as usize..).unwrap_or_default().into();
        self.ends = self.ends[beyond..].iter().map(|end| end - names).collect();
        self.spans = self.spans.split_off(beyond);
        self.judgements = self.judgements.split_off(beyond);
        self.passed.retain(|(at, _)| *at >= beyond);
        for (at, _) in &mut self.passed {
            *at -= beyond;
        }
        for resource in &mut self.resources {
            let Range { start, end } = resource.spans;
            resource.spans = start.saturating_sub(beyond)..end.saturating_sub(beyond);
        }
    }

    /// Spans.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn trace_id(&self, at: usize) -> TraceId {
        self.spans[at].trace_id
    }

    /// An agent has a verdict on it: this one, or one upstream.
    pub fn has_verdict(&self, at: usize) -> bool {
        self.judgements[at].verdict.is_some() || self.passed(at).is_some_and(|p| is_verdict(p))
    }

    /// A span as the views need it; of no resource, none.
    pub fn stored(&self, at: usize) -> Option<Arc<StoredSpan>> {
        let resource = self.resources.partition_point(|r| r.spans.end <= at);
        let resource = self.resources.get(resource)?;
        let from = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        let name = self.names.get(from as usize..self.ends[at] as usize)?;
        resource.spans.contains(&at).then(|| {
            Arc::new(keep(
                &self.spans[at],
                name,
                &resource.resource,
                &self.judgements[at],
                self.passed(at).cloned(),
            ))
        })
    }

    /// Those of a trace among these, the last first.
    pub fn of(
        &self,
        trace_id: TraceId,
        places: Range<usize>,
    ) -> impl Iterator<Item = Arc<StoredSpan>> {
        let of_trace = places
            .rev()
            .filter(move |at| self.trace_id(*at) == trace_id);
        of_trace.filter_map(|at| self.stored(at))
    }

    fn passed(&self, at: usize) -> Option<&Arc<Passed>> {
        let found = self.passed.binary_search_by_key(&at, |(at, _)| *at).ok()?;
        Some(&self.passed[found].1)
    }
}

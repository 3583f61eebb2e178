//! Whole traces, for who asks about one: the latest spans of all traces, whatever their
//! verdict, and longer those of traces in which a span got one. Its siblings, which came
//! before or come after it, would otherwise be gone when somebody looks.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use super::{PerSecond, StoredEvent, StoredSpan};
use crate::{span::TraceId, time::MonoNs};

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
    pinned: HashMap<TraceId, Pinned>,
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
            pinned: HashMap::new(),
            order: VecDeque::new(),
            pinned_now: PerSecond::default(),
        }
    }

    /// Takes a span that came at `now`; `events` knows those in the time of one with a
    /// verdict.
    pub fn add(
        &mut self,
        span: &Arc<StoredSpan>,
        now: MonoNs,
        events: impl FnOnce(&StoredSpan) -> Vec<StoredEvent>,
    ) {
        let max = self.bounds.pinned_per_second;
        if let Some(pinned) = self.pinned.get_mut(&span.trace_id) {
            pinned.push(span.clone(), self.bounds.spans_of_one);
        } else if span.verdict.is_some() && self.pinned_now.take(now, 1, max) == 1 {
            self.pin(span);
        }
        if span.verdict.is_some()
            && let Some(pinned) = self.pinned.get_mut(&span.trace_id)
        {
            let room = self
                .bounds
                .events_of_one
                .saturating_sub(pinned.events.len());
            if room > 0 {
                pinned.events.extend(events(span).into_iter().take(room));
            }
        }
        self.latest.push(span.clone());
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
            pinned.push(earlier.clone(), self.bounds.spans_of_one);
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
                spans: self.latest.of(trace_id).cloned().collect(),
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

const NONE: u64 = 0;

/// A ring of spans, chained by trace: finding a trace costs what it has spans.
#[derive(Debug)]
struct Latest {
    ring: VecDeque<Entry>,
    capacity: usize,
    /// Sequence number of the newest span, counted from 1.
    seen: u64,
    /// The newest span of each bucket of trace ids.
    newest: Vec<u64>,
    keys: RandomState,
}

#[derive(Debug)]
struct Entry {
    span: Arc<StoredSpan>,
    /// The one before it in its bucket.
    previous: u64,
}

impl Latest {
    fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        Self {
            ring: VecDeque::new(),
            capacity,
            seen: NONE,
            newest: vec![NONE; capacity.next_power_of_two()],
            keys: RandomState::new(),
        }
    }

    fn bucket(&self, trace_id: TraceId) -> usize {
        self.keys.hash_one(trace_id) as usize & (self.newest.len() - 1)
    }

    fn push(&mut self, span: Arc<StoredSpan>) {
        if self.ring.len() >= self.capacity {
            self.ring.pop_front();
        }
        self.seen += 1;
        let bucket = self.bucket(span.trace_id);
        let previous = std::mem::replace(&mut self.newest[bucket], self.seen);
        self.ring.push_back(Entry { span, previous });
    }

    /// The spans of a trace, newest first.
    fn of(&self, trace_id: TraceId) -> impl Iterator<Item = &Arc<StoredSpan>> {
        let mut at = self.newest[self.bucket(trace_id)];
        let chain = std::iter::from_fn(move || {
            let entry = self.entry(at)?;
            at = entry.previous;
            Some(&entry.span)
        });
        chain.filter(move |span| span.trace_id == trace_id)
    }

    /// The entry of a sequence number, if it has not given way.
    fn entry(&self, sequence: u64) -> Option<&Entry> {
        let oldest = self.seen + 1 - self.ring.len() as u64;
        if sequence == NONE || sequence < oldest {
            return None;
        }
        self.ring.get((sequence - oldest) as usize)
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

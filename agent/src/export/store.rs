//! Bounded recent history: what the page and the API show.
//!
//! The pipeline calls [`Store::record`] for every settled batch. At high rates healthy spans
//! are sampled by a budget per second, verdicts never; [`traces`] has the latest of all, so
//! that a trace is whole. JSON is made only while somebody listens to the stream.

mod events;
mod latest;
mod traces;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::broadcast;

pub use self::traces::TraceBounds;
use self::traces::Traces;
pub(crate) use self::{events::StoredEvent, traces::KeptTrace};
use super::{
    incidents::{History, Incidents},
    prometheus::SpanMetrics,
    stream::Published,
    view,
};
use crate::{
    process::{ProcessKey, SharedIdentity},
    span::{Joined, Resource, SpanBatch, SpanId, SpanView, TraceId},
    time::{MonoNs, UnixNs},
    trace::read::{self, Passed},
    verdict::{CauseInterval, Judgement, Split, Verdict},
    vocabulary::Cause,
};

/// Bounds of the history.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Spans with a verdict kept.
    pub verdicts: usize,
    /// Incidents kept; not fewer than the pipeline remembers, or some would count twice.
    pub incidents: usize,
    /// Latest spans kept.
    pub spans: usize,
    /// Latest delay intervals kept.
    pub events: usize,
    /// Processes kept for `/api/v1/workloads`.
    pub workloads: usize,
    /// Healthy spans kept in any one second; more are not looked at.
    pub spans_per_second: usize,
    /// Messages that a stream client may lag behind before it is dropped.
    pub stream_backlog: usize,
    /// What is kept for who asks about a whole trace.
    pub traces: TraceBounds,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            verdicts: 1_000,
            incidents: 500,
            spans: 500,
            events: 2_000,
            workloads: 1_000,
            spans_per_second: 500,
            stream_backlog: 256,
            traces: TraceBounds::default(),
        }
    }
}

/// A span as kept: what the views need, without the batch's bytes.
#[derive(Debug)]
pub struct StoredSpan {
    pub(crate) trace_id: TraceId,
    pub(crate) span_id: SpanId,
    pub(crate) parent_span_id: SpanId,
    pub(crate) resource: Arc<Resource>,
    pub(crate) operation: String,
    pub(crate) kind: i32,
    pub(crate) status_code: i32,
    pub(crate) start_unix_ns: u64,
    pub(crate) end_unix_ns: u64,
    pub(crate) joined: Joined,
    pub(crate) thread: Option<u32>,
    pub(crate) split: Option<Split>,
    pub(crate) verdict: Option<Arc<Verdict>>,
    pub(crate) intervals: Vec<CauseInterval>,
    /// What an agent upstream says: then that counts, and leaves with the span.
    pub(crate) passed: Option<Arc<Passed>>,
}

/// A process that sent spans.
#[derive(Clone, Debug)]
pub struct SeenWorkload {
    pub(crate) identity: SharedIdentity,
    pub(crate) services: Vec<Arc<str>>,
    pub(crate) spans: u64,
    pub(crate) verdicts: u64,
    pub(crate) last: MonoNs,
}

impl SeenWorkload {
    /// Spans seen since it was first (or again) heard of.
    #[must_use]
    pub const fn spans(&self) -> u64 {
        self.spans
    }
}

/// Which spans a query asks for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// At most this many, newest first.
    pub limit: usize,
    /// Of this service only.
    pub service: Option<String>,
    /// With a verdict of this cause only.
    pub cause: Option<Cause>,
    /// Of this trace only.
    pub trace_id: Option<TraceId>,
    /// Of events: not over before this time.
    pub from: Option<UnixNs>,
    /// Of events: begun before this time.
    pub to: Option<UnixNs>,
    /// Of events: of the workload with this name only.
    pub workload: Option<String>,
}

/// Recent history. Shared; all methods take `&self` and hold a lock for microseconds.
#[derive(Debug)]
pub struct Store {
    config: StoreConfig,
    rings: Mutex<Rings>,
    traces: Mutex<Traces>,
    incidents: Mutex<History>,
    workloads: Mutex<HashMap<ProcessKey, SeenWorkload>>,
    events: Mutex<VecDeque<StoredEvent>>,
    stream: broadcast::Sender<Published>,
    sent: Mutex<Sent>,
    metrics: Arc<SpanMetrics>,
}

#[derive(Debug, Default)]
struct Rings {
    verdicts: VecDeque<Arc<StoredSpan>>,
    spans: VecDeque<Arc<StoredSpan>>,
    healthy: PerSecond,
}

/// What was sent to the stream in the present second.
#[derive(Debug, Default)]
struct Sent {
    verdicts: PerSecond,
    spans: PerSecond,
}

/// How many of something were let through in one second.
#[derive(Debug, Default)]
struct PerSecond {
    second: u64,
    taken: usize,
}

impl PerSecond {
    /// How many of `wanted` may pass at `now`, at most `max` in its second.
    fn take(&mut self, now: MonoNs, wanted: usize, max: usize) -> usize {
        let second = now.0 / 1_000_000_000;
        if self.second != second {
            *self = Self { second, taken: 0 };
        }
        let granted = wanted.min(max.saturating_sub(self.taken));
        self.taken += granted;
        granted
    }
}

/// Verdicts sent to the stream in one second.
const VERDICTS_SENT_PER_SECOND: usize = 40;
/// Healthy spans sent to the stream in one second.
const SPANS_SENT_PER_SECOND: usize = 10;
/// Services remembered for one process: a collector in between may send many.
const MAX_SERVICES: usize = 8;

impl Store {
    /// An empty history that feeds `metrics` with what it is given.
    #[must_use]
    pub fn new(config: StoreConfig, metrics: Arc<SpanMetrics>) -> Self {
        let (stream, _) = broadcast::channel(config.stream_backlog.max(1));
        let incidents = Mutex::new(History::new(config.incidents));
        Self {
            traces: Mutex::new(Traces::new(config.traces)),
            config,
            rings: Mutex::default(),
            incidents,
            workloads: Mutex::default(),
            events: Mutex::default(),
            stream,
            sent: Mutex::default(),
            metrics,
        }
    }

    /// Takes a settled batch: `judgements[i]` is about `batch.spans[i]`.
    pub fn record(&self, batch: SpanBatch, judgements: Vec<Judgement>) {
        self.metrics.record(&batch, &judgements);
        self.note_workloads(&batch, &judgements);
        let kept = self.select(&batch, &judgements);
        self.note_incidents(&kept);
        self.publish(&kept, batch.received);
        let mut traces = self.traces.lock();
        traces.add(batch, judgements, &kept, |span| self.events_of(span));
        drop(traces);
        let mut rings = self.rings.lock();
        for (_, span) in kept {
            if span.verdict.is_some() {
                push_bounded(&mut rings.verdicts, span.clone(), self.config.verdicts);
            }
            push_bounded(&mut rings.spans, span, self.config.spans);
        }
    }

    /// Those with a verdict and as many healthy ones as may be kept, with their places.
    fn select(&self, batch: &SpanBatch, judgements: &[Judgement]) -> Vec<Kept> {
        let healthy_budget = self.take_budget(batch, judgements);
        let mut kept = Vec::new();
        let mut healthy_left = judgements.iter().filter(|j| j.verdict.is_none()).count();
        for resource in &batch.resources {
            for index in resource.spans.clone() {
                let (Some(span), Some(judgement)) = (batch.spans.get(index), judgements.get(index))
                else {
                    continue;
                };
                if judgement.verdict.is_none() {
                    // The last ones of the batch are the ones kept.
                    healthy_left = healthy_left.saturating_sub(1);
                    if healthy_left >= healthy_budget {
                        continue;
                    }
                }
                let name = batch.name(span);
                let passed = passed(batch, span, judgement);
                let span = keep(
                    span,
                    view::clip(&name),
                    &resource.resource,
                    judgement,
                    passed,
                );
                kept.push((index, Arc::new(span)));
            }
        }
        kept
    }

    /// What is still here of a trace.
    pub(crate) fn trace(&self, trace_id: TraceId) -> KeptTrace {
        self.traces.lock().of(trace_id)
    }

    /// Spans with a verdict, newest first.
    #[must_use]
    pub fn verdicts(&self, filter: &Filter) -> Vec<Arc<StoredSpan>> {
        select(&self.rings.lock().verdicts, filter)
    }

    /// Latest spans, newest first.
    #[must_use]
    pub fn spans(&self, filter: &Filter) -> Vec<Arc<StoredSpan>> {
        select(&self.rings.lock().spans, filter)
    }

    /// Incidents, the latest first: at most `filter.limit`, those of one service or cause where
    /// asked for.
    #[must_use]
    pub fn incidents(&self, filter: &Filter) -> Incidents {
        let history = self.incidents.lock();
        history.select(filter.limit, filter.service.as_deref(), filter.cause)
    }

    /// Processes that sent spans, the latest first.
    #[must_use]
    pub fn workloads(&self, limit: usize) -> Vec<SeenWorkload> {
        let mut all: Vec<_> = self.workloads.lock().values().cloned().collect();
        all.sort_unstable_by_key(|w| std::cmp::Reverse(w.last));
        all.truncate(limit);
        all
    }

    /// Listens to what is recorded from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Published> {
        self.stream.subscribe()
    }

    /// How many healthy spans of this batch may be kept.
    fn take_budget(&self, batch: &SpanBatch, judgements: &[Judgement]) -> usize {
        let healthy = judgements.iter().filter(|j| j.verdict.is_none()).count();
        let mut rings = self.rings.lock();
        rings
            .healthy
            .take(batch.received, healthy, self.config.spans_per_second)
    }

    fn note_workloads(&self, batch: &SpanBatch, judgements: &[Judgement]) {
        let mut workloads = self.workloads.lock();
        for resource in &batch.resources {
            let Some(identity) = &resource.joined.identity else {
                continue;
            };
            if !workloads.contains_key(&identity.process)
                && workloads.len() >= self.config.workloads.max(1)
            {
                let oldest = workloads.iter().min_by_key(|(_, w)| w.last);
                if let Some(key) = oldest.map(|(key, _)| *key) {
                    workloads.remove(&key);
                }
            }
            let seen = workloads
                .entry(identity.process)
                .or_insert_with(|| SeenWorkload {
                    identity: identity.clone(),
                    services: Vec::new(),
                    spans: 0,
                    verdicts: 0,
                    last: batch.received,
                });
            let service = view::clip(&resource.resource.service);
            if seen.services.len() < MAX_SERVICES && !seen.services.iter().any(|s| **s == *service)
            {
                seen.services.push(service.into());
            }
            let of_resource = judgements.get(resource.spans.clone()).unwrap_or_default();
            seen.identity = identity.clone();
            seen.last = batch.received;
            seen.spans += of_resource.len() as u64;
            seen.verdicts += of_resource.iter().filter(|j| j.verdict.is_some()).count() as u64;
        }
    }

    fn note_incidents(&self, kept: &[Kept]) {
        let mut incidents = self.incidents.lock();
        for (_, span) in kept.iter().filter(|(_, span)| span.verdict.is_some()) {
            if incidents.note(span)
                && let Some(verdict) = &span.verdict
            {
                let service = &span.resource.service;
                self.metrics
                    .count_incident(service, verdict.cause, verdict.fault);
            }
        }
    }

    fn publish(&self, kept: &[Kept], now: MonoNs) {
        if self.stream.receiver_count() == 0 {
            return;
        }
        // A page can show so many; the rest is in the API.
        let kept = kept.iter().map(|(_, span)| span);
        let (bad, good): (Vec<_>, Vec<_>) = kept.partition(|s| s.verdict.is_some());
        let (bad_left, good_left) = {
            let mut sent = self.sent.lock();
            let bad_left = sent.verdicts.take(now, bad.len(), VERDICTS_SENT_PER_SECOND);
            (
                bad_left,
                sent.spans.take(now, good.len(), SPANS_SENT_PER_SECOND),
            )
        };
        for span in bad.iter().skip(bad.len() - bad_left) {
            if let Some(row) = view::verdict_json(span, None) {
                self.send(Published::verdict(&row));
            }
        }
        for span in good.iter().skip(good.len() - good_left) {
            self.send(Published::span(&view::span_json(span, None)));
        }
    }

    fn send(&self, message: Published) {
        // An error says that nobody listens any more: nothing is lost by that.
        let _ = self.stream.send(message);
    }
}

/// A span that is kept, and its place in the batch.
type Kept = (usize, Arc<StoredSpan>);

/// A span with its name and judgement, as the views need it.
pub(crate) fn keep(
    span: &SpanView,
    name: &str,
    resource: &Arc<Resource>,
    judgement: &Judgement,
    passed: Option<Arc<Passed>>,
) -> StoredSpan {
    StoredSpan {
        trace_id: span.trace_id,
        span_id: span.span_id,
        parent_span_id: span.parent_span_id,
        resource: resource.clone(),
        operation: name.to_owned(),
        kind: span.kind,
        status_code: span.status_code,
        start_unix_ns: span.start_unix_ns,
        end_unix_ns: span.end_unix_ns,
        joined: judgement.joined.clone(),
        thread: judgement.thread,
        split: judgement.split.clone(),
        verdict: judgement.verdict.clone(),
        intervals: judgement.intervals.clone(),
        passed,
    }
}

/// What an agent upstream wrote on a span. Of a process on this node, none did: what such a span
/// brings along is the process's own word.
fn passed(batch: &SpanBatch, span: &SpanView, judgement: &Judgement) -> Option<Arc<Passed>> {
    if !span.is_enriched || judgement.joined.identity.is_some() {
        return None;
    }
    let body = span.body.start as usize..span.body.end as usize;
    let times = (span.start_unix_ns, span.end_unix_ns);
    read::passed(batch.payload.get(body)?, times).map(Arc::new)
}

/// Whether there is a verdict among what an agent upstream says.
fn is_verdict(passed: &Passed) -> bool {
    passed
        .said
        .as_ref()
        .is_some_and(|said| said.verdict.is_some())
}

fn push_bounded<T>(ring: &mut VecDeque<T>, item: T, max: usize) {
    if ring.len() >= max.max(1) {
        ring.pop_front();
    }
    ring.push_back(item);
}

fn select(ring: &VecDeque<Arc<StoredSpan>>, filter: &Filter) -> Vec<Arc<StoredSpan>> {
    let wanted = |s: &&Arc<StoredSpan>| {
        let of_cause = |c| s.verdict.as_ref().is_some_and(|v| v.cause == c);
        filter
            .service
            .as_ref()
            .is_none_or(|f| *f == s.resource.service)
            && filter.cause.is_none_or(of_cause)
            && filter.trace_id.is_none_or(|t| t == s.trace_id)
    };
    ring.iter()
        .rev()
        .filter(wanted)
        .take(filter.limit)
        .cloned()
        .collect()
}

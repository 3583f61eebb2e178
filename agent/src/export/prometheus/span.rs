//! Series of spans: the golden signals of every hop, what took their time, verdicts.
//!
//! Services and operations are names from outside: looked up without an allocation when
//! known, bounded when new.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        exemplar::{CounterWithExemplar, HistogramWithExemplars},
        family::Family,
    },
    registry::{Registry, Unit},
};

use super::{Budget, For, PrometheusConfig, workload::Exemplars};
use crate::{
    export::view,
    metrics::AgentMetrics,
    pipeline::fault::{self, Circumstances},
    span::{SpanBatch, SpanView},
    stack::report::bends_output,
    time::{MonoNs, UnixNs},
    verdict::Judgement,
    vocabulary::{Cause, Fault, Layer},
};

/// With a hasher that is cheaper than the standard one; its seed is random, as names come
/// from the network.
type Map<K, V> = std::collections::HashMap<K, V, foldhash::quality::RandomState>;

/// Labels of `isostack_span_duration_seconds`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SpanLabels {
    service: Arc<str>,
    operation: Arc<str>,
    status: &'static str,
}

/// Labels of the causes and verdicts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabels {
    service: Arc<str>,
    cause: &'static str,
    fault: &'static str,
}

/// What leads from a sample to the trace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct TraceLabels {
    pub(super) trace_id: String,
    pub(super) span_id: String,
}

/// Labels of the node's own series.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabels {
    node: String,
}

type Durations = HistogramWithExemplars<TraceLabels>;
type Seconds = Counter<f64, AtomicU64>;
type DurationFamily = Family<SpanLabels, Durations, fn() -> Durations>;

/// Upper bounds in seconds: fine around the usual objectives, 100 us to a minute.
const DURATION_BUCKETS: [f64; 18] = [
    0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0,
    20.0, 30.0, 60.0,
];
/// Series of one duration histogram: its buckets, `+Inf`, `_sum`, `_count`.
const DURATION_SERIES: usize = DURATION_BUCKETS.len() + 3;
/// A new exemplar for the same histogram no more often than this.
const EXEMPLAR_EVERY_NS: u64 = 1_000_000_000;
/// Exemplars of spans that ended longer ago are dated now.
const RECENT_NS: u64 = 600 * 1_000_000_000;
/// Longest duration that is believed: a day.
const LONGEST_NS: u64 = 86_400 * 1_000_000_000;
/// The operation that stands for those beyond the bound.
const OTHER: &str = "other";

/// Counters and histograms that [`crate::export::Store::record`] feeds.
#[derive(Debug)]
pub struct SpanMetrics {
    durations: DurationFamily,
    causes: Family<CauseLabels, Seconds>,
    verdicts: Family<CauseLabels, CounterWithExemplar<TraceLabels>>,
    incidents: Family<CauseLabels, Counter>,
    steal: Family<NodeLabels, Seconds>,
    stolen: Seconds,
    known: Mutex<Map<Arc<str>, Service>>,
    exemplars: Mutex<Exemplars>,
    budget: Budget,
    max_operations: usize,
    /// Number of services at which those without series are forgotten.
    prune_at: AtomicUsize,
}

/// The series of one service, by what is looked up for each span.
#[derive(Debug)]
struct Service {
    name: Arc<str>,
    /// The same as a label.
    label: Arc<str>,
    operations: Map<Arc<str>, Operation>,
    /// Few, and asked for by each part of each span: rather looked through than hashed.
    causes: Vec<CauseSeries>,
    verdicts: Map<(Cause, Fault), Option<CounterWithExemplar<TraceLabels>>>,
    incidents: Map<(Cause, Fault), Option<Counter>>,
}

/// Time by a cause with a fault; none where there was no room for its series.
type CauseSeries = ((Cause, Option<Fault>), Option<Seconds>);

/// One histogram for each status, made when first needed.
#[derive(Debug, Default)]
struct Operation {
    by_status: [Option<Durations>; 3],
    exemplar_at: MonoNs,
}

/// A span, what was said about it, and when its exemplars are dated.
pub(super) struct Judged<'a> {
    pub(super) span: &'a SpanView,
    pub(super) judgement: &'a Judgement,
    pub(super) at: UnixNs,
}

impl Judged<'_> {
    /// What leads to the trace; nothing for a span without ids.
    fn trace(&self) -> Option<TraceLabels> {
        let labels = || TraceLabels {
            trace_id: view::hex(&self.span.trace_id),
            span_id: view::hex(&self.span.span_id),
        };
        (self.span.trace_id != [0; 16]).then(labels)
    }
}

impl SpanMetrics {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(config: &PrometheusConfig, metrics: &AgentMetrics) -> Self {
        let histogram: fn() -> Durations = || Durations::new(DURATION_BUCKETS.into_iter());
        let steal = Family::<NodeLabels, Seconds>::default();
        let node = config.node.clone();
        let stolen = steal.get_or_create_owned(&NodeLabels { node });
        Self {
            durations: Family::new_with_constructor(histogram),
            causes: Family::default(),
            verdicts: Family::default(),
            incidents: Family::default(),
            steal,
            stolen,
            known: Mutex::default(),
            exemplars: Mutex::default(),
            budget: Budget::new(config.max_series, metrics.series_overflow.clone()),
            max_operations: config.max_operations,
            prune_at: AtomicUsize::new(PRUNE_EVERY),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Duration of spans, by service, operation and status";
        let durations = self.durations.clone();
        registry.register_with_unit("isostack_span_duration", help, Unit::Seconds, durations);
        let help = "Self time of spans, by what it was spent on and where that lives";
        let causes = self.causes.clone();
        registry.register_with_unit("isostack_span_cause", help, Unit::Seconds, causes);
        let help = "Spans whose slowness was localised, by cause and by where it lives";
        registry.register("isostack_verdicts", help, self.verdicts.clone());
        let help = "Incidents, by the service, cause and place of their first verdict";
        registry.register("isostack_incidents", help, self.incidents.clone());
        let help = "Time that the hypervisor below took from this node's CPUs";
        registry.register_with_unit(
            "isostack_cpu_steal",
            help,
            Unit::Seconds,
            self.steal.clone(),
        );
    }

    pub(super) fn exemplars(&self) -> Exemplars {
        self.exemplars.lock().clone()
    }

    pub(super) const fn budget(&self) -> &Budget {
        &self.budget
    }

    pub(crate) fn add_steal(&self, stolen_ns: u64) {
        self.stolen.inc_by(stolen_ns as f64 / 1e9);
    }

    /// Counts an incident; its first verdict is of `service`, and counted already.
    pub(crate) fn count_incident(&self, service: &str, cause: Cause, fault: Fault) {
        let mut known = self.known.lock();
        let name = view::clip(service);
        let Some(service) = known.get_mut(name) else {
            return; // without room for its verdicts
        };
        let name = &service.label;
        let series = service.incidents.entry((cause, fault)).or_insert_with(|| {
            self.budget.take(1, For::Causes).then(|| {
                let labels = CauseLabels::new(name, cause, fault.as_str());
                self.incidents.get_or_create_owned(&labels)
            })
        });
        if let Some(counter) = series {
            counter.inc();
        }
    }

    /// Counts a settled batch.
    pub(crate) fn record(&self, batch: &SpanBatch, judgements: &[Judgement]) {
        let now = UnixNs::now();
        let mut known = self.known.lock();
        for resource in &batch.resources {
            let name = view::clip(&resource.resource.service);
            if !known.contains_key(name) {
                let service = Service::new(name);
                known.insert(service.name.clone(), service);
            }
            let service = known.get_mut(name).expect("inserted just above");
            for index in resource.spans.clone() {
                if let (Some(span), Some(j)) = (batch.spans.get(index), judgements.get(index)) {
                    // Prometheus takes exemplars of a series in the order of time: one dated
                    // in the future would keep the later ones out.
                    let recent = now.0.saturating_sub(span.end_unix_ns) < RECENT_NS;
                    let at = if recent && span.end_unix_ns <= now.0 {
                        UnixNs(span.end_unix_ns)
                    } else {
                        now
                    };
                    let judged = Judged {
                        span,
                        judgement: j,
                        at,
                    };
                    self.record_span(service, batch, &judged);
                }
            }
        }
        // A sender that makes up service names must not fill memory either: what has no
        // series (refused by the budget) need not be remembered.
        if known.len() >= self.prune_at.load(Ordering::Relaxed) {
            known.retain(|_, service| service.has_series());
            let next = known.len() + PRUNE_EVERY;
            self.prune_at.store(next, Ordering::Relaxed);
        }
    }

    fn record_span(&self, service: &mut Service, batch: &SpanBatch, of: &Judged<'_>) {
        self.observe_duration(service, batch, of);
        if let Some(split) = &of.judgement.split {
            for (cause, ns) in &split.parts {
                let fault = fault_of(*cause, of.judgement);
                if let Some(seconds) = self.cause(service, *cause, fault) {
                    seconds.inc_by(*ns as f64 / 1e9);
                }
            }
        }
        if let Some(verdict) = &of.judgement.verdict {
            if let Some(counter) = self.verdict(service, verdict.cause, verdict.fault) {
                counter.inc_by(1, of.trace(), Some(time(of.at)));
            }
            if let Some(identity) = &of.judgement.joined.identity {
                let mut exemplars = self.exemplars.lock();
                exemplars.note(identity.cgroup_id, of, verdict.cause);
            }
        }
    }

    fn observe_duration(&self, service: &mut Service, batch: &SpanBatch, of: &Judged<'_>) {
        // No start, no end, end before start, or a clock that went mad: no duration, and one
        // such span would spoil the sum for good.
        let (start, end) = (of.span.start_unix_ns, of.span.end_unix_ns);
        let duration_ns = end.saturating_sub(start);
        if start == 0 || end < start || duration_ns > LONGEST_NS {
            return;
        }
        let name = batch.name(of.span);
        let name = view::clip(&name);
        let status = view::status_word(of.span.status_code);
        let slot = usize::from(status == "ok") + 2 * usize::from(status == "error");
        let seconds = duration_ns as f64 / 1e9;
        if let Some(operation) = service.operations.get_mut(name)
            && operation.observe(slot, seconds, batch.received, of)
        {
            return;
        }
        let full = service.operations.len() >= self.max_operations;
        let key = if full && !service.operations.contains_key(name) {
            OTHER
        } else {
            name
        };
        let known = service.operations.get(key);
        if known.is_none_or(|operation| operation.by_status[slot].is_none()) {
            // One that is refused is not remembered either: names must not fill memory.
            if !self.budget.take(DURATION_SERIES, For::Durations) {
                return;
            }
            let operation: Arc<str> = key.into();
            let histogram = self.durations.get_or_create_owned(&SpanLabels {
                service: service.label.clone(),
                operation: straight(key),
                status,
            });
            let operation = service.operations.entry(operation).or_default();
            operation.by_status[slot] = Some(histogram);
        }
        if let Some(operation) = service.operations.get_mut(key) {
            operation.observe(slot, seconds, batch.received, of);
        }
    }

    fn cause<'a>(
        &self,
        service: &'a mut Service,
        cause: Cause,
        fault: Option<Fault>,
    ) -> Option<&'a Seconds> {
        let known = service
            .causes
            .iter()
            .position(|(of, _)| *of == (cause, fault));
        let at = known.unwrap_or_else(|| {
            let series = self.budget.take(1, For::Causes).then(|| {
                let fault = fault.map_or("", Fault::as_str);
                let labels = CauseLabels::new(&service.label, cause, fault);
                self.causes.get_or_create_owned(&labels)
            });
            service.causes.push(((cause, fault), series));
            service.causes.len() - 1
        });
        service.causes[at].1.as_ref()
    }

    fn verdict(
        &self,
        service: &mut Service,
        cause: Cause,
        fault: Fault,
    ) -> Option<CounterWithExemplar<TraceLabels>> {
        let name = &service.label;
        let series = service.verdicts.entry((cause, fault)).or_insert_with(|| {
            self.budget.take(1, For::Causes).then(|| {
                let labels = CauseLabels::new(name, cause, fault.as_str());
                self.verdicts.get_or_create_owned(&labels)
            })
        });
        series.clone()
    }
}

impl Operation {
    /// Counts a span where its status has a histogram already; says whether it has.
    fn observe(&mut self, slot: usize, seconds: f64, received: MonoNs, of: &Judged<'_>) -> bool {
        let Some(histogram) = &self.by_status[slot] else {
            return false;
        };
        // A span with a verdict is what somebody looks for; else now and then one.
        let since = received.since(self.exemplar_at);
        let wanted = of.judgement.verdict.is_some() || since >= EXEMPLAR_EVERY_NS;
        if wanted {
            self.exemplar_at = received;
        }
        let exemplar = if wanted { of.trace() } else { None };
        histogram.observe(seconds, exemplar, Some(time(of.at)));
        true
    }
}

/// After so many new services those without series are forgotten.
const PRUNE_EVERY: usize = 1_024;

impl Service {
    fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            label: straight(name),
            operations: Map::default(),
            causes: Vec::new(),
            verdicts: Map::default(),
            incidents: Map::default(),
        }
    }

    fn has_series(&self) -> bool {
        !self.operations.is_empty() || self.causes.iter().any(|(_, series)| series.is_some())
    }
}

/// A name as a label: what would bend the terminal of who reads the page is written out. The
/// encoder does the rest.
fn straight(name: &str) -> Arc<str> {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '\n' => out.push(c),
            c if bends_output(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out.into()
}

impl CauseLabels {
    fn new(service: &Arc<str>, cause: Cause, fault: &'static str) -> Self {
        Self {
            service: service.clone(),
            cause: cause.as_str(),
            fault,
        }
    }
}

/// Where the mechanism lives, as far as the judgement says; else by the design's table.
fn fault_of(cause: Cause, j: &Judgement) -> Option<Fault> {
    if let Some(verdict) = j.verdict.as_ref().filter(|v| v.cause == cause) {
        return Some(verdict.fault);
    }
    if let Some(interval) = j.intervals.iter().find(|i| i.cause == cause) {
        return Some(interval.fault);
    }
    // What nobody can explain lives nowhere, nor does a flow whose device is not known.
    let emitter = j.joined.identity.as_ref().map(|i| i.stack.layer());
    let at = Circumstances::of(emitter.unwrap_or(Layer::HardwareAssist));
    fault::fault_of(cause, &at)
}

fn time(at: UnixNs) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(at.0)
}

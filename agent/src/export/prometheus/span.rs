//! Series of spans: the golden signals of every hop, what took their time, verdicts.
//!
//! Services and operations are names from outside: looked up without an allocation when
//! known, bounded when new.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicU64},
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

use super::{Budget, PrometheusConfig, workload::Exemplars};
use crate::{
    export::view,
    metrics::AgentMetrics,
    span::{SpanBatch, SpanView},
    verdict::Judgement,
    vocabulary::{Cause, Fault},
};

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
/// The operation that stands for those beyond the bound.
const OTHER: &str = "other";

/// Counters and histograms that [`crate::export::Store::record`] feeds.
#[derive(Debug)]
pub struct SpanMetrics {
    durations: DurationFamily,
    causes: Family<CauseLabels, Seconds>,
    verdicts: Family<CauseLabels, CounterWithExemplar<TraceLabels>>,
    steal: Family<NodeLabels, Seconds>,
    stolen: Seconds,
    known: Mutex<HashMap<Arc<str>, Service>>,
    exemplars: Mutex<Exemplars>,
    budget: Budget,
    max_operations: usize,
}

/// The series of one service, by what is looked up for each span.
#[derive(Debug)]
struct Service {
    name: Arc<str>,
    operations: HashMap<Arc<str>, Operation>,
    causes: HashMap<(Cause, &'static str), Option<Seconds>>,
    verdicts: HashMap<(Cause, Fault), Option<CounterWithExemplar<TraceLabels>>>,
}

/// One histogram for each status, made when first needed; `Some(None)` was refused.
#[derive(Debug, Default)]
struct Operation {
    by_status: [Option<Option<Durations>>; 3],
    exemplar_at_ns: u64,
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
            steal,
            stolen,
            known: Mutex::default(),
            exemplars: Mutex::default(),
            budget: Budget::new(config.max_series, metrics.series_overflow.clone()),
            max_operations: config.max_operations,
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

    /// Counts a settled batch.
    pub(crate) fn record(&self, batch: &SpanBatch, judgements: &[Judgement]) {
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
                    self.record_span(service, batch, span, j);
                }
            }
        }
        // A sender that makes up service names must not fill memory either: what has no
        // series (refused by the budget) need not be remembered.
        if known.len() > MAX_SERVICES {
            known.retain(|_, service| service.has_series());
        }
    }

    fn record_span(
        &self,
        service: &mut Service,
        batch: &SpanBatch,
        span: &SpanView,
        j: &Judgement,
    ) {
        // End before start or no end: no duration, so nothing for a histogram of them.
        if span.start_unix_ns != 0 && span.end_unix_ns >= span.start_unix_ns {
            self.observe_duration(service, batch, span, j);
        }
        if let Some(split) = &j.split {
            for (cause, ns) in &split.parts {
                let fault = fault_of(*cause, j);
                if let Some(seconds) = self.cause(service, *cause, fault) {
                    seconds.inc_by(*ns as f64 / 1e9);
                }
            }
        }
        if let Some(verdict) = &j.verdict {
            if let Some(counter) = self.verdict(service, verdict.cause, verdict.fault) {
                counter.inc_by(1, Some(trace(span)), Some(time(span.end_unix_ns)));
            }
            if let Some(identity) = &j.joined.identity {
                let mut exemplars = self.exemplars.lock();
                exemplars.note(identity.cgroup_id, span, j, verdict.cause);
            }
        }
    }

    fn observe_duration(
        &self,
        service: &mut Service,
        batch: &SpanBatch,
        span: &SpanView,
        j: &Judgement,
    ) {
        let name = batch.name(span);
        let name = view::clip(&name);
        let full = service.operations.len() >= self.max_operations;
        let key = if full && !service.operations.contains_key(name) {
            OTHER
        } else {
            name
        };
        if !service.operations.contains_key(key) {
            service.operations.insert(key.into(), Operation::default());
        }
        let (key, operation) = {
            let (key, _) = service
                .operations
                .get_key_value(key)
                .expect("inserted just above");
            let key = key.clone();
            let operation = service.operations.get_mut(&key).expect("the same key");
            (key, operation)
        };
        let status = view::status_word(span.status_code);
        let slot = usize::from(status == "ok") + 2 * usize::from(status == "error");
        let histogram = operation.by_status[slot].get_or_insert_with(|| {
            self.budget.take(DURATION_SERIES).then(|| {
                self.durations.get_or_create_owned(&SpanLabels {
                    service: service.name.clone(),
                    operation: key,
                    status,
                })
            })
        });
        let Some(histogram) = histogram else { return };
        // A span with a verdict is what somebody looks for; else now and then one.
        let since = batch.received.0.saturating_sub(operation.exemplar_at_ns);
        let exemplar = j.verdict.is_some() || since >= EXEMPLAR_EVERY_NS;
        if exemplar {
            operation.exemplar_at_ns = batch.received.0;
        }
        let seconds = (span.end_unix_ns - span.start_unix_ns) as f64 / 1e9;
        let exemplar = (exemplar && span.trace_id != [0; 16]).then(|| trace(span));
        histogram.observe(seconds, exemplar, Some(time(span.end_unix_ns)));
    }

    fn cause(&self, service: &mut Service, cause: Cause, fault: &'static str) -> Option<Seconds> {
        let name = &service.name;
        let series = service.causes.entry((cause, fault)).or_insert_with(|| {
            self.budget.take(1).then(|| {
                let labels = CauseLabels::new(name, cause, fault);
                self.causes.get_or_create_owned(&labels)
            })
        });
        series.clone()
    }

    fn verdict(
        &self,
        service: &mut Service,
        cause: Cause,
        fault: Fault,
    ) -> Option<CounterWithExemplar<TraceLabels>> {
        let name = &service.name;
        let series = service.verdicts.entry((cause, fault)).or_insert_with(|| {
            self.budget.take(1).then(|| {
                let labels = CauseLabels::new(name, cause, fault.as_str());
                self.verdicts.get_or_create_owned(&labels)
            })
        });
        series.clone()
    }
}

/// Services remembered before those without series are forgotten.
const MAX_SERVICES: usize = 4_096;

impl Service {
    fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            operations: HashMap::new(),
            causes: HashMap::new(),
            verdicts: HashMap::new(),
        }
    }

    fn has_series(&self) -> bool {
        let made = |o: &Operation| o.by_status.iter().flatten().flatten().next().is_some();
        self.operations.values().any(made) || self.causes.values().any(Option::is_some)
    }
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
fn fault_of(cause: Cause, j: &Judgement) -> &'static str {
    if let Some(verdict) = j.verdict.as_ref().filter(|v| v.cause == cause) {
        return verdict.fault.as_str();
    }
    if let Some(interval) = j.intervals.iter().find(|i| i.cause == cause) {
        return interval.fault.as_str();
    }
    match cause {
        Cause::CpuThrottle | Cause::BlockThrottle | Cause::Conntrack | Cause::SeccompDenied => {
            Fault::L3.as_str()
        }
        Cause::Steal | Cause::KvmExit => Fault::L1.as_str(),
        Cause::Virtqueue => Fault::L2.as_str(),
        Cause::Runqueue
        | Cause::MemoryReclaim
        | Cause::OomKill
        | Cause::BlockQueue
        | Cause::BlockDevice => Fault::Host.as_str(),
        Cause::OnCpu | Cause::LockWait | Cause::Sleep => Fault::App.as_str(),
        Cause::Downstream | Cause::SocketWait => Fault::Downstream.as_str(),
        // By slice, which nobody named; and what nobody can explain lives nowhere.
        Cause::TcpConnect
        | Cause::TcpRtt
        | Cause::TcpRetransmit
        | Cause::NetDrop
        | Cause::Unexplained => "",
    }
}

fn trace(span: &SpanView) -> TraceLabels {
    TraceLabels {
        trace_id: view::hex(&span.trace_id),
        span_id: view::hex(&span.span_id),
    }
}

fn time(unix_ns: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(unix_ns)
}

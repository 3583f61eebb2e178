//! `/metrics`: OpenMetrics text with exemplars, or the classic text format for who asks for it.
//!
//! `prometheus-client` keeps and writes everything but the workload series: their histograms
//! come ready-made from the kernel, and the library offers no way to put an exemplar on a
//! histogram that it did not observe itself ([`workload`] writes those).

mod agent;
mod classic;
mod measured;
mod span;
mod workload;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::text::{encode_eof, encode_registry},
    metrics::{counter::Counter, info::Info},
    registry::Registry,
};

pub use self::span::SpanMetrics;
use super::{LabelSource, Source};
use crate::{
    metrics::AgentMetrics,
    sensor::{Counted, SensorStatus},
    time::MonoNs,
};

/// Bounds of the metrics page.
#[derive(Clone, Debug)]
pub struct PrometheusConfig {
    /// The `node` label.
    pub node: String,
    /// Series on the page, at most, apart from the agent's own health.
    pub max_series: usize,
    /// Values of `operation` for one service; more are counted as `other`.
    pub max_operations: usize,
}

impl Default for PrometheusConfig {
    fn default() -> Self {
        Self {
            node: String::new(),
            max_series: 20_000,
            max_operations: 200,
        }
    }
}

/// The formats of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.0, with exemplars.
    OpenMetrics,
    /// Prometheus' text format 0.0.4, which has no exemplars.
    Classic,
}

impl Format {
    /// What an `Accept` header asks for: OpenMetrics if it is named and not ranked below
    /// plain text.
    #[must_use]
    pub fn negotiate(accept: Option<&str>) -> Self {
        let quality = |wanted: &str| {
            let of_type = |range: &str| {
                let mut parts = range.split(';').map(str::trim);
                let name = parts.next()?;
                let q = parts.find_map(|p| p.strip_prefix("q="));
                let q = q.and_then(|q| q.parse::<f32>().ok()).unwrap_or(1.0);
                name.eq_ignore_ascii_case(wanted).then_some(q)
            };
            let ranges = accept.unwrap_or_default().split(',');
            ranges.filter_map(of_type).fold(0.0, f32::max)
        };
        let open = quality("application/openmetrics-text");
        if open > 0.0 && open >= quality("text/plain") {
            Self::OpenMetrics
        } else {
            Self::Classic
        }
    }

    /// The `Content-Type` of the answer.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What series are taken for. A sender makes up as many names as it likes: those may fill
/// half of the page, what took their time another quarter, and the rest stays for what the
/// kernel counted of the workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    /// Histograms by service and operation.
    Durations,
    /// Causes and verdicts by service.
    Causes,
}

/// The number of series given away, shared by all who make some.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    used: Arc<AtomicUsize>,
    max: usize,
    overflow: Counter,
}

impl Budget {
    fn new(max: usize, overflow: Counter) -> Self {
        let used = Arc::default();
        Self {
            used,
            max,
            overflow,
        }
    }

    /// Takes `n` series for good; counts and refuses when they would be too many for those
    /// who want them.
    fn take(&self, n: usize, wanted_for: For) -> bool {
        let max = match wanted_for {
            For::Durations => self.max / 2,
            For::Causes => self.max / 4 * 3,
        };
        let step = |used: usize| (used + n <= max).then_some(used + n);
        let taken = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
        if taken.is_err() {
            self.refused(n);
        }
        taken.is_ok()
    }

    fn left(&self) -> usize {
        self.max.saturating_sub(self.used.load(Ordering::Relaxed))
    }

    fn refused(&self, n: usize) {
        self.overflow.inc_by(n as u64);
    }
}

/// Makes the page; one for the process.
#[derive(Debug)]
pub struct Exposition {
    registry: Registry,
    workloads: Mutex<(workload::Workloads, measured::MeasuredSeries)>,
    spans: Arc<SpanMetrics>,
    node: String,
}

impl Exposition {
    /// Registers everything; `metrics` are the counters that the rest of the agent counts
    /// with, `spans` those that the store feeds.
    #[must_use]
    pub fn new(
        config: &PrometheusConfig,
        metrics: &AgentMetrics,
        spans: &Arc<SpanMetrics>,
        sensors: Source<Vec<SensorStatus>>,
    ) -> Self {
        let mut registry = Registry::default();
        spans.register(&mut registry);
        agent::register(&mut registry, metrics, sensors);
        let build = vec![
            ("version", env!("CARGO_PKG_VERSION")),
            ("architecture", std::env::consts::ARCH),
        ];
        let help = "The agent's version and the architecture it was built for";
        registry.register("isostack_build", help, Info::new(build));
        Self {
            registry,
            workloads: Mutex::default(),
            spans: spans.clone(),
            node: config.node.clone(),
        }
    }

    /// The page in `format`, with the workload series as of `counted`, read at `now`.
    #[must_use]
    pub fn text(
        &self,
        format: Format,
        counted: &Counted,
        label: &LabelSource,
        now: MonoNs,
    ) -> String {
        let mut out = String::with_capacity(64 * 1024);
        let exemplars = self.spans.exemplars();
        let budget = self.spans.budget();
        {
            let (workloads, measured) = &mut *self.workloads.lock();
            workloads.update(&counted.cpu, label, now);
            measured.update(&counted.measured, label, now);
            let used = workloads.write(&mut out, &self.node, &exemplars, budget);
            measured.write(&mut out, &self.node, used, budget);
        }
        // After the workloads, so that an overflow found there is in this answer.
        let written = encode_registry(&mut out, &self.registry).and(encode_eof(&mut out));
        written.expect("writing to a String cannot fail, and no encoder here refuses a value");
        match format {
            Format::OpenMetrics => out,
            Format::Classic => classic::from_openmetrics(&out),
        }
    }
}

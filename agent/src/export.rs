//! What people and machines look at, on one HTTP port: web page, JSON API, event stream,
//! Prometheus.
//!
//! [`Store::record`] takes every judged batch; everything else here only reads. Nothing in
//! this module knows a kernel structure, or reads `/proc` but for the agent's own memory.
//! The store's locks are held for a push or a copy, never while JSON is made; a scrape makes
//! the pipeline wait only where it adds a new series while that family is being written.

pub mod http;
pub mod incidents;
pub mod lost;
pub mod prometheus;
mod query;
pub mod store;
mod stream;
mod trace;
pub mod view;

use std::sync::Arc;

pub use self::{
    http::{BindError, Bound, HttpConfig, bind},
    prometheus::{Exposition, PrometheusConfig},
    store::{Store, StoreConfig},
    view::{Downstream, Health, HostView, Listeners, NamesView, Readiness},
};
use crate::{
    logs::LogMatch,
    metrics::AgentMetrics,
    sensor::{Counted, SensorStatus},
    stack::Stack,
    vocabulary::Layer,
    workload::Workload,
};

/// A value that another part owns, asked for when somebody looks. Must not block.
pub type Source<T> = Arc<dyn Fn() -> T + Send + Sync>;

/// Who lives in a cgroup, by the inode of its directory; `None` while that is not known.
pub type LabelSource = Arc<dyn Fn(u64) -> Option<(Layer, Workload)> + Send + Sync>;

/// The latest log lines that speak of a layer, newest first, at most so many.
pub type LogSource = Arc<dyn Fn(usize) -> Vec<LogMatch> + Send + Sync>;

/// The isolation layers around who lives in a cgroup; empty while that is not known.
pub type StackSource = Arc<dyn Fn(u64) -> Stack + Send + Sync>;

/// Everything this module shows, by whom it is known.
#[derive(Clone)]
pub struct ExportSources {
    /// Recent spans, verdicts, events; the pipeline writes it.
    pub store: Arc<Store>,
    /// The host and how this agent runs on it.
    pub host: Source<HostView>,
    /// The sensors' states.
    pub sensors: Source<Vec<SensorStatus>>,
    /// What the kernel side counted, by cgroup; asked for at every scrape.
    pub counted: Source<Counted>,
    /// Log lines that speak of a layer, newest first, at most so many.
    pub log_matches: LogSource,
    /// Names for cgroup ids.
    pub label: LabelSource,
    /// Isolation layers for cgroup ids.
    pub stack: StackSource,
    /// The page of `/metrics`.
    pub exposition: Arc<Exposition>,
    /// The agent's own counters.
    pub metrics: AgentMetrics,
    /// Whether the tasks run: `/healthz`.
    pub health: Source<Health>,
    /// Whether there is service: `/readyz`.
    pub readiness: Source<Readiness>,
}

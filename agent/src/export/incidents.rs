//! The history of incidents: the verdicts of one name taken together, as they come.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{store::StoredSpan, view};
use crate::{
    span::{SpanId, TraceId},
    vocabulary::{Cause, Fault},
};

/// Services told of one incident.
const MAX_SERVICES: usize = 32;
/// Operations told of one service in one incident.
const MAX_OPERATIONS: usize = 32;

/// Verdicts of one story.
#[derive(Clone, Debug)]
pub struct Incident {
    pub(crate) name: String,
    pub(crate) cause: Cause,
    pub(crate) fault: Fault,
    pub(crate) culprit: String,
    /// Start of the earliest span.
    pub(crate) start_unix_ns: u64,
    /// End of the latest span.
    pub(crate) last_unix_ns: u64,
    /// Spans with such a verdict.
    pub(crate) verdicts: u64,
    /// What the cause took of them together.
    pub(crate) lost_ns: u64,
    /// By name, bounded.
    pub(crate) services: BTreeMap<String, Affected>,
    /// The span that lost most.
    pub(crate) worst: Worst,
    /// Number of the last verdict, of all; the longest silent one makes room.
    touched: u64,
}

/// A service in an incident.
#[derive(Clone, Debug, Default)]
pub(crate) struct Affected {
    pub(crate) verdicts: u64,
    /// Names, bounded.
    pub(crate) operations: BTreeSet<String>,
}

/// The span of an incident that lost most time.
#[derive(Clone, Debug)]
pub(crate) struct Worst {
    pub(crate) trace_id: TraceId,
    pub(crate) span_id: SpanId,
    pub(crate) lost_ns: u64,
    pub(crate) summary: String,
    pub(crate) remedy: String,
}

/// At most so many incidents, and how many there were.
#[derive(Debug)]
pub(super) struct History {
    capacity: usize,
    by_name: HashMap<String, Incident>,
    incidents: u64,
    verdicts: u64,
}

/// What [`super::Store::incidents`] answers.
#[derive(Clone, Debug)]
pub struct Incidents {
    /// Those that were asked for, the latest first.
    pub(crate) rows: Vec<Incident>,
    /// All since the agent started.
    pub(crate) incidents: u64,
    /// Verdicts since then that belong to one.
    pub(crate) verdicts: u64,
}

impl Incidents {
    /// 1 - incidents/verdicts: 0 where each verdict is a story of its own.
    pub(crate) fn convergence(&self) -> f64 {
        if self.verdicts == 0 {
            return 0.0;
        }
        1.0 - self.incidents as f64 / self.verdicts as f64
    }
}

impl History {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            by_name: HashMap::new(),
            incidents: 0,
            verdicts: 0,
        }
    }

    /// Takes a span; says whether its verdict is the first of an incident.
    pub(super) fn note(&mut self, span: &StoredSpan) -> bool {
        let Some(verdict) = span.verdict.as_ref().filter(|v| !v.incident.is_empty()) else {
            return false;
        };
        self.verdicts += 1;
        let is_new = !self.by_name.contains_key(&verdict.incident);
        if is_new {
            self.incidents += 1;
            self.make_room();
        }
        let lost_ns = span.split.as_ref().map_or(0, |split| match verdict.cause {
            Cause::Downstream => split.downstream_ns,
            cause => split.part(cause),
        });
        let worst = || Worst {
            trace_id: span.trace_id,
            span_id: span.span_id,
            lost_ns,
            summary: verdict.summary.clone(),
            remedy: verdict.remedy.clone(),
        };
        let incident = self
            .by_name
            .entry(verdict.incident.clone())
            .or_insert_with(|| Incident {
                name: verdict.incident.clone(),
                cause: verdict.cause,
                fault: verdict.fault,
                culprit: verdict.culprit.clone(),
                start_unix_ns: span.start_unix_ns,
                last_unix_ns: span.end_unix_ns,
                verdicts: 0,
                lost_ns: 0,
                services: BTreeMap::new(),
                worst: worst(),
                touched: 0,
            });
        incident.touched = self.verdicts;
        incident.verdicts += 1;
        incident.start_unix_ns = incident.start_unix_ns.min(span.start_unix_ns);
        incident.last_unix_ns = incident.last_unix_ns.max(span.end_unix_ns);
        incident.lost_ns = incident.lost_ns.saturating_add(lost_ns);
        if lost_ns > incident.worst.lost_ns {
            incident.worst = worst();
        }
        let service = view::clip(&span.resource.service);
        if incident.services.len() < MAX_SERVICES || incident.services.contains_key(service) {
            let affected = incident.services.entry(service.to_owned()).or_default();
            affected.verdicts += 1;
            if affected.operations.len() < MAX_OPERATIONS {
                affected.operations.insert(span.operation.clone());
            }
        }
        is_new
    }

    /// The latest first; those of one service or cause only, where asked for.
    pub(super) fn select(
        &self,
        limit: usize,
        service: Option<&str>,
        cause: Option<Cause>,
    ) -> Incidents {
        let mut rows: Vec<&Incident> = self
            .by_name
            .values()
            .filter(|i| service.is_none_or(|s| i.services.contains_key(s)))
            .filter(|i| cause.is_none_or(|c| i.cause == c))
            .collect();
        rows.sort_unstable_by_key(|i| std::cmp::Reverse(i.touched));
        Incidents {
            rows: rows.into_iter().take(limit).cloned().collect(),
            incidents: self.incidents,
            verdicts: self.verdicts,
        }
    }

    fn make_room(&mut self) {
        if self.by_name.len() < self.capacity {
            return;
        }
        let oldest = self.by_name.values().min_by_key(|i| i.touched);
        if let Some(name) = oldest.map(|i| i.name.clone()) {
            self.by_name.remove(&name);
        }
    }
}

//! What was found lately, for `/metrics`, the page and the evidence of verdicts. A flood of
//! lines of one rule and workload becomes one entry a second that says how many there were.

use std::{
    collections::{HashMap, VecDeque},
    hash::BuildHasher as _,
    time::Duration,
};

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use serde::Serialize;

use crate::{
    classify::Hit,
    knowledge::log_rules::LogRule,
    metrics::{AgentMetrics, LogMatchLabels},
    stack::report::visible,
    time::UnixNs,
    vocabulary::{Cause, Layer},
    workload::Workload,
};

/// Entries kept for the page.
const MAX_ENTRIES: usize = 1000;
/// Entries kept of each cause for evidence.
const MAX_PER_CAUSE: usize = 64;
/// Lines of one rule and workload within this become one entry.
const MERGE_NS: u64 = 1_000_000_000;
/// Rules and workloads whose lines are put together; all begin anew when there are more.
const MAX_FLOWS: usize = 4096;
/// A verdict waits this long for whoever holds the lock, then does without lines.
const PATIENCE: Duration = Duration::from_millis(1);
/// Series on the metrics page.
const MAX_SERIES: usize = 2000;
/// A series is given back when no line came for so long: its workload is gone, or well again.
const SERIES_LIFETIME_NS: u64 = 3_600_000_000_000;
/// Between two looks for such series.
const LOOK_EVERY_NS: u64 = 60_000_000_000;
/// Most of a line that is kept, in bytes.
const MAX_LINE_BYTES: usize = 512;
/// A line may be read this long after what it tells of happened, or just before.
const SLACK_NS: u64 = 2_000_000_000;

/// Lines of one rule and workload within a second.
#[derive(Clone, Debug, Serialize)]
pub struct LogMatch {
    /// When the first was read, nanoseconds since the epoch, as a string.
    pub start_unix_nano: String,
    /// From the first to the last.
    pub duration_ms: f64,
    /// The layer that they speak of.
    pub layer: Layer,
    /// The rule.
    pub rule: &'static str,
    /// What they mean.
    pub meaning: &'static str,
    /// What to do.
    pub remedy: &'static str,
    /// How sure that is, 0..1.
    pub confidence: f64,
    /// The cause of a slow span that they may support.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// The workload's cgroup; 0 where it is not known by one.
    pub cgroup_id: u64,
    /// What a person calls the workload; empty for the host.
    pub workload: String,
    /// `kmsg`, `otlp`, or the file's name.
    pub source: String,
    /// How many.
    pub lines: u64,
    /// The first of them, cut.
    pub line: String,
}

struct Entry {
    rule: &'static LogRule,
    workload: Workload,
    source: String,
    first: u64,
    last: u64,
    lines: u64,
    line: String,
}

#[derive(Default)]
struct Inner {
    recent: Numbered<Entry>,
    /// By the cause that it may support.
    support: HashMap<Cause, Numbered<Support>>,
    /// When the last line came of each series, as of the last look, or since.
    series: HashMap<LogMatchLabels, u64>,
    /// When it was last looked which of them are still in use.
    looked: u64,
    /// By the place of the rule and the hash of the workload.
    flows: HashMap<(usize, u64), Flow>,
    hasher: RandomState,
}

/// Lines of one rule and workload: what each further one of them costs is a look here.
struct Flow {
    counter: Counter,
    labels: LogMatchLabels,
    first: u64,
    /// When the last line came.
    last: u64,
    /// Numbers of what they became.
    entry: u64,
    support: u64,
}

/// The last so many of a row that is numbered through.
struct Numbered<T> {
    kept: VecDeque<T>,
    /// Number of the first one kept.
    first: u64,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self {
            kept: VecDeque::new(),
            first: 0,
        }
    }
}

impl<T> Numbered<T> {
    /// Its number.
    fn push(&mut self, one: T, most: usize) -> u64 {
        if self.kept.len() >= most {
            self.kept.pop_front();
            self.first += 1;
        }
        self.kept.push_back(one);
        self.first + self.kept.len() as u64 - 1
    }

    fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.kept.get_mut(index)
    }
}

/// As [`Entry`], without what only a person wants to see.
struct Support {
    workload: Workload,
    /// The kernel said it, and of nobody.
    is_of_host: bool,
    rule: &'static LogRule,
    first: u64,
    last: u64,
    lines: u64,
}

/// See the module's head.
pub struct Board {
    node: String,
    metrics: AgentMetrics,
    inner: Mutex<Inner>,
}

impl Board {
    /// An empty one, on this node.
    #[must_use]
    pub fn new(node: &str, metrics: AgentMetrics) -> Self {
        Self {
            node: node.to_owned(),
            metrics,
            inner: Mutex::default(),
        }
    }

    /// Takes a line that says something.
    pub fn take(&self, hit: Hit, workload: &Workload, source: &str, line: &[u8], at: UnixNs) {
        let mut inner = self.inner.lock();
        self.give_back(&mut inner, at.0);
        let key = (
            hit.index,
            inner.hasher.hash_one((workload, source == KERNEL_LOG)),
        );
        if let Some(flow) = inner.flows.get_mut(&key) {
            flow.counter.inc();
            flow.last = flow.last.max(at.0);
            if at.0.saturating_sub(flow.first) < MERGE_NS {
                let (entry, support) = (flow.entry, flow.support);
                inner.join(hit.rule, entry, support, at.0);
                return;
            }
        }
        let (counter, labels) = match inner.flows.get(&key) {
            Some(flow) => (flow.counter.clone(), flow.labels.clone()),
            None => {
                let (counter, labels) = self.counter(&mut inner, hit.rule, workload, at.0);
                counter.inc();
                (counter, labels)
            }
        };
        if inner.flows.len() >= MAX_FLOWS {
            inner.note_uses();
            inner.flows.clear();
        }
        let flow = Flow {
            counter,
            labels,
            first: at.0,
            last: at.0,
            entry: inner.remember(hit.rule, workload, source, line, at.0),
            support: inner.support(hit.rule, (workload, source), at.0),
        };
        inner.flows.insert(key, flow);
    }

    /// Takes the series off the page that nobody used for long, now and then.
    fn give_back(&self, inner: &mut Inner, at: u64) {
        // The clock may have been set, either way.
        if at.abs_diff(inner.looked) < LOOK_EVERY_NS {
            return;
        }
        inner.looked = at;
        inner.note_uses();
        let is_old = |last: u64| at.abs_diff(last) >= SERIES_LIFETIME_NS;
        let old = inner.series.extract_if(|_, last| is_old(*last));
        for (labels, _) in old {
            self.metrics.log_matches.remove(&labels);
        }
        // They hold the counters of those series.
        inner.flows.retain(|_, flow| !is_old(flow.last));
    }

    /// The series of a rule and workload, or of the rule alone where there is no room.
    fn counter(
        &self,
        inner: &mut Inner,
        rule: &'static LogRule,
        workload: &Workload,
        at: u64,
    ) -> (Counter, LogMatchLabels) {
        let mut labels = LogMatchLabels {
            layer: rule.layer.as_str(),
            node: self.node.clone(),
            namespace: visible(&workload.namespace),
            pod: visible(workload.pod_label()),
            container: visible(workload.container_label()),
            runtime: visible(&workload.runtime),
            rule: rule.id,
        };
        if !inner.have_room(&labels, at) {
            self.metrics.series_overflow.inc();
            labels = LogMatchLabels {
                namespace: String::new(),
                pod: String::new(),
                container: String::new(),
                runtime: String::new(),
                ..labels
            };
        }
        let counter = self.metrics.log_matches.get_or_create(&labels).clone();
        (counter, labels)
    }

    /// Runs `f` while somebody writes.
    #[cfg(test)]
    pub(super) fn while_written(&self, f: impl FnOnce()) {
        let _writing = self.inner.lock();
        f();
    }

    /// The latest entries, newest first.
    #[must_use]
    pub fn recent(&self, limit: usize) -> Vec<LogMatch> {
        let inner = self.inner.lock();
        inner
            .recent
            .kept
            .iter()
            .rev()
            .take(limit)
            .map(Entry::shown)
            .collect()
    }

    /// How many lines support that `cause` struck this workload between two moments, by
    /// rule. Lines that name no workload support the causes that strike a whole host. It is
    /// asked on the way of the spans, and so does not wait for a reader of lines that lost
    /// the processor while it was writing.
    #[must_use]
    pub fn supporting(
        &self,
        cause: Cause,
        workload: &Workload,
        start_unix_ns: u64,
        end_unix_ns: u64,
    ) -> Vec<(&'static str, u64)> {
        let Some(inner) = self.inner.try_lock_for(PATIENCE) else {
            self.metrics.log_evidence_missed.inc();
            return Vec::new();
        };
        let Some(known) = inner.support.get(&cause) else {
            return Vec::new();
        };
        let mut out: Vec<(&'static str, u64)> = Vec::new();
        for one in &known.kept {
            let in_time = one.last.saturating_add(SLACK_NS) >= start_unix_ns
                && one.first <= end_unix_ns.saturating_add(SLACK_NS);
            if !in_time || !one.concerns(cause, workload) {
                continue;
            }
            match out.iter_mut().find(|(rule, _)| *rule == one.rule.id) {
                Some((_, lines)) => *lines += one.lines,
                None => out.push((one.rule.id, one.lines)),
            }
        }
        out
    }
}

impl Inner {
    /// Whether there is a series of these labels, or room for it.
    fn have_room(&mut self, labels: &LogMatchLabels, at: u64) -> bool {
        if let Some(last) = self.series.get_mut(labels) {
            *last = at.max(*last);
            return true;
        }
        let room = self.series.len() < MAX_SERIES;
        if room {
            self.series.insert(labels.clone(), at);
        }
        room
    }

    /// Notes with the series when their flows were last used.
    fn note_uses(&mut self) {
        for flow in self.flows.values() {
            if let Some(last) = self.series.get_mut(&flow.labels) {
                *last = flow.last.max(*last);
            }
        }
    }

    /// One more line of a flow.
    fn join(&mut self, rule: &LogRule, entry: u64, support: u64, at: u64) {
        if let Some(entry) = self.recent.get_mut(entry) {
            entry.lines += 1;
            entry.last = entry.last.max(at);
        }
        let known = rule.cause.and_then(|cause| self.support.get_mut(&cause));
        if let Some(one) = known.and_then(|known| known.get_mut(support)) {
            one.lines += 1;
            one.last = one.last.max(at);
        }
    }

    fn remember(
        &mut self,
        rule: &'static LogRule,
        workload: &Workload,
        source: &str,
        line: &[u8],
        at: u64,
    ) -> u64 {
        let line = &line[..line.len().min(MAX_LINE_BYTES)];
        let entry = Entry {
            rule,
            workload: workload.clone(),
            source: source.to_owned(),
            first: at,
            last: at,
            lines: 1,
            line: String::from_utf8_lossy(line).into_owned(),
        };
        self.recent.push(entry, MAX_ENTRIES)
    }

    fn support(
        &mut self,
        rule: &'static LogRule,
        (workload, source): (&Workload, &str),
        at: u64,
    ) -> u64 {
        let Some(cause) = rule.cause else { return 0 };
        let one = Support {
            workload: workload.clone(),
            is_of_host: source == KERNEL_LOG && *workload == Workload::default(),
            rule,
            first: at,
            last: at,
            lines: 1,
        };
        self.support
            .entry(cause)
            .or_default()
            .push(one, MAX_PER_CAUSE)
    }
}

impl Entry {
    fn shown(&self) -> LogMatch {
        LogMatch {
            start_unix_nano: self.first.to_string(),
            duration_ms: self.last.saturating_sub(self.first) as f64 / 1e6,
            cause: self.rule.cause,
            cgroup_id: self.workload.cgroup_id,
            layer: self.rule.layer,
            rule: self.rule.id,
            meaning: self.rule.meaning,
            remedy: self.rule.remedy,
            confidence: self.rule.confidence,
            workload: self.workload.display_name(),
            source: self.source.clone(),
            lines: self.lines,
            line: self.line.clone(),
        }
    }
}

/// Where the kernel's own lines come from.
pub const KERNEL_LOG: &str = "kmsg";

impl Support {
    /// Whether a line of (or about) its workload concerns this one. Of the whole host only the
    /// kernel speaks: a file or a sender that names nobody speaks of nobody.
    fn concerns(&self, cause: Cause, workload: &Workload) -> bool {
        let named = &self.workload;
        let equal = |a: &str, b: &str| !a.is_empty() && a == b;
        if self.is_of_host {
            // What a device, a table or the hypervisor did to all on it.
            return matches!(
                cause,
                Cause::Steal
                    | Cause::Virtqueue
                    | Cause::Conntrack
                    | Cause::NetDrop
                    | Cause::BlockDevice
                    | Cause::KvmExit
            );
        }
        if named.cgroup_id != 0 && named.cgroup_id == workload.cgroup_id {
            return true;
        }
        if !named.container_id.is_empty() && !workload.container_id.is_empty() {
            return named.container_id == workload.container_id;
        }
        let same_pod = equal(&named.pod_uid, &workload.pod_uid)
            || (equal(&named.pod, &workload.pod) && equal(&named.namespace, &workload.namespace));
        same_pod && equal(&named.container, &workload.container)
    }
}

//! What was found lately, for `/metrics`, the page and the evidence of verdicts. A flood of
//! lines of one rule and workload becomes one entry a second that says how many there were.

use std::collections::{HashMap, HashSet, VecDeque};

use parking_lot::Mutex;
use serde::Serialize;

use crate::{
    classify::Hit,
    knowledge::log_rules::LogRule,
    metrics::{AgentMetrics, LogMatchLabels},
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
/// Entries that a line may still join, newest first.
const MERGE_DEPTH: usize = 64;
/// Series on the metrics page.
const MAX_SERIES: usize = 2000;
/// Most of a line that is kept, in bytes.
const MAX_LINE_BYTES: usize = 512;
/// A line may be read this long after what it tells of happened, or just before.
const SLACK_NS: u64 = 2_000_000_000;

/// Lines of one rule and workload within a second.
#[derive(Clone, Debug, Serialize)]
pub struct LogMatch {
    /// When the first was read, nanoseconds since the epoch, as a string.
    pub start_unix_nano: String,
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
    recent: VecDeque<Entry>,
    /// By the cause that it may support.
    support: HashMap<Cause, VecDeque<Support>>,
    series: HashSet<LogMatchLabels>,
}

/// As [`Entry`], without what only a person wants to see.
struct Support {
    workload: Workload,
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
        let rule = hit.rule;
        let mut inner = self.inner.lock();
        let mut labels = LogMatchLabels {
            layer: rule.layer.as_str(),
            node: self.node.clone(),
            namespace: workload.namespace.clone(),
            pod: workload.pod_label().to_owned(),
            container: workload.container_label().to_owned(),
            runtime: workload.runtime.clone(),
            rule: rule.id,
        };
        if !inner.have_room(&labels) {
            self.metrics.series_overflow.inc();
            labels = LogMatchLabels {
                namespace: String::new(),
                pod: String::new(),
                container: String::new(),
                runtime: String::new(),
                ..labels
            };
        }
        self.metrics.log_matches.get_or_create(&labels).inc();
        inner.remember(rule, workload, source, line, at.0);
        inner.support(rule, workload, at.0);
    }

    /// The latest entries, newest first.
    #[must_use]
    pub fn recent(&self, limit: usize) -> Vec<LogMatch> {
        let inner = self.inner.lock();
        inner
            .recent
            .iter()
            .rev()
            .take(limit)
            .map(Entry::shown)
            .collect()
    }

    /// How many lines support that `cause` struck this workload between two moments, by
    /// rule. Lines that name no workload support the causes that strike a whole host.
    #[must_use]
    pub fn supporting(
        &self,
        cause: Cause,
        workload: &Workload,
        start_unix_ns: u64,
        end_unix_ns: u64,
    ) -> Vec<(&'static str, u64)> {
        let inner = self.inner.lock();
        let Some(known) = inner.support.get(&cause) else {
            return Vec::new();
        };
        let mut out: Vec<(&'static str, u64)> = Vec::new();
        for one in known {
            let in_time = one.last.saturating_add(SLACK_NS) >= start_unix_ns
                && one.first <= end_unix_ns.saturating_add(SLACK_NS);
            if !in_time || !concerns(&one.workload, cause, workload) {
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
    fn have_room(&mut self, labels: &LogMatchLabels) -> bool {
        if self.series.contains(labels) {
            return true;
        }
        let room = self.series.len() < MAX_SERIES;
        if room {
            self.series.insert(labels.clone());
        }
        room
    }

    fn remember(
        &mut self,
        rule: &'static LogRule,
        workload: &Workload,
        source: &str,
        line: &[u8],
        at: u64,
    ) {
        let same = |entry: &&mut Entry| {
            entry.rule.id == rule.id
                && at.saturating_sub(entry.first) < MERGE_NS
                && entry.workload == *workload
        };
        if let Some(entry) = self.recent.iter_mut().rev().take(MERGE_DEPTH).find(same) {
            entry.lines += 1;
            entry.last = entry.last.max(at);
            return;
        }
        if self.recent.len() >= MAX_ENTRIES {
            self.recent.pop_front();
        }
        let line = &line[..line.len().min(MAX_LINE_BYTES)];
        self.recent.push_back(Entry {
            rule,
            workload: workload.clone(),
            source: source.to_owned(),
            first: at,
            last: at,
            lines: 1,
            line: String::from_utf8_lossy(line).into_owned(),
        });
    }

    fn support(&mut self, rule: &'static LogRule, workload: &Workload, at: u64) {
        let Some(cause) = rule.cause else { return };
        let known = self.support.entry(cause).or_default();
        let same = |one: &&mut Support| {
            one.rule.id == rule.id
                && at.saturating_sub(one.first) < MERGE_NS
                && one.workload == *workload
        };
        if let Some(one) = known.iter_mut().rev().find(same) {
            one.lines += 1;
            one.last = one.last.max(at);
            return;
        }
        if known.len() >= MAX_PER_CAUSE {
            known.pop_front();
        }
        known.push_back(Support {
            workload: workload.clone(),
            rule,
            first: at,
            last: at,
            lines: 1,
        });
    }
}

impl Entry {
    fn shown(&self) -> LogMatch {
        LogMatch {
            start_unix_nano: self.first.to_string(),
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

/// Whether a line of (or about) `named` concerns `workload`.
fn concerns(named: &Workload, cause: Cause, workload: &Workload) -> bool {
    let equal = |a: &str, b: &str| !a.is_empty() && a == b;
    if *named == Workload::default() {
        // Of the whole host: what a device, a table or the hypervisor did to all on it.
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

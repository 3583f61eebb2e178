//! Series of workloads: what the kernel side counted, cgroup by cgroup, under the names of
//! who lives there, with exemplars of the spans that suffered.
//!
//! Cgroups of one workload share a series; what a removed cgroup counted stays in it, as a
//! counter that falls looks like a restart and would be counted again.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Write as _,
};

use super::{Budget, span::Judged};
use crate::{
    export::{LabelSource, view},
    sensor::{CgroupCpu, FIRST_SLOT_LOG2_NS, KernelHistogram},
    stack::report::bends_output,
    time::MonoNs,
    verdict::CauseInterval,
    vocabulary::{Cause, Layer},
    workload::Workload,
};

/// Upper bounds as powers of two of nanoseconds: coarse below a millisecond, each doubling
/// from 1 ms to 1 s, so that a histogram costs 19 series.
const BOUNDS_LOG2_NS: [u32; 16] = [
    10, 13, 16, 18, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 32,
];
/// Series of one histogram: its buckets, `+Inf`, `_sum`, `_count`.
pub(super) const HISTOGRAM_SERIES: usize = BOUNDS_LOG2_NS.len() + 3;
/// A workload without a cgroup keeps its series this long.
pub(super) const FORGET_AFTER_NS: u64 = 300 * 1_000_000_000;
/// Exemplars kept at most.
const MAX_EXEMPLARS: usize = 4_096;

/// Base labels, without the node's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Labels {
    layer: &'static str,
    namespace: String,
    pod: String,
    container: String,
    runtime: String,
}

/// A kernel histogram folded into the buckets of the page; the last is `+Inf`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Folded {
    buckets: [u64; BOUNDS_LOG2_NS.len() + 1],
    sum_ns: u64,
}

/// What was counted under one set of labels.
#[derive(Clone, Debug, Default)]
struct Series {
    throttled: Folded,
    runqueue: Folded,
    cgroups: Vec<u64>,
    seen: MonoNs,
}

/// The workload series between two scrapes.
#[derive(Debug, Default)]
pub(super) struct Workloads {
    last: HashMap<u64, CgroupCpu>,
    series: BTreeMap<Labels, Series>,
}

/// The histograms that have exemplars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Throttled,
    Runqueue,
}

/// The last span that suffered, for each bucket of each cgroup's histograms.
#[derive(Clone, Debug, Default)]
pub(super) struct Exemplars(HashMap<(u64, Kind, usize), Exemplar>);

#[derive(Clone, Debug)]
pub(super) struct Exemplar {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    value_ns: u64,
    unix_ns: u64,
}

impl Exemplars {
    /// Keeps the longest single stretch of `cause` in a span as the exemplar of its bucket.
    pub(super) fn note(&mut self, cgroup_id: u64, of: &Judged<'_>, cause: Cause) {
        let kind = match cause {
            Cause::CpuThrottle => Kind::Throttled,
            Cause::Runqueue => Kind::Runqueue,
            _ => return,
        };
        // Merged stretches are no single wait: their sum would sit in the wrong bucket.
        let single = |i: &&CauseInterval| {
            i.cause == cause && i.cause_ns == i.end.0.saturating_sub(i.start.0)
        };
        let longest = of
            .judgement
            .intervals
            .iter()
            .filter(single)
            .max_by_key(|i| i.cause_ns);
        let Some(interval) = longest else { return };
        let key = (cgroup_id, kind, bucket_of(interval.cause_ns));
        if self.0.len() >= MAX_EXEMPLARS && !self.0.contains_key(&key) {
            let oldest = self.0.iter().min_by_key(|(_, e)| e.unix_ns);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.0.remove(&oldest);
            }
        }
        let exemplar = Exemplar {
            trace_id: of.span.trace_id,
            span_id: of.span.span_id,
            value_ns: interval.cause_ns,
            unix_ns: of.at.0,
        };
        self.0.insert(key, exemplar);
    }

    fn latest(&self, cgroups: &[u64], kind: Kind, bucket: usize) -> Option<&Exemplar> {
        let of = |id: &u64| self.0.get(&(*id, kind, bucket));
        cgroups.iter().filter_map(of).max_by_key(|e| e.unix_ns)
    }
}

impl Workloads {
    /// Adds what was counted since the last call.
    pub(super) fn update(&mut self, cgroups: &[CgroupCpu], label: &LabelSource, now: MonoNs) {
        for series in self.series.values_mut() {
            series.cgroups.clear();
        }
        let mut alive = HashSet::with_capacity(cgroups.len());
        for counted in cgroups {
            // Without a name there is no series to put it in; it is added when it has one.
            let Some((layer, workload)) = label(counted.cgroup_id) else {
                continue;
            };
            alive.insert(counted.cgroup_id);
            let last = self.last.get(&counted.cgroup_id);
            let series = self
                .series
                .entry(Labels::new(layer, &workload))
                .or_default();
            series
                .throttled
                .add(&counted.throttled, last.map(|l| &l.throttled));
            series
                .runqueue
                .add(&counted.runqueue, last.map(|l| &l.runqueue));
            series.cgroups.push(counted.cgroup_id);
            series.seen = now;
            self.last.insert(counted.cgroup_id, counted.clone());
        }
        self.last.retain(|id, _| alive.contains(id));
        self.series
            .retain(|_, s| now.since(s.seen) < FORGET_AFTER_NS);
    }

    /// Writes the families, OpenMetrics text, as far as `budget` has room. Returns the number
    /// of series written.
    pub(super) fn write(
        &self,
        out: &mut String,
        node: &str,
        exemplars: &Exemplars,
        budget: &Budget,
    ) -> usize {
        let mut room = budget.left();
        let mut shown = Vec::with_capacity(self.series.len());
        for (labels, series) in &self.series {
            // A workload that was never held back needs no histogram of that.
            let throttled = if series.throttled.count() == 0 {
                0
            } else {
                HISTOGRAM_SERIES
            };
            let cost = 1 + HISTOGRAM_SERIES + throttled;
            if cost > room {
                budget.refused(cost);
                continue;
            }
            room -= cost;
            shown.push((labels.text(node), series));
        }
        head(
            out,
            "isostack_cpu_throttled_seconds",
            "counter",
            THROTTLED_HELP,
        );
        for (labels, series) in &shown {
            let seconds = seconds(series.throttled.sum_ns);
            put(
                out,
                format_args!("isostack_cpu_throttled_seconds_total{{{labels}}} {seconds}\n"),
            );
        }
        let name = "isostack_cpu_throttle_interval_seconds";
        head(out, name, "histogram", INTERVAL_HELP);
        for (labels, series) in shown.iter().filter(|(_, s)| s.throttled.count() != 0) {
            let of = |bucket| exemplars.latest(&series.cgroups, Kind::Throttled, bucket);
            series.throttled.write(out, name, labels, of);
        }
        let name = "isostack_runqueue_seconds";
        head(out, name, "histogram", RUNQUEUE_HELP);
        for (labels, series) in &shown {
            let of = |bucket| exemplars.latest(&series.cgroups, Kind::Runqueue, bucket);
            series.runqueue.write(out, name, labels, of);
        }
        budget.left() - room
    }
}

const THROTTLED_HELP: &str = "Time that runnable threads were held back by a CPU quota, summed.";
const INTERVAL_HELP: &str = "Single stretches in which a thread was held back by a CPU quota.";
const RUNQUEUE_HELP: &str = "Waits of runnable threads for a CPU, without throttled time.";

impl Labels {
    pub(super) fn new(layer: Layer, workload: &Workload) -> Self {
        Self {
            layer: layer.as_str(),
            namespace: view::clip(&workload.namespace).to_owned(),
            pod: view::clip(workload.pod_label()).to_owned(),
            container: view::clip(workload.container_label()).to_owned(),
            runtime: view::clip(&workload.runtime).to_owned(),
        }
    }

    /// Of what belongs to no workload.
    pub(super) fn of_nobody() -> Self {
        let nothing = String::new;
        Self {
            layer: "",
            namespace: nothing(),
            pod: nothing(),
            container: nothing(),
            runtime: nothing(),
        }
    }

    pub(super) fn text(&self, node: &str) -> String {
        let mut out = String::new();
        let pairs = [
            ("layer", self.layer),
            ("node", node),
            ("namespace", &self.namespace),
            ("pod", &self.pod),
            ("container", &self.container),
            ("runtime", &self.runtime),
        ];
        for (i, (name, value)) in pairs.into_iter().enumerate() {
            let separator = if i == 0 { "" } else { "," };
            put(&mut out, format_args!("{separator}{name}=\""));
            escape(&mut out, value);
            out.push('"');
        }
        out
    }
}

impl Folded {
    pub(super) fn add(&mut self, now: &KernelHistogram, before: Option<&KernelHistogram>) {
        let rest = now.slots.len().saturating_sub(1);
        for (slot, count) in now.slots.iter().enumerate() {
            let counted = before.and_then(|b| b.slots.get(slot)).copied().unwrap_or(0);
            let log2 = FIRST_SLOT_LOG2_NS + slot as u32;
            let bucket = BOUNDS_LOG2_NS.iter().position(|b| log2 <= *b);
            let bucket = bucket
                .filter(|_| slot != rest)
                .unwrap_or(BOUNDS_LOG2_NS.len());
            self.buckets[bucket] += since(*count, counted);
        }
        self.sum_ns += since(now.sum_ns, before.map_or(0, |b| b.sum_ns));
    }

    fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    pub(super) fn write<'a>(
        &self,
        out: &mut String,
        name: &str,
        labels: &str,
        exemplar: impl Fn(usize) -> Option<&'a Exemplar>,
    ) {
        let mut cumulative = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            cumulative += count;
            let le = BOUNDS_LOG2_NS.get(bucket).map(|log2| seconds(1 << log2));
            let le = le.map_or_else(|| "+Inf".to_owned(), |s| s.to_string());
            put(
                out,
                format_args!("{name}_bucket{{{labels},le=\"{le}\"}} {cumulative}"),
            );
            if let Some(e) = exemplar(bucket).filter(|_| *count != 0) {
                let (trace, span) = (view::hex(&e.trace_id), view::hex(&e.span_id));
                let value = seconds(e.value_ns);
                let at = e.unix_ns / 1_000_000;
                let (s, ms) = (at / 1_000, at % 1_000);
                put(
                    out,
                    format_args!(
                        " # {{trace_id=\"{trace}\",span_id=\"{span}\"}} {value} {s}.{ms:03}"
                    ),
                );
            }
            out.push('\n');
        }
        let sum = seconds(self.sum_ns);
        put(out, format_args!("{name}_sum{{{labels}}} {sum}\n"));
        put(out, format_args!("{name}_count{{{labels}}} {cumulative}\n"));
    }
}

/// A count that fell has started anew: the cgroup's id was given to another.
pub(super) fn since(now: u64, before: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}

fn bucket_of(ns: u64) -> usize {
    let bucket = BOUNDS_LOG2_NS.iter().position(|log2| ns <= 1 << log2);
    bucket.unwrap_or(BOUNDS_LOG2_NS.len())
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    put(
        out,
        format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n# UNIT {name} seconds\n"),
    );
}

/// The three characters that end or bend a label value, and those that bend what a terminal
/// shows (as `\u{...}`, so that two names stay two).
pub(super) fn escape(out: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c if bends_output(c) => {
                out.push('\\');
                out.extend(c.escape_unicode());
            }
            c => out.push(c),
        }
    }
}

pub(super) fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    // A String takes everything.
    let _ = out.write_fmt(text);
}

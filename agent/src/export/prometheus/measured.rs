//! Series of workloads that the kernel side aggregates with labels of their own: everything
//! but what the `cpu` sensor counts ([`super::workload`]).

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{
    Budget,
    workload::{FORGET_AFTER_NS, Folded, HISTOGRAM_SERIES, Labels, escape, put, since},
};
use crate::{
    export::LabelSource,
    sensor::{self, Family, FamilyKind, Measured, Value},
    time::MonoNs,
};

/// What was counted under one set of labels.
#[derive(Clone, Debug, Default)]
struct Series {
    count: u64,
    histogram: Folded,
    seen: MonoNs,
}

/// Workload and own labels of a series.
type Key = (Labels, Vec<String>);

/// The series between two scrapes.
#[derive(Debug, Default)]
pub(super) struct MeasuredSeries {
    last: HashMap<agent_common::series::SeriesKey, Value>,
    /// By family id.
    series: BTreeMap<u32, BTreeMap<Key, Series>>,
}

impl MeasuredSeries {
    /// Adds what was counted since the last call. Series of one set of labels are summed;
    /// what a removed cgroup counted stays, as a counter that falls looks like a restart.
    pub(super) fn update(&mut self, measured: &[Measured], label: &LabelSource, now: MonoNs) {
        let mut alive = HashSet::with_capacity(measured.len());
        for one in measured {
            let labels = match one.key.cgroup_id {
                0 => Labels::of_nobody(),
                id => match label(id) {
                    Some((layer, workload)) => Labels::new(layer, &workload),
                    // Without a name there is no series to put it in; it is added when it
                    // has one.
                    None => continue,
                },
            };
            alive.insert(one.key);
            let last = self.last.get(&one.key);
            let series = self
                .series
                .entry(one.family.id)
                .or_default()
                .entry((labels, one.labels.clone()))
                .or_default();
            match (&one.value, last) {
                (Value::Count(n), Some(Value::Count(before))) => series.count += since(*n, *before),
                (Value::Count(n), _) => series.count += n,
                (Value::Histogram(h), Some(Value::Histogram(before))) => {
                    series.histogram.add(h, Some(before));
                }
                (Value::Histogram(h), _) => series.histogram.add(h, None),
            }
            series.seen = now;
            self.last.insert(one.key, one.value.clone());
        }
        self.last.retain(|key, _| alive.contains(key));
        for series in self.series.values_mut() {
            series.retain(|_, s| now.since(s.seen) < FORGET_AFTER_NS);
        }
    }

    /// Writes the families, OpenMetrics text, as far as `budget` has room beside the
    /// `used` series of others on the page. Returns the number of series written.
    pub(super) fn write(
        &self,
        out: &mut String,
        node: &str,
        used: usize,
        budget: &Budget,
    ) -> usize {
        let room = budget.left().saturating_sub(used);
        let mut written = 0;
        for (_, family) in sensor::families() {
            head(out, family);
            for ((workload, values), series) in self.series.get(&family.id).into_iter().flatten() {
                let cost = match family.kind {
                    FamilyKind::Counter => 1,
                    FamilyKind::Histogram => HISTOGRAM_SERIES,
                };
                if written + cost > room {
                    budget.refused(cost);
                    continue;
                }
                written += cost;
                let mut labels = workload.text(node);
                for (name, value) in family.labels.iter().zip(values) {
                    put(&mut labels, format_args!(",{name}=\""));
                    escape(&mut labels, value);
                    labels.push('"');
                }
                let name = family.name;
                match family.kind {
                    FamilyKind::Counter => put(
                        out,
                        format_args!("{name}_total{{{labels}}} {}\n", series.count),
                    ),
                    FamilyKind::Histogram => series.histogram.write(out, name, &labels, |_| None),
                }
            }
        }
        written
    }
}

fn head(out: &mut String, family: &Family) {
    let Family { name, help, .. } = family;
    let (kind, unit) = match family.kind {
        FamilyKind::Counter => ("counter", String::new()),
        FamilyKind::Histogram => ("histogram", format!("# UNIT {name} seconds\n")),
    };
    put(
        out,
        format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n{unit}"),
    );
}

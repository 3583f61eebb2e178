//! What the agent said over time, against what the pods say of themselves.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, ensure};
use harness::{agent::Agent, cluster::A_WHILE, wait};
use serde_json::Value;

use crate::pods::NAMESPACE;

/// A look costs the agent a page of a thousand rows: without a pause it and the looks use up the
/// processors that the pods need.
const PAUSE: Duration = Duration::from_millis(500);

/// The rows of `/api/v1/workloads` and `/api/v1/spans`, the last state of each.
#[derive(Default)]
pub struct Seen {
    workloads: BTreeMap<(String, u64), Value>,
    spans: BTreeMap<String, (String, String)>,
    wrong: Vec<String>,
}

impl Seen {
    /// Looks until each of these `POD/CONTAINER` (`*` stands for what Kubernetes made up) has
    /// its names, on a span and in the list of workloads.
    pub fn wait(&mut self, agent: &Agent, names: &[&str]) -> anyhow::Result<()> {
        let missing = |seen: &Self| -> Vec<String> {
            let names = names.iter().filter(|name| {
                let span = seen.spans.values();
                let mut span = span.filter(|(service, _)| is(service, name));
                seen.rows(name).next().is_none() || !span.any(|(s, found)| *found == own_name(s))
            });
            names.map(|name| (*name).to_owned()).collect()
        };
        let found = self.wait_until(agent, "the names", |seen| missing(seen).is_empty());
        found.with_context(|| format!("without their names: {:?}", missing(self)))
    }

    /// Looks until something is so.
    pub fn wait_until(
        &mut self,
        agent: &Agent,
        what: &str,
        holds: impl Fn(&Self) -> bool,
    ) -> anyhow::Result<()> {
        let found = wait::every(PAUSE, what, A_WHILE, || {
            self.look(agent).ok()?;
            holds(self).then_some(())
        });
        found.with_context(|| format!("{}\n{}", self.summary(), agent.process.output()))
    }

    /// How many spans of each service got which name.
    fn summary(&self) -> String {
        let mut counts = BTreeMap::<_, usize>::new();
        for pair in self.spans.values() {
            *counts.entry(pair).or_default() += 1;
        }
        let lines = counts.into_iter().map(|((service, workload), spans)| {
            format!("{spans} spans of {service} were taken for {workload:?}\n")
        });
        lines.collect()
    }

    /// Rows of `POD/CONTAINER` that have the names that they should.
    pub fn rows<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Value> {
        self.workloads
            .iter()
            .filter(move |((service, _), row)| {
                is(service, name) && row["name"] == own_name(service)
            })
            .map(|(_, row)| row)
    }

    /// How many values a key has in the rows of `POD/CONTAINER`.
    pub fn lives(&self, name: &str, key: &str) -> usize {
        let values = self.rows(name).map(|row| row["workload"][key].to_string());
        values.collect::<std::collections::BTreeSet<_>>().len()
    }

    /// No row, at no time, had names or ids of somebody else.
    pub fn nobody_was_misattributed(&self) -> anyhow::Result<()> {
        ensure!(!self.workloads.is_empty(), "nothing was seen");
        ensure!(self.wrong.is_empty(), "{:#?}", self.wrong);
        Ok(())
    }

    fn look(&mut self, agent: &Agent) -> anyhow::Result<()> {
        let workloads = agent.api("/api/v1/workloads?limit=1000")?;
        for row in workloads["workloads"].as_array().context("workloads")? {
            for service in row["services"].as_array().context("services")? {
                let Some(service) = service.as_str().filter(|s| s.starts_with(NAMESPACE)) else {
                    continue;
                };
                self.check(service, row);
                let pid = row["pid"].as_u64().context("a pid")?;
                self.workloads
                    .insert((service.to_owned(), pid), row.clone());
            }
        }
        let spans = agent.api("/api/v1/spans?limit=1000")?;
        for span in spans["spans"].as_array().context("spans")? {
            let text = |key: &str| span[key].as_str().unwrap_or_default().to_owned();
            let (service, workload) = (text("service"), text("workload"));
            if service.starts_with(NAMESPACE) {
                self.spans.insert(text("trace_id"), (service, workload));
            }
        }
        Ok(())
    }

    /// A name may be late; it is never another's.
    fn check(&mut self, service: &str, row: &Value) {
        let (name, uid) = service.split_once('@').unwrap_or((service, ""));
        let mut parts = name.split('/');
        let workload = &row["workload"];
        let mut right = workload["pod_uid"] == uid;
        for key in ["namespace", "pod", "container"] {
            let own = parts.next().unwrap_or_default();
            right &= workload[key] == own || workload[key] == "";
        }
        if !right {
            self.wrong.push(format!("{service} was taken for {row}"));
        }
    }
}

fn own_name(service: &str) -> &str {
    service.split_once('@').map_or(service, |(name, _)| name)
}

/// Whether the service is the container of this name.
fn is(service: &str, name: &str) -> bool {
    let own = own_name(service).strip_prefix(NAMESPACE);
    let own = own
        .and_then(|own| own.strip_prefix('/'))
        .unwrap_or_default();
    match name.split_once('*') {
        Some((start, end)) => own.starts_with(start) && own.ends_with(end),
        None => own == name,
    }
}

//! Many runs in a few numbers, for a terminal, a program and a document.

pub mod picture;
pub mod table;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    expect,
    plan::Kind,
    score::{Outcome, Verdict},
};

/// What was answered where nothing was.
pub const NOTHING: &str = "nothing";

/// So many of so many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Right ones.
    pub right: usize,
    /// All.
    pub of: usize,
}

impl Part {
    fn add(&mut self, right: bool) {
        self.of += 1;
        self.right += usize::from(right);
    }

    /// 0 to 1; of nothing, 1.
    #[must_use]
    pub fn share(self) -> f64 {
        if self.of == 0 {
            return 1.0;
        }
        self.right as f64 / self.of as f64
    }
}

/// How the faults of one kind were answered.
#[derive(Clone, Debug, Default, Serialize)]
pub struct OfKind {
    /// Those that had an effect.
    pub injected: usize,
    /// Those that had none; not in any other number.
    pub void: usize,
    /// The hop.
    pub hop: Part,
    /// The layer.
    pub fault: Part,
    /// The mechanism.
    pub cause: Part,
    /// The culprit.
    pub culprit: Part,
    /// Nobody else blamed (of the application's own faults).
    pub no_wrong_blame: Part,
    /// `fault cause` (or [`NOTHING`]) and how often it was the answer.
    pub answers: BTreeMap<String, usize>,
}

/// The numbers.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// The seed.
    pub seed: u64,
    /// Runs done.
    pub runs: usize,
    /// Runs without a fault.
    pub healthy_runs: usize,
    /// Runs that could not be done.
    pub broken: usize,
    /// By what was injected.
    pub kinds: BTreeMap<&'static str, OfKind>,
    /// Of faults outside the application: the layer.
    pub fault: Part,
    /// The mechanism.
    pub cause: Part,
    /// The mechanism, with waits for a peer counted by their time like the others.
    pub cause_by_time: Part,
    /// The culprit.
    pub culprit: Part,
    /// The hop.
    pub hop: Part,
    /// Of the application's own faults: named.
    pub own_named: Part,
    /// Of the application's own faults: nobody else blamed.
    pub own_no_wrong_blame: Part,
    /// Healthy spans.
    pub healthy_spans: usize,
    /// Verdicts on them that nothing confirms.
    pub false_verdicts: usize,
    /// Verdicts on them that the kernel's books confirm.
    pub disturbed: usize,
    /// All spans, by the join that was used.
    pub joins: BTreeMap<String, usize>,
    /// From the end of a span until its verdict was here: median and 95th percentile, ms.
    pub verdict_after_ms: (f64, f64),
}

impl Summary {
    /// Of these runs.
    #[must_use]
    pub fn of(seed: u64, outcomes: &[Outcome]) -> Self {
        let mut summary = Self {
            seed,
            ..Self::default()
        };
        let mut after = Vec::new();
        for outcome in outcomes {
            summary.runs += 1;
            summary.broken += usize::from(outcome.error.is_some());
            summary.healthy_runs +=
                usize::from(outcome.error.is_none() && outcome.verdicts.is_empty());
            summary.healthy_spans += outcome.healthy;
            summary.false_verdicts += outcome.false_verdicts.len();
            summary.disturbed += outcome.disturbed.len();
            for (join, spans) in &outcome.joins {
                *summary.joins.entry(join.clone()).or_default() += spans;
            }
            after.extend(&outcome.verdict_after_ms);
            for verdict in &outcome.verdicts {
                summary.add(verdict);
            }
        }
        after.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let last = after.len().saturating_sub(1);
            after
                .get((last as f64 * part) as usize)
                .copied()
                .unwrap_or(0.0)
        };
        summary.verdict_after_ms = (at(0.5), at(0.95));
        summary
    }

    fn add(&mut self, verdict: &Verdict) {
        let kind = verdict.fault.kind;
        let of = self.kinds.entry(kind.name()).or_default();
        if !verdict.effect.there {
            of.void += 1;
            return;
        }
        of.injected += 1;
        of.hop.add(verdict.hop);
        of.fault.add(verdict.fault_right);
        of.cause.add(verdict.cause_right);
        of.culprit.add(verdict.culprit_right);
        let said = verdict.answered.as_ref();
        let said = said.map_or_else(
            || NOTHING.to_owned(),
            |answer| format!("{} {}", answer.fault, answer.cause),
        );
        *of.answers.entry(said).or_default() += 1;
        if expect::is_own(kind) {
            of.no_wrong_blame.add(!verdict.wrong_blame);
            self.own_no_wrong_blame.add(!verdict.wrong_blame);
            self.own_named.add(verdict.cause_right && verdict.hop);
        } else {
            self.fault.add(verdict.fault_right);
            self.cause.add(verdict.cause_right);
            self.cause_by_time.add(verdict.right_by_time);
            self.culprit.add(verdict.culprit_right);
            self.hop.add(verdict.hop);
        }
    }

    /// False verdicts for each healthy span, 0 to 1.
    #[must_use]
    pub fn false_share(&self) -> f64 {
        self.false_verdicts as f64 / self.healthy_spans.max(1) as f64
    }
}

/// The kinds that cannot be injected on this machine, and why, one line each.
#[must_use]
pub fn not_here() -> Vec<String> {
    let mut lines = vec![
        "virtqueue: a virtio device's queue cannot be made to stall from inside this machine; in \
         the guests of `cargo xtask vm` it is"
            .to_owned(),
        "steal, kvm_exit: need a hypervisor of one's own below the services".to_owned(),
        "conntrack's full table: its size cannot be set in a network namespace (EINVAL), and \
         filling the host's would hit everybody; in the guests of `cargo xtask vm` one is filled, and \
         --kind snat_exhausted makes its other failure"
            .to_owned(),
    ];
    if !std::path::Path::new("/sys/module/sch_netem").exists() {
        lines.push(
            "delay and loss by netem: not in this kernel; tbf and iptables instead".to_owned(),
        );
    }
    lines
}

/// Every kind in the order of the tables.
pub fn kinds(summary: &Summary) -> impl Iterator<Item = (&'static str, &OfKind)> {
    Kind::ALL
        .into_iter()
        .filter_map(|kind| Some((kind.name(), summary.kinds.get(kind.name())?)))
}

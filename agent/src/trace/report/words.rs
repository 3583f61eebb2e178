//! The sentences of a report.

use std::collections::BTreeMap;

use super::{super::Oddities, Report};
use crate::vocabulary::Cause;

/// What is said first.
pub(super) fn summary(report: &Report) -> String {
    let Some(slowest) = &report.slowest_hop else {
        return "No span of this trace has a length.".to_owned();
    };
    let time = format!(
        "{} of {} ({:.0} %)",
        duration(slowest.critical_ms),
        duration(report.duration_ms),
        slowest.share * 100.0
    );
    let hop = name(&slowest.service, &slowest.operation, &slowest.node);
    let Some(verdict) = &report.verdict else {
        let why = match (&*slowest.confidence, largest(&slowest.split)) {
            ("", _) => "no agent saw it, so nobody knows why".to_owned(),
            (_, Some((cause, part))) => format!(
                "its agent found nothing unusual; most of its own time, {}, is {cause}",
                duration(part)
            ),
            _ => "its agent found nothing unusual".to_owned(),
        };
        return format!("{hop} took {time}; {why}.");
    };
    let said = match &*verdict.answer.summary {
        "" => format!(
            "{:.0} % of its self time is {} ({})",
            verdict.answer.share * 100.0,
            verdict.answer.cause,
            verdict.answer.fault
        ),
        summary => summary.trim_end_matches('.').to_owned(),
    };
    if verdict.span_id == slowest.span_id {
        return format!("{hop} took {time}: {said}.");
    }
    let other = name(&verdict.service, &verdict.operation, &verdict.node);
    format!("{hop} took {time}, without a verdict; but of {other}: {said}.")
}

fn largest(split: &BTreeMap<Cause, f64>) -> Option<(Cause, f64)> {
    let parts = split.iter().map(|(cause, part)| (*cause, *part));
    parts.max_by(|(_, a), (_, b)| a.total_cmp(b))
}

fn name(service: &str, operation: &str, node: &str) -> String {
    let service = if service.is_empty() {
        "(no service.name)"
    } else {
        service
    };
    match node {
        "" => format!("{service}: {operation}"),
        node => format!("{service}: {operation} on {node}"),
    }
}

/// A length of time for people.
#[must_use]
pub fn duration(ms: f64) -> String {
    match ms.abs() {
        v if v >= 10_000.0 => format!("{:.1} s", ms / 1e3),
        v if v >= 1_000.0 => format!("{:.2} s", ms / 1e3),
        v if v >= 100.0 => format!("{ms:.0} ms"),
        v if v >= 1.0 => format!("{ms:.1} ms"),
        0.0 => "0 ms".to_owned(),
        _ => format!("{:.0} us", ms * 1e3),
    }
}

/// What was odd, a sentence each, without its full stop.
pub(super) fn notes(oddities: &Oddities) -> Vec<String> {
    let of = |n: usize, one: &str, many: &str| {
        (n > 0).then(|| format!("{n} {}", if n == 1 { one } else { many }))
    };
    [
        of(
            oddities.parent_missing,
            "span names a parent that is not here: it hangs below the root",
            "spans name parents that are not here: they hang below the root",
        ),
        of(
            oddities.shifted,
            "call went to a host whose clock disagrees: its spans were moved into their caller's time",
            "calls went to hosts whose clocks disagree: their spans were moved into their callers' time",
        ),
        of(
            oddities.not_awaited,
            "span ran on after its parent or was started by a message: nobody waited for it",
            "spans ran on after their parents or were started by messages: nobody waited for them",
        ),
        of(oddities.copies, "copy of a span was left out", "copies of spans were left out"),
        of(oddities.cycles, "cycle of parents was cut", "cycles of parents were cut"),
        of(
            oddities.backwards,
            "span ends before it starts: it counts as having no length",
            "spans end before they start: they count as having no length",
        ),
        of(
            oddities.without_id,
            "span without an id was left out",
            "spans without an id were left out",
        ),
        of(
            oddities.stray_stretches,
            "stretch of lost time is of a span that is not here",
            "stretches of lost time are of spans that are not here",
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

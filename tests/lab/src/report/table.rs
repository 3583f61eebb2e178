//! The tables for a terminal, and the list of misses.

use std::fmt::Write as _;

use super::{Part, Summary, kinds};
use crate::score::Outcome;

/// The numbers and the confusion table.
#[must_use]
pub fn text(summary: &Summary) -> String {
    let mut out = String::new();
    // Writing into a string cannot fail.
    let _ = write_text(summary, &mut out);
    out
}

fn write_text(summary: &Summary, out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "{:<18} {:>4} {:>4}  {:>7} {:>7} {:>7} {:>7}  answered",
        "injected", "runs", "void", "hop", "fault", "cause", "culprit"
    )?;
    for (name, of) in kinds(summary) {
        let mut answers: Vec<_> = of.answers.iter().collect();
        answers.sort_by_key(|(_, times)| std::cmp::Reverse(**times));
        let answers: Vec<String> = answers
            .iter()
            .map(|(answer, times)| format!("{answer} {times}"))
            .collect();
        writeln!(
            out,
            "{name:<18} {:>4} {:>4}  {:>7} {:>7} {:>7} {:>7}  {}",
            of.injected,
            of.void,
            part(of.hop),
            part(of.fault),
            part(of.cause),
            part(of.culprit),
            answers.join(", ")
        )?;
    }
    let joins: usize = summary.joins.values().sum();
    let joins: Vec<String> = summary
        .joins
        .iter()
        .map(|(join, n)| format!("{join} {:.1} %", 100.0 * *n as f64 / joins.max(1) as f64))
        .collect();
    writeln!(out)?;
    for (what, of) in [
        ("fault", summary.fault),
        ("cause", summary.cause),
        (
            "cause, waits for peers by their time",
            summary.cause_by_time,
        ),
        ("culprit", summary.culprit),
        ("hop", summary.hop),
        ("application's own faults named", summary.own_named),
        (
            "application's own, nobody else blamed",
            summary.own_no_wrong_blame,
        ),
    ] {
        writeln!(
            out,
            "{what:<40} {:>6.1} %  ({} of {})",
            100.0 * of.share(),
            of.right,
            of.of
        )?;
    }
    writeln!(
        out,
        "{:<40} {:>6.3} %  ({} of {}; {} more are confirmed by the kernel's books)",
        "false verdicts on healthy spans",
        100.0 * summary.false_share(),
        summary.false_verdicts,
        summary.healthy_spans,
        summary.disturbed
    )?;
    writeln!(out, "{:<40} {}", "joins", joins.join(", "))?;
    writeln!(
        out,
        "{:<40} {:.0} ms median, {:.0} ms 95th percentile",
        "from a span's end to its verdict", summary.verdict_after_ms.0, summary.verdict_after_ms.1
    )?;
    writeln!(
        out,
        "{:<40} {} done, {} healthy, {} broken; seed {}",
        "runs", summary.runs, summary.healthy_runs, summary.broken, summary.seed
    )
}

fn part(part: Part) -> String {
    if part.of == 0 {
        return "-".to_owned();
    }
    format!("{}/{}", part.right, part.of)
}

/// One line for each thing of a run that was wrong, with the command that does it again:
/// `again` and the number of the run.
#[must_use]
pub fn misses(again: &str, outcome: &Outcome) -> Vec<String> {
    let again = format!("{again} --only {}", outcome.run);
    let mut lines = Vec::new();
    if let Some(error) = &outcome.error {
        lines.push(format!("run {}: not done: {error} [{again}]", outcome.run));
    }
    for verdict in &outcome.verdicts {
        let right = verdict.hop
            && verdict.fault_right
            && verdict.cause_right
            && verdict.culprit_right
            && !verdict.wrong_blame;
        if right || !verdict.effect.there {
            continue;
        }
        let said = verdict.answered.as_ref().map_or_else(
            || "nothing".to_owned(),
            |a| {
                format!(
                    "{}: {} {} by {:?} ({:.0} ms, {} spans)",
                    a.service, a.fault, a.cause, a.culprit, a.blamed_ms, a.spans
                )
            },
        );
        lines.push(format!(
            "run {}: {} on {} (strength {:.2}; {}): expected {}, said {said} [{again}]",
            outcome.run,
            verdict.fault.kind.name(),
            verdict.fault.victim.name(),
            verdict.fault.strength,
            verdict.effect.what,
            verdict.expected,
        ));
    }
    for said in &outcome.false_verdicts {
        lines.push(format!(
            "run {}: healthy {} {:?}: said {} ({:.1} ms; the books say {:.1}): {} [{again}]",
            outcome.run,
            said.service,
            said.span,
            said.said,
            said.blamed_ms,
            said.measured_ms,
            said.summary
        ));
    }
    lines
}

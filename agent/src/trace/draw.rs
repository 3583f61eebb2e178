//! A report for a terminal: the sentence, the slowest hop's split, and the tree with bars.
//! Everything from outside is escaped; without UTF-8 only ASCII is written.

#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use textwrap::core::display_width;

use super::report::{Hop, Report, TraceVerdict, duration};
use crate::{stack::report::visible, vocabulary::Cause};

/// Rows of the tree without `--all`.
const ROWS: usize = 40;
/// Narrower than this it is not told apart.
const MIN_COLUMNS: usize = 60;
/// Wider than this nothing gains.
const MAX_COLUMNS: usize = 160;

/// How to draw.
#[derive(Clone, Copy, Debug)]
pub struct Paper {
    /// Characters of a line.
    pub columns: usize,
    /// More than ASCII can be shown.
    pub unicode: bool,
    /// Every span, not the most telling ones.
    pub all: bool,
}

/// The characters of the bars.
struct Ink {
    critical: char,
    span: char,
    lost: char,
    empty: char,
    cut: &'static str,
    mark: &'static str,
}

const UNICODE: Ink = Ink {
    critical: '█',
    span: '─',
    lost: '▓',
    empty: ' ',
    cut: "…",
    mark: "▶",
};
const ASCII: Ink = Ink {
    critical: '#',
    span: '-',
    lost: '%',
    empty: ' ',
    cut: "~",
    mark: ">",
};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();

/// Draws it; with colours, which the stream that it is written to may remove.
#[must_use]
pub fn draw(report: &Report, paper: Paper) -> String {
    let pen = Pen {
        columns: paper.columns.clamp(MIN_COLUMNS, MAX_COLUMNS),
        ink: if paper.unicode { &UNICODE } else { &ASCII },
        unicode: paper.unicode,
    };
    let mut out = String::new();
    pen.head(&mut out, report);
    pen.answer(&mut out, report);
    if let Some(slowest) = &report.slowest_hop {
        pen.split(&mut out, slowest);
    }
    pen.tree(&mut out, report, paper.all);
    for note in &report.notes {
        pen.paragraph(&mut out, &format!("Note: {note}."), DIM);
    }
    out
}

struct Pen {
    columns: usize,
    ink: &'static Ink,
    unicode: bool,
}

impl Pen {
    /// Text that came from outside, as this terminal can show it.
    fn safe(&self, text: &str) -> String {
        let text = visible(text);
        if self.unicode {
            return text;
        }
        let ascii = |c: char| if c.is_ascii() { c } else { '?' };
        text.chars().map(ascii).collect()
    }

    /// At most so many columns of it.
    fn fit(&self, text: &str, columns: usize) -> String {
        if display_width(text) <= columns {
            return text.to_owned();
        }
        let mut out = String::new();
        for c in text.chars() {
            out.push(c);
            if display_width(&out) >= columns {
                out.pop();
                break;
            }
        }
        out.push_str(self.ink.cut);
        out
    }

    fn padded(&self, text: &str, columns: usize) -> String {
        let text = self.fit(text, columns);
        let missing = columns.saturating_sub(display_width(&text));
        text + &" ".repeat(missing)
    }

    fn paragraph(&self, out: &mut String, text: &str, style: Style) {
        for line in textwrap::wrap(&self.safe_sentence(text), self.columns) {
            let _ = writeln!(out, "{style}{line}{style:#}");
        }
    }

    /// Sentences are longer than names may be.
    fn safe_sentence(&self, text: &str) -> String {
        text.split(' ')
            .map(|word| self.safe(word))
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn head(&self, out: &mut String, report: &Report) {
        let services = report.services.len();
        let facts = format!(
            "  {}, {} {} of {services} {}",
            duration(report.duration_ms),
            report.spans_total,
            if report.spans_total == 1 {
                "span"
            } else {
                "spans"
            },
            if services == 1 { "service" } else { "services" },
        );
        let id = format!("Trace {}", self.safe(&report.trace_id));
        let apart = if display_width(&id) + display_width(&facts) > self.columns {
            "\n"
        } else {
            ""
        };
        let _ = writeln!(out, "{BOLD}{id}{BOLD:#}{apart}{facts}");
        self.paragraph(out, &report.summary, BOLD);
        out.push('\n');
    }

    fn answer(&self, out: &mut String, report: &Report) {
        let mut fact = |name: &str, value: &str| {
            if value.is_empty() {
                return;
            }
            const INDENT: usize = 13;
            let value = self.safe_sentence(value);
            let lines = textwrap::wrap(&value, self.columns - INDENT);
            for (i, line) in lines.iter().enumerate() {
                let name = if i == 0 { name } else { "" };
                let _ = writeln!(out, "{name:<INDENT$}{line}");
            }
        };
        if let Some(hop) = &report.slowest_hop {
            fact("Slowest hop", &title(hop));
            fact("Where", &place(hop));
        }
        if let Some(verdict) = &report.verdict {
            let other = report
                .slowest_hop
                .as_ref()
                .is_none_or(|hop| hop.span_id != verdict.span_id);
            if other {
                let on = format!("{}: {}", verdict.service, verdict.operation);
                fact("Verdict on", &on);
            }
            fact("Verdict", &verdict_line(verdict));
            let culprit = match &*verdict.answer.culprit {
                "" => "none: no neighbour is named",
                culprit => culprit,
            };
            fact("Culprit", culprit);
            fact("Incident", &verdict.answer.incident);
            fact("What to do", &verdict.answer.remedy);
        }
        out.push('\n');
    }

    fn split(&self, out: &mut String, hop: &Hop) {
        if hop.split.is_empty() {
            return;
        }
        let total: f64 = hop.split.values().sum();
        let _ = writeln!(out, "{BOLD}Its own {} by cause{BOLD:#}", duration(total));
        let mut parts: Vec<_> = hop.split.iter().collect();
        parts.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        let room = self.columns.saturating_sub(40).min(48);
        for (cause, part) in parts {
            let share = if total > 0.0 { part / total } else { 0.0 };
            let filled = (share * room as f64).round() as usize;
            let bar: String =
                std::iter::repeat_n(self.ink.critical, filled.max(1).min(room)).collect();
            let missing = " ".repeat(room.saturating_sub(filled.max(1)));
            let style = tone(*cause);
            let _ = writeln!(
                out,
                "  {:<16}{style}{bar}{style:#}{missing} {:>9} {:>4.0} %",
                cause.as_str(),
                duration(*part),
                share * 100.0
            );
        }
        out.push('\n');
    }

    fn tree(&self, out: &mut String, report: &Report, all: bool) {
        let rows = rows(report, all);
        // Numbers take 18 columns, the rest is shared by names and bars.
        let bar = (self.columns - 18) * 2 / 5;
        let name = self.columns - 18 - bar - 1;
        let legend = format!(
            "{} critical path  {} running  {} lost",
            self.ink.critical, self.ink.span, self.ink.lost
        );
        let title = format!(
            "{}{:>9} {:>4}   {legend}",
            self.padded("  hop", name + 1),
            "own time",
            ""
        );
        let _ = writeln!(out, "{DIM}{}{DIM:#}", self.fit(&title, self.columns));
        let slowest = report.slowest_hop.as_ref().map(|hop| &*hop.span_id);
        for hop in &rows {
            let is_slowest = slowest == Some(&*hop.span_id) && hop.critical_ms > 0.0;
            let mark = if is_slowest { self.ink.mark } else { " " };
            // Deep trees would leave no room for names.
            let indent = " ".repeat(hop.depth.min(name / 3));
            let text = format!("{mark}{indent}{}", self.safe(&label(hop)));
            let style = match (is_slowest, hop.critical_ms > 0.0) {
                (true, _) => BOLD,
                (false, true) => Style::new(),
                (false, false) => DIM,
            };
            let own = if hop.critical_ms > 0.0 {
                format!(
                    "{:>9} {:>3.0}%",
                    duration(hop.critical_ms),
                    hop.share * 100.0
                )
            } else {
                format!("{:>9} {:>4}", "", "")
            };
            let _ = writeln!(
                out,
                "{style}{}{style:#} {own}   {}",
                self.padded(&text, name),
                self.bar(report, hop, bar)
            );
        }
        let left_out = report.spans_total - rows.len().min(report.spans_total);
        if left_out > 0 {
            let how = if all { "" } else { ": --all shows them" };
            let _ = writeln!(out, "{DIM}  and {left_out} more{how}{DIM:#}");
        }
        if report.gap_ms > 0.0 {
            let gap = duration(report.gap_ms);
            let _ = writeln!(
                out,
                "{DIM}  {gap} lie between spans whose parent is not here{DIM:#}"
            );
        }
        out.push('\n');
    }

    /// A hop in the time of the trace.
    fn bar(&self, report: &Report, hop: &Hop, columns: usize) -> String {
        let total = report.duration_ms;
        let mut cells = vec![(self.ink.empty, DIM); columns];
        let mut fill = |from: f64, to: f64, ink: (char, Style), least: usize| {
            if total <= 0.0 || to < 0.0 || from > total {
                return;
            }
            let cell = |at: f64| at.clamp(0.0, total) / total * columns as f64;
            let first = (cell(from) as usize).min(columns - 1);
            let last = (cell(to).ceil() as usize).clamp(first + least, columns);
            for cell in cells.iter_mut().take(last).skip(first) {
                *cell = ink;
            }
        };
        fill(
            hop.start_ms,
            hop.start_ms + hop.duration_ms,
            (self.ink.span, DIM),
            1,
        );
        for (from, to) in &hop.segments {
            fill(*from, *to, (self.ink.critical, Style::new()), 0);
        }
        for lost in &hop.stretches {
            fill(
                lost.start_ms,
                lost.end_ms,
                (self.ink.lost, tone(lost.cause)),
                0,
            );
        }
        let mut out = String::new();
        let mut style = Style::new();
        for (character, next) in cells {
            if next != style {
                let _ = write!(out, "{style:#}{next}");
                style = next;
            }
            out.push(character);
        }
        let _ = write!(out, "{style:#}");
        // Nothing follows in the line.
        out
    }
}

/// The rows shown: the whole tree if it is small, else what is on the path and above it.
fn rows(report: &Report, all: bool) -> Vec<&Hop> {
    if all || report.spans.len() <= ROWS {
        return report.spans.iter().collect();
    }
    let mut by_time: Vec<usize> = (0..report.spans.len()).collect();
    by_time.sort_by(|a, b| {
        let time = |i: usize| (report.spans[i].critical_ms, report.spans[i].duration_ms);
        let ((a_critical, a_whole), (b_critical, b_whole)) = (time(*a), time(*b));
        b_critical
            .total_cmp(&a_critical)
            .then(b_whole.total_cmp(&a_whole))
    });
    let mut keep = vec![false; report.spans.len()];
    for index in by_time.into_iter().take(ROWS) {
        keep[index] = true;
    }
    let kept = report.spans.iter().zip(keep).filter(|(_, keep)| *keep);
    kept.map(|(hop, _)| hop).collect()
}

fn title(hop: &Hop) -> String {
    format!(
        "{}: {}, {} on the critical path ({:.0} %)",
        service(hop),
        hop.operation,
        duration(hop.critical_ms),
        hop.share * 100.0
    )
}

fn place(hop: &Hop) -> String {
    let mut parts = Vec::new();
    for (name, value) in [("node ", &hop.node), ("", &hop.workload), ("", &hop.stack)] {
        if !value.is_empty() {
            parts.push(format!("{name}{value}"));
        }
    }
    if !hop.confidence.is_empty() {
        parts.push(format!("joined by {}", hop.confidence));
    }
    parts.join(", ")
}

fn verdict_line(verdict: &TraceVerdict) -> String {
    let answer = &verdict.answer;
    format!(
        "{} {}, {:.0} % of its self time",
        answer.fault,
        answer.cause,
        answer.share * 100.0
    )
}

fn label(hop: &Hop) -> String {
    let mut text = format!("{} {}", service(hop), hop.operation);
    if let Some(verdict) = &hop.verdict {
        let _ = write!(text, " [{} {}]", verdict.fault, verdict.cause);
    }
    if hop.error {
        text.push_str(" (error)");
    }
    text
}

fn service(hop: &Hop) -> &str {
    if hop.service.is_empty() {
        "(no service.name)"
    } else {
        &hop.service
    }
}

/// The families of the page: warm for the CPU, magenta for memory, cyan for disks, blue for
/// the network.
fn tone(cause: Cause) -> Style {
    let color = match cause {
        Cause::CpuThrottle | Cause::Steal | Cause::KvmExit => AnsiColor::Red,
        Cause::Runqueue => AnsiColor::Yellow,
        Cause::MemoryReclaim | Cause::OomKill => AnsiColor::Magenta,
        Cause::BlockThrottle | Cause::BlockQueue | Cause::BlockDevice => AnsiColor::Cyan,
        Cause::TcpConnect
        | Cause::TcpRtt
        | Cause::TcpRetransmit
        | Cause::NetDrop
        | Cause::Virtqueue
        | Cause::Conntrack
        | Cause::SocketWait => AnsiColor::Blue,
        Cause::SeccompDenied => AnsiColor::BrightMagenta,
        Cause::OnCpu => AnsiColor::Green,
        Cause::LockWait | Cause::Sleep | Cause::Downstream | Cause::Unexplained => {
            return DIM;
        }
    };
    color.on_default()
}

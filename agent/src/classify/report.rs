//! What is said about a line: one JSON object, or a few lines for a person.

use std::{borrow::Cow, io};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::{Classifier, stream::Found};
use crate::{stack::report::bends_output, vocabulary::Layer};

/// Most of a line that is shown to a person, in bytes.
const SHOWN_BYTES: usize = 400;
/// Most of a line that goes into JSON, in bytes.
const JSON_BYTES: usize = 8 * 1024;

/// One object a line, the fields in the contract's order.
#[derive(Debug, Serialize)]
struct Record<'a> {
    line_number: u64,
    layer: Layer,
    rule: &'static str,
    meaning: &'static str,
    remedy: &'static str,
    confidence: f64,
    /// What is not UTF-8 shows as U+FFFD.
    line: Cow<'a, str>,
    /// Where several files were named.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
}

/// Writes the JSON object and a line feed.
///
/// # Errors
/// When writing fails.
pub fn json(out: &mut impl io::Write, found: &Found<'_>, file: Option<&str>) -> io::Result<()> {
    let rule = found.hit.rule;
    let part = excerpt(found, JSON_BYTES);
    let record = Record {
        line_number: found.line_number,
        layer: rule.layer,
        rule: rule.id,
        meaning: rule.meaning,
        remedy: rule.remedy,
        confidence: rule.confidence,
        line: String::from_utf8_lossy(&found.line[part]),
        file,
    };
    serde_json::to_writer(&mut *out, &record)?;
    out.write_all(b"\n")
}

/// Writes what a person wants to see: meaning, line, remedy. Styles are written as escape
/// sequences; `out` removes them where they are not wanted.
///
/// # Errors
/// When writing fails.
pub fn table(out: &mut impl io::Write, found: &Found<'_>, file: Option<&str>) -> io::Result<()> {
    const BOLD: Style = Style::new().bold();
    const DIM: Style = Style::new().dimmed();
    let rule = found.hit.rule;
    let layer = Style::new()
        .bold()
        .fg_color(Some(colour(rule.layer).into()));
    if let Some(file) = file {
        write!(out, "{}:", visible(file.as_bytes()))?;
    }
    writeln!(
        out,
        "{}: {layer}{}{layer:#} {BOLD}{}{BOLD:#} ({:.2}): {}",
        found.line_number, rule.layer, rule.id, rule.confidence, rule.meaning
    )?;
    let part = excerpt(found, SHOWN_BYTES);
    let place = Classifier::get().place(found.hit, found.line);
    let (start, end) = (
        place.start.clamp(part.start, part.end),
        place.end.clamp(part.start, part.end),
    );
    let cut = |there: bool| if there { "…" } else { "" };
    writeln!(
        out,
        "    {}{DIM}{}{DIM:#}{BOLD}{}{BOLD:#}{DIM}{}{DIM:#}{}",
        cut(part.start > 0),
        visible(&found.line[part.start..start]),
        visible(&found.line[start..end]),
        visible(&found.line[end..part.end]),
        cut(part.end < found.line.len()),
    )?;
    writeln!(out, "    -> {}", rule.remedy)
}

/// At most `most` bytes of the line, with the match in it.
fn excerpt(found: &Found<'_>, most: usize) -> std::ops::Range<usize> {
    let length = found.line.len();
    if length <= most {
        return 0..length;
    }
    let place = Classifier::get().place(found.hit, found.line);
    let start = place.start.saturating_sub(most / 4).min(length - most);
    start..start + most
}

fn colour(layer: Layer) -> AnsiColor {
    match layer {
        Layer::HardwareAssist => AnsiColor::Magenta,
        Layer::FullVirtualisation => AnsiColor::Blue,
        Layer::Paravirtualisation => AnsiColor::Cyan,
        Layer::Container => AnsiColor::Yellow,
        Layer::Sandbox => AnsiColor::Red,
    }
}

/// Bytes of unknown origin, fit for a terminal.
fn visible(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => out.push(' '),
            c if bends_output(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

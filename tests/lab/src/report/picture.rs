//! The confusion table as a picture: rows are what was injected, columns what was answered.

use std::{collections::BTreeSet, fmt::Write as _};

use super::{NOTHING, Summary, kinds};

const CELL: usize = 34;
const LEFT: usize = 190;
const TOP: usize = 190;

/// An SVG document.
#[must_use]
pub fn svg(summary: &Summary) -> String {
    let mut out = String::new();
    // Writing into a string cannot fail.
    let _ = write_svg(summary, &mut out);
    out
}

fn write_svg(summary: &Summary, out: &mut String) -> std::fmt::Result {
    let mut columns: BTreeSet<&str> = BTreeSet::new();
    for (_, of) in kinds(summary) {
        columns.extend(of.answers.keys().map(String::as_str));
    }
    let columns: Vec<&str> = columns
        .iter()
        .copied()
        .filter(|answer| *answer != NOTHING)
        .chain([NOTHING])
        .collect();
    let rows = kinds(summary).count();
    let width = LEFT + columns.len() * CELL + 150;
    let height = TOP + rows * CELL + 120;
    writeln!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">"#
    )?;
    writeln!(
        out,
        r##"<rect width="100%" height="100%" fill="#ffffff"/>"##
    )?;
    writeln!(
        out,
        r#"<text x="12" y="24" font-size="16" font-weight="bold">Injected (rows) and answered (columns)</text>"#
    )?;
    writeln!(
        out,
        r#"<text x="12" y="44">{} runs, seed {}; a number is a count of runs</text>"#,
        summary.runs, summary.seed
    )?;
    for (at, column) in columns.iter().enumerate() {
        let x = LEFT + at * CELL + CELL / 2 + 4;
        writeln!(
            out,
            r#"<text transform="translate({x},{}) rotate(-60)">{column}</text>"#,
            TOP - 8
        )?;
    }
    for (row, (name, of)) in kinds(summary).enumerate() {
        let y = TOP + row * CELL;
        let text_y = y + CELL / 2 + 4;
        writeln!(
            out,
            r#"<text x="{}" y="{text_y}" text-anchor="end">{name}</text>"#,
            LEFT - 10
        )?;
        for (at, column) in columns.iter().enumerate() {
            let x = LEFT + at * CELL;
            let times = of.answers.get(*column).copied().unwrap_or(0);
            let share = times as f64 / of.injected.max(1) as f64;
            // White to blue.
            let fade = |to: f64| (255.0 + (to - 255.0) * share) as u8;
            let fill = format!("#{:02x}{:02x}{:02x}", fade(33.0), fade(102.0), fade(172.0));
            writeln!(
                out,
                r##"<rect x="{x}" y="{y}" width="{CELL}" height="{CELL}" fill="{fill}" stroke="#d0d0d0"/>"##
            )?;
            if times > 0 {
                let ink = if share > 0.5 { "#ffffff" } else { "#000000" };
                writeln!(
                    out,
                    r#"<text x="{}" y="{text_y}" text-anchor="middle" fill="{ink}">{times}</text>"#,
                    x + CELL / 2
                )?;
            }
        }
        let x = LEFT + columns.len() * CELL + 10;
        writeln!(
            out,
            r#"<text x="{x}" y="{text_y}">cause {:.0} %</text>"#,
            100.0 * of.cause.share()
        )?;
    }
    let y = TOP + rows * CELL + 30;
    for (line, text) in [
        format!(
            "fault {:.1} %, cause {:.1} %, culprit {:.1} %",
            100.0 * summary.fault.share(),
            100.0 * summary.cause.share(),
            100.0 * summary.culprit.share()
        ),
        format!(
            "the application's own: named {:.1} %, nobody else blamed {:.1} %",
            100.0 * summary.own_named.share(),
            100.0 * summary.own_no_wrong_blame.share()
        ),
        format!(
            "false verdicts on healthy spans: {:.3} % of {}",
            100.0 * summary.false_share(),
            summary.healthy_spans
        ),
    ]
    .iter()
    .enumerate()
    {
        writeln!(out, r#"<text x="12" y="{}">{text}</text>"#, y + line * 20)?;
    }
    writeln!(out, "</svg>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::OfKind;

    #[test]
    fn every_answer_has_a_column() {
        let mut of = OfKind {
            injected: 3,
            ..OfKind::default()
        };
        of.answers.insert("L-3 cpu_throttle".to_owned(), 2);
        of.answers.insert(NOTHING.to_owned(), 1);
        let mut summary = Summary::default();
        summary.kinds.insert("own_quota", of);
        let svg = svg(&summary);
        assert_eq!(svg.matches("<rect x=").count(), 2, "{svg}");
        assert!(svg.contains(">L-3 cpu_throttle<"), "{svg}");
        assert!(svg.trim_end().ends_with("</svg>"));
    }
}

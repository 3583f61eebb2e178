use textwrap::core::display_width;

use super::{Paper, draw};
use crate::trace::{Answer, Said, Stretch, TraceSpan, report};
use crate::vocabulary::{Cause, Fault};

const MS: u64 = 1_000_000;

fn hostile(n: u64) -> Vec<TraceSpan> {
    let one = |i: u64| TraceSpan {
        span_id: i.to_be_bytes(),
        parent_span_id: (i / 2).to_be_bytes(),
        service: "caf\u{e9}\u{1b}[2J 値段\u{202e}".into(),
        operation: "GET /".repeat(40),
        start_unix_ns: i * MS,
        end_unix_ns: (4 * n - i) * MS,
        node: "node\r\nb".into(),
        said: (i == 1).then(|| {
            Box::new(Said {
                split: [(Cause::CpuThrottle, 5 * MS), (Cause::OnCpu, 0)].into(),
                stretches: vec![Stretch {
                    fault: Fault::L3,
                    cause: Cause::CpuThrottle,
                    start_unix_ns: 0,
                    end_unix_ns: u64::MAX,
                }],
                verdict: Some(Answer {
                    fault: Fault::L3,
                    cause: Cause::CpuThrottle,
                    share: 0.9,
                    culprit: "\u{1b}]0;x\u{7}".into(),
                    incident: String::new(),
                    summary: "Held\u{9b}31m back".into(),
                    remedy: "x".repeat(900),
                    evidence: [].into(),
                }),
                ..Said::default()
            })
        }),
        ..TraceSpan::default()
    };
    (1..=n).map(one).collect()
}

fn drawn(n: u64, columns: usize, unicode: bool, all: bool) -> String {
    let report = report([7; 16], hostile(n));
    let coloured = draw(
        &report,
        Paper {
            columns,
            unicode,
            all,
        },
    );
    anstream::adapter::strip_str(&coloured).to_string()
}

#[test]
fn every_line_fits_and_nothing_steers_the_terminal() {
    for columns in [60, 80, 133] {
        for unicode in [true, false] {
            let text = drawn(30, columns, unicode, false);
            for line in text.lines() {
                assert!(display_width(line) <= columns, "{columns}: {line:?}");
                assert!(!line.chars().any(char::is_control), "{line:?}");
                assert!(unicode || line.is_ascii(), "{line:?}");
            }
        }
    }
}

#[test]
fn a_large_tree_is_cut_to_what_tells_most_unless_all_is_wanted() {
    let short = drawn(900, 100, true, false);
    assert!(short.contains("and 860 more: --all shows them"), "{short}");
    let all = drawn(900, 100, true, true);
    assert!(all.lines().count() > 900 && !all.contains("more"));
}

#[test]
fn nothing_to_draw_is_drawn_too() {
    let report = report([7; 16], Vec::new());
    let text = draw(
        &report,
        Paper {
            columns: 0,
            unicode: true,
            all: false,
        },
    );
    assert!(
        text.contains("No span of this trace has a length"),
        "{text}"
    );
}

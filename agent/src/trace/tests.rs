//! Traces as they come: whole, partial, skewed, hostile.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{
    Analysis, Answer, CLIENT, CONSUMER, PRODUCER, SERVER, Said, Stretch, TraceSpan, analyse, report,
};
use crate::{
    span::SpanId,
    vocabulary::{Cause, Fault},
};

const TRACE: [u8; 16] = [7; 16];
const MS: u64 = 1_000_000;
/// A day in 2026, so that clocks may go back.
const DAY: u64 = 1_795_000_000_000_000_000;

fn id(n: u64) -> SpanId {
    n.to_be_bytes()
}

/// A span of service `s<n>` from `from` to `to` milliseconds; parent 0 is none.
fn span(n: u64, parent: u64, from: u64, to: u64) -> TraceSpan {
    TraceSpan {
        span_id: id(n),
        parent_span_id: id(parent),
        service: format!("s{n}").into(),
        operation: format!("op{n}"),
        kind: 1,
        start_unix_ns: DAY + from * MS,
        end_unix_ns: DAY + to * MS,
        ..TraceSpan::default()
    }
}

fn kind(mut span: TraceSpan, kind: i32, node: &str) -> TraceSpan {
    span.kind = kind;
    span.node = node.into();
    span
}

fn with_verdict(mut span: TraceSpan, cause: Cause, share: f64) -> TraceSpan {
    let self_ns = span.end_unix_ns.saturating_sub(span.start_unix_ns);
    span.said = Some(Box::new(Said {
        confidence: "process".into(),
        split: BTreeMap::from([(cause, (self_ns as f64 * share) as u64)]),
        verdict: Some(Answer {
            fault: Fault::L3,
            cause,
            share,
            culprit: "shop/noisy".into(),
            incident: String::new(),
            summary: format!("{:.0} % of it was {cause}", share * 100.0),
            remedy: "Do this.".into(),
            evidence: BTreeMap::new(),
        }),
        ..Said::default()
    }));
    span
}

/// The path as span numbers (0: a gap) and milliseconds.
fn path(analysis: &Analysis) -> Vec<(u64, u64, u64)> {
    let at = |ns: i128| ((ns - i128::from(DAY)) / i128::from(MS)) as u64;
    let number =
        |index: Option<usize>| index.map_or(0, |i| u64::from_be_bytes(analysis.spans[i].span_id));
    let segments = analysis.path.iter();
    segments
        .map(|s| (number(s.span), at(s.start), at(s.end)))
        .collect()
}

#[test]
fn the_walk_enters_the_child_that_returned_last() {
    // 1 calls 2, then 3 and 4 at once; 4 returns last.
    let spans = vec![
        span(1, 0, 0, 100),
        span(2, 1, 10, 30),
        span(3, 1, 40, 70),
        span(4, 1, 40, 90),
        span(5, 4, 45, 80),
    ];
    let analysis = analyse(spans);
    assert_eq!(
        path(&analysis),
        [
            (1, 0, 10),
            (2, 10, 30),
            (1, 30, 40),
            (4, 40, 45),
            (5, 45, 80),
            (4, 80, 90),
            (1, 90, 100)
        ]
    );
    let report = report(TRACE, analysis.spans.clone());
    assert_eq!(report.slowest_hop.as_ref().map(|h| &*h.service), Some("s5"));
    assert_eq!(report.critical_path.len(), 4);
    assert!((report.duration_ms - 100.0).abs() < 1e-9);
}

#[test]
fn no_moment_in_which_an_awaited_child_ran_is_the_parents() {
    // 2 and 3 overlap by a few milliseconds, as pipelined calls do.
    let spans = vec![span(1, 0, 0, 100), span(2, 1, 0, 60), span(3, 1, 50, 100)];
    assert_eq!(path(&analyse(spans)), [(2, 0, 50), (3, 50, 100)]);
}

#[test]
fn what_runs_on_after_its_parent_was_not_awaited() {
    let spans = vec![
        span(1, 0, 0, 100),
        span(2, 1, 20, 500),
        kind(span(3, 1, 30, 40), PRODUCER, ""),
        kind(span(4, 3, 35, 39), CONSUMER, ""),
    ];
    let analysis = analyse(spans);
    assert_eq!(path(&analysis), [(1, 0, 30), (3, 30, 40), (1, 40, 100)]);
    assert_eq!(analysis.oddities.not_awaited, 2);
    // But a client that lost patience waited until it did.
    let spans = vec![
        span(1, 0, 0, 100),
        kind(span(2, 1, 0, 100), CLIENT, "a"),
        kind(span(3, 2, 1, 900), SERVER, "a"),
    ];
    assert_eq!(path(&analyse(spans)), [(2, 0, 1), (3, 1, 100)]);
}

#[test]
fn clocks_of_other_hosts_are_brought_into_their_callers_time() {
    // Host b is 5 s ahead, host c 3 s behind; what b does itself moves with it.
    let skewed = |n, parent, from: i64, to: i64, k, node| {
        let mut s = kind(span(n, parent, 0, 0), k, node);
        s.start_unix_ns = DAY.saturating_add_signed(from * MS as i64);
        s.end_unix_ns = DAY.saturating_add_signed(to * MS as i64);
        s
    };
    let spans = vec![
        skewed(1, 0, 0, 100, SERVER, "a"),
        skewed(2, 1, 10, 90, CLIENT, "a"),
        skewed(3, 2, 5_015, 5_085, SERVER, "b"),
        skewed(4, 3, 5_020, 5_080, CLIENT, "b"),
        skewed(5, 4, -2_975, -2_925, SERVER, "c"),
    ];
    let analysis = analyse(spans);
    assert_eq!(analysis.oddities.shifted, 2);
    assert_eq!(
        path(&analysis),
        [
            (1, 0, 10),
            (2, 10, 15),
            (3, 15, 20),
            (4, 20, 25),
            (5, 25, 75),
            (4, 75, 80),
            (3, 80, 85),
            (2, 85, 90),
            (1, 90, 100)
        ]
    );
    // On one host nothing is moved: there a child before its parent is what it says.
    let spans = vec![
        skewed(1, 0, 0, 100, CLIENT, "a"),
        skewed(2, 1, -50, -10, SERVER, "a"),
    ];
    assert_eq!(analyse(spans).oddities.shifted, 0);
}

#[test]
fn partial_traces_are_told_as_what_they_are() {
    // The client's span between 1 and 3 is missing.
    let spans = vec![span(1, 0, 0, 100), span(3, 2, 10, 90)];
    let whole = report(TRACE, spans);
    assert_eq!(whole.slowest_hop.as_ref().map(|h| &*h.service), Some("s3"));
    assert!(
        whole.notes[0].contains("names a parent that is not here"),
        "{:?}",
        whole.notes
    );
    // No root at all: two calls into this node, with nobody around them.
    let spans = vec![span(3, 2, 10, 40), span(5, 4, 60, 100)];
    let analysis = analyse(spans.clone());
    assert_eq!(path(&analysis), [(3, 10, 40), (0, 40, 60), (5, 60, 100)]);
    let parts = report(TRACE, spans);
    assert!((parts.gap_ms - 20.0).abs() < 1e-9);
    assert!((parts.duration_ms - 90.0).abs() < 1e-9);
}

#[test]
fn cycles_copies_and_nonsense_are_survived_and_told() {
    let mut backwards = span(9, 1, 50, 60);
    backwards.end_unix_ns = 0;
    let spans = vec![
        span(1, 0, 0, 100),
        span(1, 0, 0, 100),
        span(1, 0, 0, 90),
        span(2, 3, 10, 50),
        span(3, 2, 20, 40),
        span(4, 4, 60, 70),
        backwards,
        TraceSpan::default(),
    ];
    let analysis = analyse(spans);
    let odd = analysis.oddities;
    assert_eq!(
        (odd.copies, odd.cycles, odd.without_id, odd.backwards),
        (2, 2, 1, 1)
    );
    assert_eq!(analysis.order.len(), 5);
    assert_eq!(
        path(&analysis),
        [
            (1, 0, 10),
            (2, 10, 20),
            (3, 20, 40),
            (2, 40, 50),
            (1, 50, 60),
            (4, 60, 70),
            (1, 70, 100)
        ]
    );
    assert!(report(TRACE, Vec::new()).slowest_hop.is_none());
    assert!(
        report(TRACE, vec![span(1, 1, 5, 5)])
            .summary
            .contains("length")
    );
}

#[test]
fn a_client_and_a_server_may_share_an_id() {
    let spans = vec![
        span(1, 0, 0, 100),
        kind(span(2, 1, 10, 90), CLIENT, "a"),
        kind(span(2, 1, 20, 80), SERVER, "b"),
        span(3, 2, 30, 70),
    ];
    let analysis = analyse(spans);
    let depth = |i: &usize| analysis.nodes[*i].depth;
    assert_eq!(
        analysis.order.iter().map(depth).collect::<Vec<_>>(),
        [0, 1, 2, 3]
    );
    assert_eq!(analysis.oddities.copies, 0);
}

#[test]
fn an_agents_own_spans_are_the_split_and_no_hops() {
    let mut lost = span(9, 2, 20, 60);
    lost.stretch = Some(Stretch {
        fault: Fault::L3,
        cause: Cause::CpuThrottle,
        start_unix_ns: lost.start_unix_ns,
        end_unix_ns: lost.end_unix_ns,
    });
    let mut stray = lost.clone();
    stray.parent_span_id = id(77);
    let spans = vec![
        span(1, 0, 0, 100),
        with_verdict(span(2, 1, 10, 90), Cause::CpuThrottle, 0.5),
        lost,
        stray,
    ];
    let report = report(TRACE, spans);
    assert_eq!((report.spans_total, report.critical_path.len()), (2, 2));
    let slowest = report.slowest_hop.unwrap();
    assert_eq!(
        (slowest.stretches[0].start_ms, slowest.stretches[0].end_ms),
        (20.0, 60.0)
    );
    assert_eq!(slowest.split[&Cause::CpuThrottle], 40.0);
    assert_eq!(report.verdict.unwrap().answer.culprit, "shop/noisy");
    assert!(
        report
            .notes
            .iter()
            .any(|n| n.contains("stretch of lost time"))
    );
}

#[test]
fn the_verdict_is_the_slowest_hops_or_one_worth_telling() {
    let healthy = |n, parent, from, to| span(n, parent, from, to);
    let of = |spans| report(TRACE, spans).verdict.map(|v| v.service);
    let slow = with_verdict(healthy(3, 1, 60, 90), Cause::Runqueue, 0.9);
    assert_eq!(
        of(vec![
            healthy(1, 0, 0, 100),
            healthy(2, 1, 0, 60),
            slow.clone()
        ]),
        Some("s3".into())
    );
    // 0.9 of 3 ms is not what took 100 ms.
    let small = with_verdict(healthy(3, 1, 60, 63), Cause::Runqueue, 0.9);
    let report = report(
        TRACE,
        vec![healthy(1, 0, 0, 100), healthy(2, 1, 0, 60), small],
    );
    assert!(report.verdict.is_none());
    assert!(
        report.summary.contains("s2: op2 took 60.0 ms of 100 ms"),
        "{}",
        report.summary
    );
    assert!(
        report.summary.contains("no agent saw it"),
        "{}",
        report.summary
    );
}

#[test]
fn a_hundred_thousand_spans_deep_and_wide() {
    let n = 100_000;
    let deep = (1..=n).map(|i| span(i, i - 1, i, 2 * n - i)).collect();
    let deep = report(TRACE, deep);
    assert_eq!(deep.spans_total, n as usize);
    assert_eq!(deep.spans.len() + deep.spans_left_out, n as usize);
    let wide = (2..=n).map(|i| span(i, 1, i, i + 1));
    let wide = report(TRACE, wide.chain([span(1, 0, 0, n + 2)]).collect());
    assert_eq!(wide.spans_total, n as usize);
    assert!((wide.duration_ms - (n + 2) as f64).abs() < 1e-3);
    // Everything at once, all children running to the end.
    let fan = (2..=n).map(|i| span(i, 1, i % 1_000, n));
    let fan = analyse(fan.chain([span(1, 0, 0, n)]).collect());
    assert_eq!(
        fan.path.iter().map(super::Segment::length).sum::<i128>(),
        i128::from(n * MS)
    );
}

prop_compose! {
    fn any_span(max: u64)(
        n in 0..max, parent in 0..max + 2, from in 0u64..2_000, length in 0u64..1_000,
        kind in 0i32..7, node in 0u8..4, verdict in 0u8..5, wild in 0u8..40,
    ) -> TraceSpan {
        let mut s = span(n, parent, from, from + length);
        s.kind = kind;
        s.node = ["", "a", "b", "c"][usize::from(node)].into();
        match wild {
            0 => s.start_unix_ns = 0,
            1 => s.end_unix_ns = u64::MAX,
            2 => (s.start_unix_ns, s.end_unix_ns) = (u64::MAX, 0),
            3 => s.stretch = Some(Stretch {
                fault: Fault::Host,
                cause: Cause::Runqueue,
                start_unix_ns: s.start_unix_ns,
                end_unix_ns: s.end_unix_ns,
            }),
            _ => {}
        }
        if verdict == 0 { with_verdict(s, Cause::Runqueue, 0.6) } else { s }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_path_covers_its_time_exactly_whatever_comes(
        spans in prop::collection::vec(any_span(30), 0..60)
    ) {
        let analysis = analyse(spans);
        for pair in analysis.path.windows(2) {
            prop_assert_eq!(pair[0].end, pair[1].start);
        }
        for segment in &analysis.path {
            prop_assert!(segment.length() > 0);
            if let Some(index) = segment.span {
                let node = &analysis.nodes[index];
                prop_assert!(node.start <= segment.start && segment.end <= node.end);
            }
        }
        let mut seen = analysis.order.clone();
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..analysis.spans.len()).collect::<Vec<_>>());
        for node in &analysis.nodes {
            // What a verdict speaks of is the self time.
            prop_assert!(node.critical_ns <= node.self_ns);
            prop_assert!(0 <= node.self_ns && node.self_ns <= node.end - node.start);
        }
    }

    #[test]
    fn the_order_of_arrival_does_not_matter(
        (spans, shuffled) in prop::collection::vec(any_span(20), 0..40)
            .prop_flat_map(|spans| (Just(spans.clone()), Just(spans).prop_shuffle()))
    ) {
        prop_assert_eq!(report(TRACE, spans), report(TRACE, shuffled));
    }

    #[test]
    fn a_report_survives_its_json(spans in prop::collection::vec(any_span(20), 0..40)) {
        let report = report(TRACE, spans);
        let json = serde_json::to_string(&report).unwrap();
        let back: super::Report = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(report, back);
    }

    #[test]
    fn a_sound_trace_has_its_roots_time(cuts in prop::collection::vec(0u64..1_000, 1..30)) {
        // Each child lies within its parent: nobody is moved, nobody is left.
        let mut spans = vec![span(1, 0, 0, 1_000)];
        for (i, cut) in cuts.iter().enumerate() {
            let parent = &spans[*cut as usize % spans.len()];
            let from = (parent.start_unix_ns - DAY) / MS;
            let length = (parent.end_unix_ns - parent.start_unix_ns) / MS;
            let inside = from + cut % (length / 2 + 1);
            let end = (inside + length / 3).min(from + length);
            let parent = u64::from_be_bytes(parent.span_id);
            spans.push(span(i as u64 + 2, parent, inside, end));
        }
        let report = report(TRACE, spans);
        prop_assert!(report.notes.is_empty(), "{:?}", report.notes);
        let sum: f64 = report.critical_path.iter().map(|hop| hop.critical_ms).sum();
        prop_assert!((sum - 1_000.0).abs() < 1e-6, "{sum}");
    }
}

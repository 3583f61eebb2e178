//! Whatever comes in, what comes out adds up, costs a bounded amount and harms nobody.

use proptest::prelude::*;

use super::*;

#[test]
fn bad_spans_are_handed_on_unjudged() {
    let mut pipeline = pipeline();
    let good = span(1, 0, 0, 100);
    let spans = vec![
        SpanView {
            trace_id: [0; 16],
            ..good.clone()
        },
        SpanView {
            span_id: [0; 8],
            ..good.clone()
        },
        SpanView {
            start_unix_ns: 0,
            ..good.clone()
        },
        SpanView {
            end_unix_ns: 0,
            ..good.clone()
        },
        SpanView {
            end_unix_ns: good.start_unix_ns - 1,
            ..good.clone()
        },
        SpanView {
            end_unix_ns: u64::MAX,
            ..good.clone()
        },
        SpanView {
            start_unix_ns: 1,
            ..good.clone()
        },
        SpanView {
            parent_span_id: good.span_id,
            ..good.clone()
        },
        SpanView {
            name: 5..4_000_000_000,
            ..good.clone()
        },
        good,
    ];
    let count = spans.len();
    let all = judged(&mut pipeline, batch(at(200), Confidence::Process, spans));
    assert_eq!(all.len(), count);
    let judged: Vec<_> = all.iter().map(|j| j.split.is_some()).collect();
    assert_eq!(
        judged,
        [
            false, false, false, false, false, false, false, false, true, true
        ]
    );
    for (reason, n) in [
        ("no_ids", 2),
        ("no_time", 2),
        ("end_before_start", 1),
        ("future", 1),
        ("too_old", 1),
        ("own_parent", 1),
    ] {
        assert_eq!(unjudged(&pipeline, reason), n, "{reason}");
    }
    assert_eq!(pipeline.metrics.spans_joined.get(), count as u64);
}

#[test]
fn spans_of_no_resource_belong_to_nobody() {
    let mut pipeline = pipeline();
    let mut batch = batch(
        at(200),
        Confidence::Process,
        vec![span(1, 0, 0, 100), span(2, 0, 0, 100), span(3, 0, 0, 100)],
    );
    batch.resources[0].spans = 1..2;
    let all = judged(&mut pipeline, batch);
    let judged: Vec<_> = all.iter().map(|j| j.split.is_some()).collect();
    assert_eq!(judged, [false, true, false]);
}

#[test]
fn a_hundred_thousand_spans_of_the_same_ids_cost_a_bounded_amount() {
    let mut pipeline = pipeline();
    let twice = |id, parent| (0..50_000).map(move |_| span(id, parent, 0, 100));
    let spans = twice(2, 1).chain(twice(1, 2));
    let all = judged(
        &mut pipeline,
        batch(at(200), Confidence::Process, spans.collect()),
    );
    assert_eq!(all.len(), 100_000);
    // Each has 50 000 children, so the budget of the batch is used up after some of them.
    let done = all.iter().filter(|j| j.split.is_some()).count() as u64;
    assert!(done > 0 && done < 1_000, "{done}");
    assert_eq!(unjudged(&pipeline, "work_limit"), 100_000 - done);
}

#[test]
fn a_span_over_a_flood_of_delays_is_not_judged_by_a_part_of_them() {
    let mut pipeline = pipeline();
    let flood = (0..70_000).map(|n| Delay {
        start: MonoNs(MONO + n / 2 * 2_000),
        end: MonoNs(MONO + n / 2 * 2_000 + 1_000),
        tid: 1 + n as u32 % 2,
        ..delay(Cause::CpuThrottle, 0, 0)
    });
    feed(&mut pipeline, flood);
    // No request itself, so that the other has its time for itself.
    let wide = SpanView {
        kind: 1,
        ..span(1, 0, 0, 100)
    };
    let spans = vec![wide, span(2, 0, 10, 40)];
    let all = judged(&mut pipeline, batch(at(200), Confidence::Process, spans));
    assert!(all[0].split.is_none());
    assert_eq!(unjudged(&pipeline, "work_limit"), 1);
    let verdict = all[1].verdict.as_ref().expect("half of the time");
    assert!((verdict.share - 0.5).abs() < 1e-3);
    assert_eq!(all[1].intervals.len(), intervals::MAX_INTERVALS);
}

#[test]
fn what_was_lost_is_counted() {
    let mut pipeline = pipeline();
    feed(
        &mut pipeline,
        [
            delay(Cause::Runqueue, 50, 50),
            delay(Cause::Unexplained, 0, 50),
        ],
    );
    pipeline.on_event(&Event::Delay(delay(Cause::Runqueue, 0, 10)), at(300_000));
    assert_eq!(
        (
            dropped(&pipeline, "empty"),
            dropped(&pipeline, "not_a_delay")
        ),
        (1, 1)
    );
    assert_eq!(dropped(&pipeline, "too_old"), 1);
    assert_eq!(pipeline.metrics.timeline_intervals.get(), 0);
}

fn any_span() -> impl Strategy<Value = SpanView> {
    (0u8..6, 0u8..6, 0u64..500, 0u64..600, 0i32..6).prop_map(|(id, parent, start, end, kind)| {
        SpanView {
            kind,
            ..span(id, parent, start, end)
        }
    })
}

fn any_delay() -> impl Strategy<Value = Delay> {
    let cause = prop::sample::select(Cause::ALL);
    (cause, 0u64..600, 0u64..600).prop_map(|(cause, start, end)| delay(cause, start, end))
}

proptest! {
    /// Whatever comes in: the sums are exact, and child spans lie in their span's self time.
    #[test]
    fn what_comes_out_adds_up(
        spans in prop::collection::vec(any_span(), 0..12),
        delays in prop::collection::vec(any_delay(), 0..40),
        stolen_ns in 0..200 * MS,
    ) {
        let mut pipeline = pipeline();
        for delay in delays {
            pipeline.on_event(&Event::Delay(delay), at(600));
        }
        let steal = Steal { cpu: 0, start: at(0), end: at(150), stolen_ns };
        pipeline.on_event(&Event::Steal(steal), at(600));
        let all = judged(&mut pipeline, batch(at(600), Confidence::Process, spans.clone()));
        prop_assert_eq!(all.len(), spans.len());
        for (span, judgement) in spans.iter().zip(&all) {
            let Some(split) = &judgement.split else {
                prop_assert!(judgement.verdict.is_none() && judgement.intervals.is_empty());
                continue;
            };
            let duration = span.end_unix_ns - span.start_unix_ns;
            prop_assert_eq!(split.parts.iter().map(|(_, ns)| ns).sum::<u64>(), split.self_time_ns);
            prop_assert_eq!(split.self_time_ns + split.downstream_ns, duration);
            let Some(verdict) = &judgement.verdict else {
                prop_assert!(judgement.intervals.is_empty());
                continue;
            };
            prop_assert!(verdict.share > 0.0 && verdict.share <= 1.0);
            prop_assert!(judgement.intervals.len() <= intervals::MAX_INTERVALS);
            prop_assert!(judgement.intervals.windows(2).all(|w| w[0].start <= w[1].start));
            for interval in &judgement.intervals {
                prop_assert!(interval.start.0 >= span.start_unix_ns);
                prop_assert!(interval.end.0 <= span.end_unix_ns);
                prop_assert!(interval.cause_ns > 0);
                prop_assert!(interval.cause_ns <= interval.end.0 - interval.start.0);
            }
            for (cause, ns) in &split.parts {
                let of_cause = judgement.intervals.iter().filter(|i| i.cause == *cause);
                let sum: u64 = of_cause.map(|i| i.cause_ns).sum();
                prop_assert!(sum == *ns || (sum < *ns && *cause != verdict.cause), "{} {} {}", cause, sum, ns);
            }
        }
    }
}

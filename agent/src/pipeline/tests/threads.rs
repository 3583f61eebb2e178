//! Which thread a request was on, and what is shared where that is not known.

use proptest::prelude::*;

use super::*;
use crate::event::{Away, ThreadContext, Turn};

/// A turn of a thread, in milliseconds from the start of the test.
pub(super) fn turn(tid: u32, read_ms: u64, written_ms: u64) -> Event {
    Event::Turn(Turn {
        process: process(PID),
        tid,
        read: at(read_ms),
        written: at(written_ms),
        is_whole: true,
    })
}

pub(super) fn unsure(tid: u32, read_ms: u64, written_ms: u64) -> Event {
    let Event::Turn(turn) = turn(tid, read_ms, written_ms) else {
        unreachable!("made above");
    };
    Event::Turn(Turn {
        is_whole: false,
        ..turn
    })
}

pub(super) fn of_thread(tid: u32, cause: Cause, start_ms: u64, end_ms: u64) -> Event {
    Event::Delay(Delay {
        tid,
        ..delay(cause, start_ms, end_ms)
    })
}

/// A server span that began and ended a little after the start of the millisecond: its clock
/// is no coarse one.
pub(super) fn request(id: u8, start_ms: u64, end_ms: u64) -> SpanView {
    let mut span = span(id, 0, start_ms, end_ms);
    span.trace_id = [id; 16];
    span.start_unix_ns += 300_001;
    span.end_unix_ns += 300_001;
    span
}

fn inside(id: u8, outer: &SpanView, start_ms: u64, end_ms: u64) -> SpanView {
    SpanView {
        trace_id: outer.trace_id,
        parent_span_id: outer.span_id,
        kind: 1,
        ..request(id, start_ms, end_ms)
    }
}

fn judge(events: Vec<Event>, spans: Vec<SpanView>) -> Vec<Judgement> {
    let mut pipeline = pipeline();
    for event in events {
        pipeline.on_event(&event, at(2_000));
    }
    judged(&mut pipeline, batch(at(2_000), Confidence::Process, spans))
}

pub(super) fn part(judgement: &Judgement, cause: Cause) -> u64 {
    let split = judgement.split.as_ref().expect("it is judged");
    let part = split.parts.iter().find(|(c, _)| *c == cause);
    part.map_or(0, |(_, ns)| *ns)
}

#[test]
fn only_the_thread_of_the_request_counts() {
    let slow = request(1, 100, 300);
    let sleeps = request(2, 150, 252);
    let judged = judge(
        vec![
            turn(7, 99, 301),
            turn(8, 149, 253),
            of_thread(7, Cause::CpuThrottle, 110, 290),
            of_thread(8, Cause::Sleep, 152, 251),
        ],
        vec![inside(3, &slow, 105, 295), slow, sleeps],
    );
    for judgement in &judged {
        assert_eq!(judgement.joined.confidence, Confidence::ThreadInferred);
    }
    let threads: Vec<_> = judged.iter().map(|j| j.thread).collect();
    assert_eq!(threads, [Some(7), Some(7), Some(8)]);
    let cause = |at: usize| judged[at].verdict.as_ref().map(|v| v.cause);
    assert_eq!(cause(0), Some(Cause::CpuThrottle));
    assert_ne!(cause(2), Some(Cause::CpuThrottle));
    assert_eq!(part(&judged[2], Cause::CpuThrottle), 0);
    assert_eq!(part(&judged[2], Cause::Sleep), 99 * MS);
}

/// `(what, events, the thread that is named)`, of a request from 100.3 to 200.3 ms.
#[test]
fn a_thread_is_named_only_where_no_other_can_be_meant() {
    let table: Vec<(&str, Vec<Event>, Option<u32>)> = vec![
        ("nothing seen", vec![], None),
        ("one fits", vec![turn(7, 100, 201)], Some(7)),
        ("written inside", vec![turn(7, 100, 198)], Some(7)),
        (
            "written twice",
            vec![turn(7, 100, 197), turn(7, 100, 200)],
            Some(7),
        ),
        ("two fit", vec![turn(7, 100, 201), turn(8, 99, 200)], None),
        ("read too early", vec![turn(7, 90, 201)], None),
        ("read after the start", vec![turn(7, 103, 201)], None),
        ("written too late", vec![turn(7, 100, 220)], None),
        (
            "read early, but held up until the start",
            vec![turn(7, 40, 201), of_thread(7, Cause::CpuThrottle, 41, 100)],
            Some(7),
        ),
        (
            "held up before it could write, while another wrote in time",
            vec![
                turn(7, 40, 260),
                of_thread(7, Cause::Runqueue, 41, 100),
                of_thread(7, Cause::CpuThrottle, 202, 259),
                turn(8, 98, 203),
                of_thread(8, Cause::Runqueue, 99, 110),
            ],
            Some(7),
        ),
        (
            "an event loop's also fits",
            vec![turn(7, 100, 201), unsure(9, 99, 202)],
            None,
        ),
        (
            "handed over",
            vec![turn(7, 100, 203), unsure(9, 201, 201)],
            None,
        ),
        ("only an event loop's", vec![unsure(9, 99, 202)], None),
    ];
    for (what, events, expected) in table {
        // Elsewhere another thread answers too: this is no server of one thread.
        let elsewhere = [turn(77, 900, 901), turn(78, 900, 901)];
        let events = events.into_iter().chain(elsewhere).collect();
        let judged = judge(events, vec![request(1, 100, 200)]);
        assert_eq!(judged[0].thread, expected, "{what}");
    }
}

#[test]
fn a_span_of_another_thread_inside_the_request_is_not_on_its_thread() {
    let outer = request(1, 100, 300);
    let judged = judge(
        vec![
            turn(7, 100, 301),
            turn(77, 900, 901),
            of_thread(7, Cause::LockWait, 120, 280),
        ],
        vec![
            inside(2, &outer, 150, 250), // while the request's thread waits
            inside(3, &outer, 119, 281),
            outer,
        ],
    );
    let threads: Vec<_> = judged.iter().map(|j| j.thread).collect();
    assert_eq!(threads, [None, Some(7), Some(7)]);
    assert_eq!(judged[0].joined.confidence, Confidence::Process);
}

#[test]
fn a_coarse_clock_is_allowed_for() {
    let mut span = request(1, 100, 200);
    span.start_unix_ns = WALL + 100 * MS; // it was 100.9
    span.end_unix_ns = WALL + 200 * MS + 123;
    let read = |tenths: u64| MonoNs(MONO + tenths * MS / 10);
    let events = vec![
        Event::Turn(Turn {
            process: process(PID),
            tid: 7,
            read: read(1_008),
            written: read(2_010),
            is_whole: true,
        }),
        turn(77, 900, 901),
    ];
    assert_eq!(judge(events, vec![span])[0].thread, Some(7));
}

#[test]
fn what_holds_an_event_loop_holds_all_its_requests() {
    let events = vec![
        unsure(7, 100, 302),
        unsure(7, 110, 312),
        of_thread(7, Cause::CpuThrottle, 150, 290),
        of_thread(8, Cause::LockWait, 50, 1_000),
    ];
    let judged = judge(events, vec![request(1, 100, 300), request(2, 110, 310)]);
    for judgement in &judged {
        assert_eq!(judgement.joined.confidence, Confidence::Process);
        assert_eq!(part(judgement, Cause::CpuThrottle), 140 * MS);
        assert_eq!(part(judgement, Cause::LockWait), 0);
    }
}

#[test]
fn slow_code_of_an_event_loop_holds_all_its_requests_up() {
    let mut pipeline = pipeline();
    let mut said = |from: u64, ms: u64, beside: bool| {
        // It answers out of turn, as event loops do.
        let events = [
            unsure(7, from, from + ms),
            of_thread(7, Cause::OnCpu, from, from + ms),
        ];
        for event in events {
            pipeline.on_event(&event, at(from + ms));
        }
        let mut spans = vec![request(1, from, from + ms)];
        if beside {
            spans.push(request(2, from + 1, from + ms));
        }
        let spans = batch(at(from + ms), Confidence::Process, spans);
        let judgement = judged(&mut pipeline, spans).remove(0);
        let verdict = judgement.verdict.as_ref();
        verdict.map(|verdict| {
            let said = verdict.summary.strip_prefix("100 % of 300 ms: ");
            let said = said.and_then(|said| said.split_once(" (usually "));
            (
                verdict.cause,
                said.expect("a sentence with both").0.to_owned(),
            )
        })
    };
    for n in 1..40 {
        assert_eq!(said(n * 1_000, 10, false), None);
    }
    let of = |what: &str| Some((Cause::OnCpu, what.to_owned()));
    let loops = "its event loop was running code, of this request or another";
    assert_eq!(said(50_000, 300, true), of(loops));
    assert_eq!(said(60_000, 300, false), of("its own code was running"));
}

#[test]
fn who_ran_at_both_ends_made_the_span() {
    let judged = judge(
        vec![
            of_thread(7, Cause::OnCpu, 90, 120),
            of_thread(7, Cause::CpuThrottle, 120, 190),
            of_thread(7, Cause::OnCpu, 190, 210),
            // Active in between: nobody knows what it did at the ends.
            of_thread(8, Cause::OnCpu, 130, 140),
            of_thread(8, Cause::LockWait, 140, 160),
        ],
        vec![request(1, 100, 200)],
    );
    assert_eq!(part(&judged[0], Cause::CpuThrottle), 70 * MS);
    assert_eq!(part(&judged[0], Cause::OnCpu), 30 * MS);
}

#[test]
fn a_correction_of_the_clock_makes_no_second_request() {
    let mut pipeline = pipeline();
    for event in [
        turn(7, 100, 201),
        turn(77, 900, 901),
        of_thread(7, Cause::CpuThrottle, 110, 190),
    ] {
        pipeline.on_event(&event, at(2_000));
    }
    pipeline.on_batch(batch(
        at(2_000),
        Confidence::Process,
        vec![request(1, 100, 200)],
    ));
    pipeline.sample_clock(at(2_100), UnixNs(WALL + 2_100 * MS + 70_000));
    let mut all = Vec::new();
    pipeline.settle(at(2_500), &mut |_, mut judged| all.append(&mut judged));
    assert_eq!(all[0].thread, Some(7));
    assert_eq!(part(&all[0], Cause::CpuThrottle), 80 * MS);
}

#[test]
fn what_cannot_be_told_apart_is_shared() {
    // Four requests at once, one thread held back: nobody knows whose it is.
    let spans: Vec<_> = (1..=4).map(|id| request(id, 100, 200)).collect();
    let judged = judge(vec![of_thread(7, Cause::CpuThrottle, 120, 180)], spans);
    for judgement in &judged {
        assert_eq!(part(judgement, Cause::CpuThrottle), 15 * MS);
        assert_eq!(part(judgement, Cause::Unexplained), 85 * MS);
        assert!(judgement.verdict.is_none(), "nobody's share is that large");
    }
}

#[test]
fn a_thread_that_is_away_when_a_span_begins_did_not_make_it() {
    let judged = judge(
        vec![
            of_thread(7, Cause::Sleep, 101, 199),
            of_thread(8, Cause::CpuThrottle, 50, 180),
            of_thread(8, Cause::CpuThrottle, 190, 290),
        ],
        vec![request(1, 100, 200)],
    );
    assert_eq!(part(&judged[0], Cause::CpuThrottle), 0);
    assert_eq!(part(&judged[0], Cause::Sleep), 98 * MS);
}

proptest! {
    /// However spans, delays and turns lie: parts add up to the self time, and no delay is
    /// given out more than once.
    #[test]
    fn a_delay_is_given_out_once(
        spans in prop::collection::vec((0u64..300, 1u64..300), 1..12),
        delays in prop::collection::vec((0usize..4, 1u32..6, 0u64..500, 1u64..200), 0..40),
        turns in prop::collection::vec((1u32..6, 0u64..500, 1u64..300, any::<bool>()), 0..12),
    ) {
        const CAUSES: [Cause; 4] =
            [Cause::CpuThrottle, Cause::Runqueue, Cause::OnCpu, Cause::LockWait];
        // A server of several threads: what holds an event loop counts for all of it.
        let mut events = vec![unsure(98, 600, 601), unsure(99, 600, 601)];
        events.extend(turns.into_iter().map(|(tid, read, length, whole)| {
            if whole { turn(tid, read, read + length) } else { unsure(tid, read, read + length) }
        }));
        let mut busy_until = [0u64; 6];
        let mut lost = [0u64; 4];
        for (cause, tid, start, length) in delays {
            // A thread is in one state at a time.
            let start = start.max(busy_until[tid as usize]);
            busy_until[tid as usize] = start + length;
            lost[cause] += length * MS;
            events.push(of_thread(tid, CAUSES[cause], start, start + length));
        }
        let spans: Vec<_> = spans
            .into_iter()
            .zip(1u8..)
            .map(|((start, length), id)| request(id, start, start + length))
            .collect();
        let judged = judge(events, spans);
        for judgement in &judged {
            let split = judgement.split.as_ref().unwrap();
            let sum: u64 = split.parts.iter().map(|(_, ns)| ns).sum();
            prop_assert_eq!(sum, split.self_time_ns);
        }
        for (cause, lost) in CAUSES.into_iter().zip(lost) {
            let given: u64 = judged.iter().map(|j| part(j, cause)).sum();
            // Where a wait and a run share an instant, the rounding is up to a nanosecond.
            prop_assert!(given <= lost + 1_000, "{} of {} {}", given, lost, cause);
        }
    }
}

fn at_work_on(span: &SpanView, tid: u32, start_ms: u64, end_ms: u64) -> Event {
    let mut trace = [0; 8];
    trace.copy_from_slice(&span.trace_id[8..]);
    away(tid, start_ms, end_ms, trace, span.span_id)
}

fn away(tid: u32, start_ms: u64, end_ms: u64, trace: [u8; 8], span: [u8; 8]) -> Event {
    Event::Away(Away {
        process: process(PID),
        tid,
        start: at(start_ms),
        end: at(end_ms),
        context: ThreadContext {
            trace,
            span,
            is_trace_only: false,
        },
    })
}

#[test]
fn what_a_program_says_of_its_threads_counts_first() {
    let (one, two, quick) = (
        request(1, 100, 400),
        request(2, 100, 400),
        request(3, 190, 210),
    );
    let judged = judge(
        vec![
            // Two threads turn from one request to the other.
            at_work_on(&one, 7, 110, 200),
            of_thread(7, Cause::CpuThrottle, 110, 190),
            of_thread(7, Cause::Runqueue, 190, 200),
            at_work_on(&two, 8, 120, 180),
            of_thread(8, Cause::CpuThrottle, 120, 180),
            at_work_on(&two, 7, 210, 300),
            of_thread(7, Cause::CpuThrottle, 210, 300),
            // Between two looks that agree, and two that do not.
            of_thread(7, Cause::OnCpu, 300, 310),
            at_work_on(&two, 7, 310, 320),
            of_thread(7, Cause::OnCpu, 200, 210),
            // By the threads' turns another would be meant.
            turn(8, 99, 401),
        ],
        vec![one, two, quick],
    );
    let joins: Vec<_> = judged.iter().map(|j| j.joined.confidence).collect();
    let thread = Confidence::Thread;
    assert_eq!(joins, [thread, thread, Confidence::Process]);
    assert_eq!(judged[0].thread, Some(7));
    assert_eq!(judged[1].thread, None, "it was on two");
    assert_eq!(part(&judged[0], Cause::CpuThrottle), 80 * MS);
    assert_eq!(part(&judged[0], Cause::Runqueue), 10 * MS);
    assert_eq!(part(&judged[1], Cause::CpuThrottle), 150 * MS);
    assert_eq!(part(&judged[1], Cause::OnCpu), 10 * MS);
    // Both threads worked on others' requests meanwhile.
    assert_eq!(part(&judged[2], Cause::CpuThrottle), 0);
    let causes = |at: usize| judged[at].verdict.as_ref().map(|v| v.cause);
    assert_eq!(causes(1), Some(Cause::CpuThrottle));
}

#[test]
fn spans_inside_that_are_not_sent_are_the_requests_own() {
    let (slow, other) = (request(1, 100, 400), request(2, 100, 400));
    let not_sent = inside(9, &slow, 110, 300);
    let events = || {
        vec![
            at_work_on(&not_sent, 7, 110, 290),
            of_thread(7, Cause::LockWait, 110, 290),
        ]
    };
    let judged = judge(events(), vec![slow.clone(), other.clone()]);
    assert_eq!(judged[0].joined.confidence, Confidence::Thread);
    assert_eq!(part(&judged[0], Cause::LockWait), 180 * MS);
    assert_eq!(part(&judged[1], Cause::LockWait), 0);
    // Two requests of one trace: it may be inside of either.
    let twin = SpanView {
        trace_id: slow.trace_id,
        ..other
    };
    let judged = judge(events(), vec![slow, twin]);
    assert_ne!(judged[0].joined.confidence, Confidence::Thread);
    let shared: u64 = judged.iter().map(|j| part(j, Cause::LockWait)).sum();
    assert!(shared <= 180 * MS);
}

#[test]
fn what_holds_a_loop_that_publishes_holds_all_its_requests() {
    let (one, two) = (request(1, 100, 400), request(2, 100, 400));
    let judged = judge(
        vec![
            turn(7, 99, 401),
            at_work_on(&one, 7, 110, 200),
            of_thread(7, Cause::CpuThrottle, 110, 200),
            at_work_on(&two, 7, 210, 300),
            of_thread(7, Cause::CpuThrottle, 210, 300),
        ],
        vec![one, two],
    );
    for judgement in judged {
        assert_eq!(judgement.joined.confidence, Confidence::Thread);
        assert_eq!(part(&judgement, Cause::CpuThrottle), 180 * MS);
    }
}

//! Whom a span waited for.

use super::{
    threads::{of_thread, part, request, turn},
    *,
};

/// Thirty requests of 10 ms, so that what is usual is known.
fn learned() -> Pipeline {
    let mut pipeline = pipeline();
    let mut spans = Vec::new();
    for n in 0..30 {
        let start = 100 + u64::from(n) * 20;
        pipeline.on_event(&turn(8, start - 1, start + 11), at(2_000));
        spans.push(request(n + 1, start, start + 10));
    }
    judged(&mut pipeline, batch(at(2_000), Confidence::Process, spans));
    pipeline
}

/// After those one on thread 8 that waits for 200 ms, while `others` happen.
fn waits(cause: Cause, others: &[Event]) -> Judgement {
    let mut pipeline = learned();
    let own = [turn(8, 2_999, 3_211), of_thread(8, cause, 3_005, 3_205)];
    for event in own.iter().chain(others) {
        pipeline.on_event(event, at(3_300));
    }
    let slow = vec![request(99, 3_000, 3_210)];
    let mut slow = judged(&mut pipeline, batch(at(3_300), Confidence::Process, slow));
    slow.remove(0)
}

fn named(judgement: &Judgement) -> Option<(Cause, Fault)> {
    let verdict = judgement.verdict.as_ref();
    verdict.map(|v| (v.cause, v.fault))
}

#[test]
fn who_waits_for_a_thread_that_is_held_back_is_held_back() {
    let held = |cause| of_thread(7, cause, 2_900, 3_150);
    for (wait, cause, fault) in [
        (Cause::LockWait, Cause::CpuThrottle, Fault::L3),
        (Cause::LockWait, Cause::BlockThrottle, Fault::L3),
        (Cause::Sleep, Cause::BlockThrottle, Fault::L3),
        (Cause::LockWait, Cause::Runqueue, Fault::Host),
    ] {
        let judgement = waits(wait, &[held(cause)]);
        assert_eq!(named(&judgement), Some((cause, fault)), "{wait} {cause}");
        // From the wait's start to the end of what held the other back.
        assert_eq!(part(&judgement, cause), 145 * MS);
        assert_eq!(part(&judgement, wait), 55 * MS);
        let split = judgement.split.as_ref().expect("it is judged");
        let sum: u64 = split.parts.iter().map(|(_, ns)| ns).sum();
        assert_eq!(sum, split.self_time_ns);
        assert!(judgement.intervals.iter().any(|i| i.cause == cause));
        let verdict = judgement.verdict.as_ref().expect("compared above");
        let words = "% of 210 ms: waited for another thread of its process: ";
        assert!(verdict.summary.contains(words), "{}", verdict.summary);
    }
}

#[test]
fn who_waits_for_a_thread_that_goes_on_is_slow_by_its_program() {
    for others in [
        vec![],
        // It runs, or waits itself.
        vec![of_thread(7, Cause::OnCpu, 3_000, 3_210)],
        vec![of_thread(7, Cause::Sleep, 3_000, 3_210)],
        // Held back for less than half of the wait, or before it.
        vec![of_thread(7, Cause::CpuThrottle, 3_000, 3_090)],
        vec![of_thread(7, Cause::CpuThrottle, 2_500, 3_004)],
    ] {
        for wait in [Cause::LockWait, Cause::Sleep] {
            let judgement = waits(wait, &others);
            assert_eq!(named(&judgement), Some((wait, Fault::App)), "{others:?}");
            assert_eq!(part(&judgement, wait), 200 * MS);
            assert_eq!(part(&judgement, Cause::CpuThrottle), 0);
            let own = |interval: &crate::verdict::CauseInterval| interval.cause == wait;
            assert!(judgement.intervals.iter().all(own));
        }
    }
}

/// A request of 300 ms: what it did itself is none of it enough for a verdict, and half of its wait
/// for a lock was because the other was held back too.
#[test]
fn what_is_told_of_no_thread_alone_is_told_of_those_waited_for() {
    let judge = |mut pipeline: Pipeline, cause, until| {
        let events = [
            turn(8, 2_999, 3_311),
            of_thread(8, cause, 3_005, 3_055),
            of_thread(8, Cause::OnCpu, 3_055, 3_200),
            of_thread(8, Cause::LockWait, 3_200, 3_300),
            of_thread(7, cause, 3_150, until),
        ];
        for event in &events {
            pipeline.on_event(event, at(3_400));
        }
        let slow = vec![request(99, 3_000, 3_310)];
        judged(&mut pipeline, batch(at(3_400), Confidence::Process, slow)).remove(0)
    };
    let whole = judge(learned(), Cause::CpuThrottle, 3_260);
    assert_eq!(named(&whole), Some((Cause::CpuThrottle, Fault::L3)));
    assert_eq!(part(&whole, Cause::CpuThrottle), 110 * MS);
    for (own, cause) in [
        // Too little of the wait.
        (
            judge(learned(), Cause::CpuThrottle, 3_220),
            Cause::CpuThrottle,
        ),
        // It may wait like that each time.
        (
            judge(pipeline(), Cause::CpuThrottle, 3_300),
            Cause::CpuThrottle,
        ),
        // Of a wait for a CPU only the span's own thread's is told.
        (judge(learned(), Cause::Runqueue, 3_300), Cause::Runqueue),
    ] {
        assert_eq!(named(&own), None, "{cause}");
        assert_eq!(part(&own, cause), 50 * MS, "{cause}");
    }
}

#[test]
fn another_processs_threads_are_not_waited_for() {
    let Event::Delay(delay) = of_thread(7, Cause::CpuThrottle, 2_900, 3_205) else {
        unreachable!("made above");
    };
    let other = Event::Delay(Delay {
        process: process(PID + 1),
        ..delay
    });
    let judgement = waits(Cause::LockWait, &[other]);
    assert_eq!(named(&judgement), Some((Cause::LockWait, Fault::App)));
}

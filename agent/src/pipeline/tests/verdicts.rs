//! What is said about spans, and what belongs together.

use super::*;
use crate::event::{Consumption, Disk, Loss, Resource, Saving, SystemCall};

#[test]
fn verdicts_of_one_quota_are_one_incident_until_it_is_quiet() {
    let run = || {
        let mut pipeline = pipeline();
        let mut names = Vec::new();
        for from in [0, 1_000, 60_000, 400_000, 401_000] {
            feed(&mut pipeline, throttled_periods(from, 4));
            let spans = vec![span(9, 0, from, from + 400)];
            let spans = batch(at(from + 400), Confidence::Process, spans);
            let judgement = judged(&mut pipeline, spans).remove(0);
            names.push(judgement.verdict.expect("held back").incident.clone());
        }
        names
    };
    let names = run();
    assert!(
        names[0].starts_with("i-") && names[0].len() == 18,
        "{names:?}"
    );
    assert_eq!(
        names[..3],
        [names[0].clone(), names[0].clone(), names[0].clone()]
    );
    assert_ne!(names[3], names[0]);
    assert_eq!(names[3], names[4]);
    assert_eq!(names, run(), "the same of the same input");
}

/// A refusal takes no time; what it costs are the pauses between the tries.
#[test]
fn a_system_call_refused_again_and_again_is_the_reason() {
    let refused = |at_ms| Delay {
        particulars: Particulars::SystemCall(Arc::new(SystemCall {
            name: "openat".into(),
            action: "errno".into(),
        })),
        ..delay(Cause::SeccompDenied, at_ms, at_ms)
    };
    let mut pipeline = pipeline();
    let pauses = (0..9).map(|n| delay(Cause::Sleep, 111 + 10 * n, 119 + 10 * n));
    let tries = (0..10).map(|n| refused(110 + 10 * n));
    feed(&mut pipeline, tries.chain(pauses));
    let spans = vec![span(9, 0, 100, 210)];
    let judgement = judged(
        &mut pipeline,
        batch(at(210), Confidence::ThreadInferred, spans),
    )
    .remove(0);
    let verdict = judgement.verdict.expect("it could not go on");
    assert_eq!(
        (verdict.fault, verdict.cause),
        (Fault::L3, Cause::SeccompDenied)
    );
    assert_eq!(
        verdict.summary,
        "82 % of 110 ms: a seccomp filter refused openat to cart"
    );
    let split = judgement.split.expect("judged");
    assert_eq!(split.part(Cause::SeccompDenied), 90 * MS);

    feed(&mut pipeline, [refused(1_110), refused(1_190)]);
    let spans = vec![span(8, 0, 1_100, 1_200)];
    let judgement = judged(
        &mut pipeline,
        batch(at(1_200), Confidence::ThreadInferred, spans),
    )
    .remove(0);
    assert_eq!(judgement.verdict, None, "twice is no loop");
}

/// The journal that an `fsync` waits for may wait for a CPU itself.
#[test]
fn a_wait_of_which_only_the_call_is_known_is_news_beyond_the_usual_only() {
    let fsync = |from_ms, to_ms| Delay {
        particulars: Particulars::SystemCall(Arc::new(SystemCall {
            name: "fsync".into(),
            action: String::new(),
        })),
        ..delay(Cause::BlockQueue, from_ms, to_ms)
    };
    let mut pipeline = pipeline();
    for n in 0..40 {
        let from = n * 1_000;
        feed(&mut pipeline, [fsync(from + 10, from + 40)]);
        let spans = vec![span(9, 0, from, from + 50)];
        let spans = batch(at(from + 50), Confidence::Process, spans);
        assert_eq!(judged(&mut pipeline, spans)[0].verdict, None, "as always");
    }
    let used = |from_ms, us| {
        Event::Consumption(Consumption {
            resource: Resource::Disk(Arc::new(Disk {
                name: "vda".into(),
                paravirtual: false,
            })),
            start: at(from_ms),
            end: at(from_ms + 200),
            amount: us,
            cgroup_id: 80,
            consumer: None,
        })
    };
    let mut slow = |from, disk: Option<u64>| {
        feed(&mut pipeline, [fsync(from + 10, from + 190)]);
        if let Some(us) = disk {
            pipeline.on_event(&used(from, us), at(from + 200));
        }
        let spans = batch(
            at(from + 200),
            Confidence::Process,
            vec![span(9, 0, from, from + 200)],
        );
        let verdict = judged(&mut pipeline, spans).remove(0).verdict;
        verdict.map(|verdict| (verdict.fault, verdict.cause))
    };
    let disk = Some((Fault::Host, Cause::BlockQueue));
    assert_eq!(slow(90_000, None), disk, "six times as long");
    assert_eq!(slow(91_000, Some(190_000)), disk, "the disk was busy");
    assert_eq!(slow(92_000, Some(20_000)), None, "no disk was");
}

#[test]
fn a_verdict_says_that_events_were_lost_meanwhile() {
    let mut pipeline = pipeline();
    feed(&mut pipeline, throttled_periods(0, 4));
    let loss = |from_ms, to_ms, events| {
        Event::Loss(Loss {
            start: at(from_ms),
            end: at(to_ms),
            events,
        })
    };
    pipeline.on_event(&loss(300, 350, 30), at(400));
    pipeline.on_event(&loss(500, 600, 7), at(600));
    let spans = vec![span(9, 0, 0, 400)];
    let judgement = judged(&mut pipeline, batch(at(400), Confidence::Process, spans)).remove(0);
    let verdict = judgement.verdict.expect("held back");
    let said = "; 30 kernel events of that time were lost";
    assert!(verdict.summary.ends_with(said), "{}", verdict.summary);
    let lost = ("events_lost".to_owned(), 30.0);
    assert!(verdict.evidence.contains(&lost), "{:?}", verdict.evidence);
}

#[test]
fn a_verdict_says_which_sensors_told_less_meanwhile() {
    use agent_common::event::sensor::{SECCOMP, WAIT};

    let mut pipeline = pipeline();
    feed(&mut pipeline, throttled_periods(0, 4));
    for (sensor, from_ms, to_ms) in [(WAIT, 100, 1_300), (SECCOMP, 350, 1_550)] {
        let saving = Event::Saving(Saving {
            sensor,
            start: at(from_ms),
            end: at(to_ms),
        });
        pipeline.on_event(&saving, at(from_ms));
    }
    let mut summary = |from, to| {
        let spans = vec![span(9, 0, from, to)];
        let spans = batch(at(400), Confidence::Process, spans);
        let verdict = judged(&mut pipeline, spans).remove(0).verdict;
        verdict.expect("held back")
    };
    let verdict = summary(0, 400);
    let said = "; to save cost, less is known by seccomp, wait";
    assert!(verdict.summary.ends_with(said), "{}", verdict.summary);
    let sensors = ("sensors_saving".to_owned(), 2.0);
    assert!(
        verdict.evidence.contains(&sensors),
        "{:?}",
        verdict.evidence
    );
    let before = summary(0, 100);
    assert!(!before.summary.contains("less is"), "{}", before.summary);
}

#[test]
fn a_slow_callee_and_slow_code_are_told_once_it_is_known_what_is_usual() {
    let mut pipeline = pipeline();
    let mut verdict = |from: u64, self_ms: u64, child_ms: u64| {
        let end = from + self_ms + child_ms;
        feed(&mut pipeline, [delay(Cause::OnCpu, from, from + self_ms)]);
        let callee = SpanView {
            name: 0..3, // another operation
            ..span(8, 9, from + self_ms, end)
        };
        let spans = vec![span(9, 0, from, end), callee];
        let spans = batch(at(end), Confidence::ThreadInferred, spans);
        judged(&mut pipeline, spans)[0].verdict.clone()
    };
    assert_eq!(verdict(0, 20, 400), None, "nothing is usual yet");
    for n in 1..40 {
        assert_eq!(verdict(n * 1_000, 10, 20), None);
    }
    let callee = verdict(50_000, 10, 400).expect("its callee is slow");
    assert_eq!(
        (callee.fault, callee.cause),
        (Fault::Downstream, Cause::Downstream)
    );
    assert!((callee.share - 400.0 / 410.0).abs() < 1e-9, "of all of it");
    let code = verdict(60_000, 300, 20).expect("its code is slow");
    assert_eq!((code.fault, code.cause), (Fault::App, Cause::OnCpu));
    assert_eq!(
        code.summary,
        "100 % of 300 ms: its own code was running (usually 10 ms)"
    );
}

#[test]
fn a_peer_that_had_not_begun_is_told_from_one_that_answered_late() {
    let mut pipeline = pipeline();
    let mut said = |from: u64, before_ms: u64, after_ms: u64| {
        let (began, ended) = (from + before_ms, from + before_ms + 20);
        let end = ended + after_ms;
        feed(&mut pipeline, [delay(Cause::SocketWait, from, end)]);
        let trace_id = u128::from(from + 1).to_be_bytes();
        let call = SpanView {
            trace_id,
            kind: 3,
            ..span(9, 0, from, end)
        };
        let callee = SpanView {
            trace_id,
            name: 0..3,
            ..span(8, 9, began, ended)
        };
        let spans = batch(at(end), Confidence::ThreadInferred, vec![call, callee]);
        let verdict = judged(&mut pipeline, spans)[0].verdict.clone();
        verdict.map(|verdict| verdict.summary.clone())
    };
    for n in 0..40 {
        assert_eq!(said(n * 1_000, 2, 2), None);
    }
    for (before_ms, after_ms, expected) in [
        (90, 10, "waited until a peer began with the request"),
        (10, 90, "waited for a peer's answer"),
    ] {
        let sentence = format!("100 % of 100 ms: {expected} (usually 4.0 ms)");
        assert_eq!(
            said(50_000 + before_ms * 100, before_ms, after_ms),
            Some(sentence)
        );
    }
}

//! The whole stage: events and batches in, judgements out.

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::{
    event::{Delay, Limiter, Particulars, Steal},
    metrics::Reason,
    process::{Identity, ProcessKey},
    span::{Joined, Resource, ResourceSpans, SpanView},
    stack::{Stack, StackEntry},
    vocabulary::{Cause, Fault, Layer},
    workload::Workload,
};

mod asks;
mod bad_input;
mod behind;
mod held;
mod hostile;
mod page_faults;
mod symptoms;
mod threads;
mod verdicts;

const MS: u64 = 1_000_000;
const S: u64 = 1_000 * MS;
/// Monotonic time at which the pipeline starts, and the wall time of that moment.
const MONO: u64 = 5_000 * S;
const WALL: u64 = 1_795_334_400 * S;
const PID: u32 = 4_711;

fn pipeline() -> Pipeline {
    let clock = WallClock::new(MonoNs(MONO), UnixNs(WALL));
    Pipeline::new(PipelineConfig::default(), clock, AgentMetrics::default())
}

fn at(ms: u64) -> MonoNs {
    MonoNs(MONO + ms * MS)
}

fn process(pid: u32) -> ProcessKey {
    ProcessKey {
        pid,
        start_ticks: 99,
    }
}

fn identity() -> Identity {
    Identity {
        process: process(PID),
        comm: "cart".into(),
        cgroup_id: 70,
        cgroup_path: "/shop/cart".into(),
        workload: Workload {
            container: "cart".into(),
            ..Workload::default()
        },
        stack: Stack(vec![StackEntry {
            layer: Layer::Container,
            technology: "runc".into(),
            evidence: String::new(),
        }]),
    }
}

fn joined(confidence: Confidence) -> Joined {
    let identity = (confidence != Confidence::Host).then(|| Arc::new(identity()));
    Joined {
        identity,
        confidence,
    }
}

/// A span by its times in milliseconds from the start of the test.
fn span(id: u8, parent: u8, start_ms: u64, end_ms: u64) -> SpanView {
    SpanView {
        trace_id: [1; 16],
        span_id: [id; 8],
        parent_span_id: [parent; 8],
        start_unix_ns: WALL + start_ms * MS,
        end_unix_ns: WALL + end_ms * MS,
        kind: 2,
        name: 0..9,
        ..SpanView::default()
    }
}

fn batch(received: MonoNs, confidence: Confidence, spans: Vec<SpanView>) -> SpanBatch {
    SpanBatch {
        payload: Bytes::from_static(b"GET /cart"),
        received,
        resources: vec![ResourceSpans {
            spans: 0..spans.len(),
            resource: Arc::new(Resource {
                service: "shop".into(),
                ..Resource::default()
            }),
            joined: joined(confidence),
        }],
        spans,
        permit: None,
    }
}

fn delay(cause: Cause, start_ms: u64, end_ms: u64) -> Delay {
    Delay {
        cause,
        start: at(start_ms),
        end: at(end_ms),
        process: process(PID),
        tid: PID,
        cpu: 0,
        cgroup_id: 70,
        particulars: match cause {
            Cause::CpuThrottle => Particulars::Limiter(Arc::new(Limiter {
                cgroup_id: 70,
                cgroup_path: "/shop/cart".into(),
                cores: 0.2,
                quota_file: "cpu.max",
                is_ancestor: false,
            })),
            _ => Particulars::None,
        },
    }
}

fn feed(pipeline: &mut Pipeline, delays: impl IntoIterator<Item = Delay>) {
    for delay in delays {
        let end = delay.end;
        pipeline.on_event(&Event::Delay(delay), end);
    }
}

fn judged(pipeline: &mut Pipeline, batch: SpanBatch) -> Vec<Judgement> {
    let received = batch.received;
    pipeline.on_batch(batch);
    let mut all = Vec::new();
    pipeline.settle(MonoNs(received.0 + 500 * MS), &mut |_, mut judgements| {
        all.append(&mut judgements)
    });
    all
}

fn unjudged(pipeline: &Pipeline, reason: &'static str) -> u64 {
    pipeline
        .metrics
        .spans_unjudged
        .get_or_create(&Reason { reason })
        .get()
}

fn dropped(pipeline: &Pipeline, reason: &'static str) -> u64 {
    pipeline
        .metrics
        .events_dropped
        .get_or_create(&Reason { reason })
        .get()
}

/// A quota of 20 ms in each period of 100: the thread runs 20 ms and is held 80 ms.
fn throttled_periods(from_ms: u64, count: u64) -> impl Iterator<Item = Delay> {
    (0..count).map(move |n| {
        delay(
            Cause::CpuThrottle,
            from_ms + n * 100 + 20,
            from_ms + n * 100 + 100,
        )
    })
}

/// A refused system call takes no time; a loop around it does.
#[test]
fn a_loop_around_a_refused_call_is_blamed_on_the_filter() {
    let judge = |refusals: &[u64]| {
        let mut pipeline = pipeline();
        for refusal in refusals {
            let denied = delay(Cause::SeccompDenied, *refusal, *refusal);
            pipeline.on_event(&Event::Delay(denied), at(200));
        }
        let asleep = delay(Cause::Sleep, 10, 50);
        pipeline.on_event(&Event::Delay(asleep), at(200));
        pipeline.on_batch(batch(
            at(200),
            Confidence::ThreadInferred,
            vec![span(1, 0, 0, 100)],
        ));
        let mut verdicts = Vec::new();
        pipeline.settle(at(10_000), &mut |_, judgements| {
            verdicts.extend(judgements.into_iter().map(|judgement| judgement.verdict));
        });
        verdicts.pop().flatten()
    };
    let verdict = judge(&[10, 20, 30, 40, 50]).expect("a loop of 40 of 100 ms");
    assert_eq!(
        (verdict.fault, verdict.cause),
        (Fault::L3, Cause::SeccompDenied)
    );
    assert!((verdict.share - 0.4).abs() < 1e-9, "{verdict:?}");
    assert_eq!(judge(&[10, 90]), None);
}

#[test]
fn a_request_under_a_quota_says_so_from_the_first_one_on() {
    let mut pipeline = pipeline();
    for request in 0..100 {
        let from = request * 1_000;
        feed(&mut pipeline, throttled_periods(from, 4));
        let spans = vec![span(9, 0, from, from + 400)];
        let judgement = judged(
            &mut pipeline,
            batch(at(from + 400), Confidence::Process, spans),
        )
        .remove(0);
        let verdict = judgement.verdict.expect("each request is held back");
        assert_eq!(
            (verdict.fault, verdict.cause),
            (Fault::L3, Cause::CpuThrottle)
        );
        assert!((verdict.share - 0.8).abs() < 1e-9, "{}", verdict.share);
        assert_eq!(
            verdict.summary,
            "80 % of 400 ms: held back by the CPU quota of cart (limit 0.2 cores set on the container)"
        );
        assert_eq!(verdict.culprit, "");
        let number = |name: &str| {
            verdict
                .evidence
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, v)| *v)
        };
        assert_eq!(number("cpu_throttle_ms"), Some(320.0));
        assert_eq!(number("cpu_throttle_intervals"), Some(4.0));
        assert_eq!(number("cpu_throttle_longest_ms"), Some(80.0));
        assert_eq!(number("cpu_limit_cores"), Some(0.2));
        assert_eq!(number("self_time_ms"), Some(400.0));
        let wall = |ms| UnixNs(WALL + (from + ms) * MS);
        let expected: Vec<_> = (0..4)
            .map(|n| (wall(n * 100 + 20), wall(n * 100 + 100), 80 * MS))
            .collect();
        let found: Vec<_> = judgement
            .intervals
            .iter()
            .map(|i| (i.start, i.end, i.cause_ns))
            .collect();
        assert_eq!(found, expected);
        assert!(judgement.intervals.iter().all(|i| i.fault == Fault::L3));
    }
}

#[test]
fn the_same_service_without_a_quota_is_healthy() {
    let mut pipeline = pipeline();
    for request in 0..100 {
        let from = request * 1_000;
        // What a busy host does to it: many waits of a time slice, a tenth of the time.
        feed(
            &mut pipeline,
            (0..8).map(|n| delay(Cause::Runqueue, from + n * 10, from + n * 10 + 1)),
        );
        let spans = vec![span(9, 0, from, from + 80)];
        let judgement = judged(
            &mut pipeline,
            batch(at(from + 90), Confidence::Process, spans),
        )
        .remove(0);
        assert_eq!(judgement.verdict, None);
        assert!(judgement.intervals.is_empty());
        let parts = [(Cause::Runqueue, 8 * MS), (Cause::Unexplained, 72 * MS)];
        assert_eq!(judgement.split.expect("judged").parts[..], parts);
    }
    assert_eq!(pipeline.metrics.spans_joined.get(), 100);
    let join = Join {
        confidence: "process",
    };
    assert_eq!(pipeline.metrics.joins.get_or_create(&join).get(), 100);
}

#[test]
fn only_the_hop_that_was_held_back_is_blamed() {
    let mut pipeline = pipeline();
    feed(&mut pipeline, throttled_periods(100, 3));
    // The caller (1) waits for the callee (2), which works from 100 to 400. The caller is
    // another process and its batch comes first, without the child.
    let mut caller = batch(at(410), Confidence::Process, vec![span(1, 0, 50, 410)]);
    let mut other = identity();
    other.process = process(1);
    caller.resources[0].joined.identity = Some(Arc::new(other));
    pipeline.on_batch(caller);
    pipeline.on_batch(batch(
        at(600),
        Confidence::Process,
        vec![span(2, 1, 100, 400)],
    ));
    assert_eq!(pipeline.next_due(), Some(at(910)));
    let mut out = Vec::new();
    pipeline.settle(at(909), &mut |_, j| out.push(j));
    assert!(out.is_empty());
    pipeline.settle(at(1_100), &mut |_, j| out.push(j));
    let caller = &out[0][0];
    let split = caller.split.as_ref().expect("judged");
    assert_eq!(
        (split.self_time_ns, split.downstream_ns),
        (60 * MS, 300 * MS)
    );
    assert_eq!(caller.verdict, None);
    let callee = out[1][0].verdict.as_ref().expect("held back");
    assert_eq!(callee.cause, Cause::CpuThrottle);
    assert_eq!(pipeline.next_due(), None);
}

#[test]
fn children_off_the_request_path_do_not_count() {
    let mut pipeline = pipeline();
    let consumer = SpanView {
        kind: 5,
        ..span(2, 1, 10, 50)
    };
    let unrelated = SpanView {
        trace_id: [2; 16],
        ..span(3, 1, 50, 60)
    };
    let late = span(4, 1, 90, 300);
    let spans = vec![span(1, 0, 0, 100), consumer, unrelated, late];
    let all = judged(&mut pipeline, batch(at(400), Confidence::Process, spans));
    let split = all[0].split.as_ref().expect("judged");
    assert_eq!(
        (split.self_time_ns, split.downstream_ns),
        (90 * MS, 10 * MS)
    );
}

#[test]
fn an_answer_by_another_hosts_clock_counts_as_long_as_it_took() {
    // The callee's clock is five seconds behind; then its spans come from this host.
    for (confidence, downstream_ms) in [(Confidence::Host, 60), (Confidence::Process, 0)] {
        for (kind, downstream_ms) in [(3, downstream_ms), (1, 0)] {
            let mut pipeline = pipeline();
            let answer = vec![span(2, 1, 5_000, 5_060)];
            let mut answer = batch(at(9_000), confidence, answer);
            if confidence == Confidence::Host {
                answer.resources[0].joined.identity = None;
            }
            pipeline.on_batch(answer);
            let call = SpanView {
                kind,
                ..span(1, 0, 0, 100)
            };
            let all = judged(
                &mut pipeline,
                batch(at(9_000), Confidence::Process, vec![call]),
            );
            let split = all.last().unwrap().split.as_ref().expect("judged");
            assert_eq!(
                split.downstream_ns,
                downstream_ms * MS,
                "{confidence:?} {kind}"
            );
            assert_eq!(split.self_time_ns, (100 - downstream_ms) * MS);
        }
    }
}

#[test]
fn a_child_that_arrives_later_counts_until_its_parent_is_judged() {
    let downstream_ms = |arrives_ms: u64| {
        let mut pipeline = pipeline();
        let of = |id, parent, from, to, received| {
            let spans = vec![span(id, parent, from, to)];
            batch(at(received), Confidence::Process, spans)
        };
        let mut parents = None;
        let mut note = |batch: SpanBatch, judgements: Vec<Judgement>| {
            if batch.spans[0].span_id == [9; 8] {
                parents = judgements.into_iter().next();
            }
        };
        pipeline.on_batch(of(9, 0, 0, 400, 400));
        pipeline.settle(at(arrives_ms), &mut note);
        pipeline.on_batch(of(8, 9, 100, 300, arrives_ms));
        pipeline.settle(at(3_000), &mut note);
        let split = parents.expect("it was judged").split.expect("by its time");
        split.downstream_ns / MS
    };
    // It settles half a second after its arrival.
    assert_eq!(downstream_ms(800), 200);
    assert_eq!(downstream_ms(1_000), 0);
}

#[test]
fn the_join_decides_whose_delays_count() {
    let neighbour = |pid, cgroup_id| Delay {
        process: process(pid),
        cgroup_id,
        ..delay(Cause::CpuThrottle, 0, 50)
    };
    let table = [
        (Confidence::Process, PID, 70, true),
        (Confidence::Process, 1, 70, false),
        (Confidence::Container, 1, 70, true),
        (Confidence::Container, 1, 71, false),
        (Confidence::Host, PID, 70, false),
    ];
    for (confidence, pid, cgroup, blamed) in table {
        let mut pipeline = pipeline();
        feed(&mut pipeline, [neighbour(pid, cgroup)]);
        let all = judged(
            &mut pipeline,
            batch(at(100), confidence, vec![span(1, 0, 0, 100)]),
        );
        assert_eq!(
            all[0].verdict.is_some(),
            blamed,
            "{confidence} {pid} {cgroup}"
        );
        assert_eq!(all[0].joined.confidence, confidence);
        assert_eq!(
            unjudged(&pipeline, "not_joined"),
            u64::from(confidence == Confidence::Host)
        );
    }
}

#[test]
fn what_the_hypervisor_took_is_its_fault() {
    let mut pipeline = pipeline();
    feed(&mut pipeline, [delay(Cause::Runqueue, 0, 80)]);
    let steal = Steal {
        cpu: 0,
        start: at(0),
        end: at(100),
        stolen_ns: 75 * MS,
    };
    pipeline.on_event(&Event::Steal(steal), at(100));
    let all = judged(
        &mut pipeline,
        batch(at(100), Confidence::Process, vec![span(1, 0, 0, 100)]),
    );
    let verdict = all[0].verdict.as_ref().expect("60 of 100 ms");
    assert_eq!((verdict.fault, verdict.cause), (Fault::L1, Cause::Steal));
    let found: Vec<_> = all[0]
        .intervals
        .iter()
        .map(|i| (i.cause, i.fault, i.cause_ns))
        .collect();
    let expected = [
        (Cause::Steal, Fault::L1, 60 * MS),
        (Cause::Runqueue, Fault::Host, 20 * MS),
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_step_of_the_wall_clock_moves_no_blame() {
    let mut pipeline = pipeline();
    let hour = 3_600 * S;
    // Requests at 0, 1 000 and 2 000 ms; the clock goes an hour back at 1 200, in the second.
    for n in 0..3 {
        feed(&mut pipeline, throttled_periods(n * 1_000, 4));
    }
    assert_eq!(
        pipeline.sample_clock(at(1_199), UnixNs(WALL + 1_199 * MS)),
        None
    );
    let step = pipeline.sample_clock(at(1_200), UnixNs(WALL + 1_200 * MS - hour));
    assert_eq!(step, Some(-(hour as i64)));
    let mut across = span(2, 0, 1_000, 1_400);
    let mut after = span(3, 0, 2_000, 2_400);
    after.start_unix_ns -= hour;
    after.end_unix_ns -= hour;
    let spans = vec![span(1, 0, 0, 400), across.clone(), after];
    let all = judged(&mut pipeline, batch(at(2_500), Confidence::Process, spans));
    for (judgement, start) in [(&all[0], WALL), (&all[2], WALL + 2 * S - hour)] {
        let verdict = judgement.verdict.as_ref().expect("held back");
        assert!((verdict.share - 0.8).abs() < 1e-9);
        assert_eq!(judgement.intervals[0].start, UnixNs(start + 20 * MS));
    }
    assert!(all[1].split.is_none());
    assert_eq!(unjudged(&pipeline, "clock_step"), 1);
    across.end_unix_ns -= hour;
    judged(
        &mut pipeline,
        batch(at(2_600), Confidence::Process, vec![across]),
    );
    assert_eq!(unjudged(&pipeline, "end_before_start"), 1);
}

#[test]
fn batches_leave_in_order_of_arrival_and_all_of_them_at_a_stop() {
    let mut config = PipelineConfig {
        max_settling: 2,
        ..PipelineConfig::default()
    };
    config.settle = Duration::from_secs(5);
    let clock = WallClock::new(MonoNs(MONO), UnixNs(WALL));
    let mut pipeline = Pipeline::new(config, clock, AgentMetrics::default());
    for n in 0..5 {
        pipeline.on_batch(batch(at(n), Confidence::Process, vec![span(1, 0, 0, n)]));
    }
    assert_eq!(pipeline.metrics.settling.get(), 5);
    let mut order = Vec::new();
    pipeline.settle(at(100), &mut |b, j| {
        order.push((b.received, b.spans.len(), j.len()))
    });
    let first: Vec<_> = (0..3).map(|n| (at(n), 1, 1)).collect();
    assert_eq!(order, first, "beyond the bound the oldest go early");
    pipeline.flush(at(100), &mut |b, j| {
        order.push((b.received, b.spans.len(), j.len()))
    });
    assert_eq!(order, (0..5).map(|n| (at(n), 1, 1)).collect::<Vec<_>>());
    assert_eq!(
        (pipeline.next_due(), pipeline.metrics.settling.get()),
        (None, 0)
    );
}

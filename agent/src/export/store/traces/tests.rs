use bytes::Bytes;

use super::*;
use crate::{
    span::{Joined, Resource, ResourceSpans, SpanView},
    verdict::Verdict,
    vocabulary::{Cause, Confidence, Fault},
};

const S: u64 = 1_000_000_000;

/// Spans of these traces, one each; those of `bad` traces with a verdict. Every span's name is
/// `op-` and its id; the first resource has the first of them, the second the rest.
fn batch(first_id: u8, traces: &[u8], bad: &[u8], at_s: u64) -> (SpanBatch, Vec<Judgement>) {
    let mut payload = Vec::new();
    let mut spans = Vec::new();
    let mut judgements = Vec::new();
    let joined = Joined {
        identity: None,
        confidence: Confidence::Host,
    };
    for (trace, id) in traces.iter().zip(first_id..) {
        let start = payload.len() as u32;
        payload.extend(format!("op-{id}").bytes());
        spans.push(SpanView {
            trace_id: [*trace; 16],
            span_id: [id; 8],
            name: start..payload.len() as u32,
            ..SpanView::default()
        });
        let verdict = bad.contains(trace).then(|| {
            Arc::new(Verdict {
                fault: Fault::L3,
                cause: Cause::CpuThrottle,
                share: 1.0,
                culprit: String::new(),
                incident: String::new(),
                summary: String::new(),
                remedy: String::new(),
                evidence: Vec::new(),
            })
        });
        judgements.push(Judgement {
            joined: joined.clone(),
            thread: None,
            split: None,
            verdict,
            intervals: Vec::new(),
        });
    }
    let resource = |service: &str, spans| ResourceSpans {
        spans,
        resource: Arc::new(Resource {
            service: service.into(),
            ..Resource::default()
        }),
        joined: joined.clone(),
    };
    let batch = SpanBatch {
        payload: Bytes::from(payload),
        received: MonoNs(at_s * S),
        resources: vec![resource("a", 0..1), resource("b", 1..spans.len())],
        spans,
        permit: None,
    };
    (batch, judgements)
}

fn small() -> Traces {
    Traces::new(TraceBounds {
        latest: 4,
        pinned: 2,
        spans_of_one: 3,
        pinned_per_second: 2,
        events_of_one: 1,
    })
}

fn add(traces: &mut Traces, (batch, judgements): (SpanBatch, Vec<Judgement>)) {
    traces.add(batch, judgements, &[], |_| Vec::new());
}

/// Ids, services and operations of what is kept of a trace.
fn kept(traces: &Traces, trace: u8) -> Vec<(u8, String, String)> {
    let row = |span: &Arc<StoredSpan>| {
        let service = span.resource.service.clone();
        (span.span_id[0], service, span.operation.clone())
    };
    let mut rows: Vec<_> = traces.of([trace; 16]).spans.iter().map(row).collect();
    rows.sort();
    rows
}

fn ids(traces: &Traces, trace: u8) -> Vec<u8> {
    kept(traces, trace).into_iter().map(|(id, ..)| id).collect()
}

#[test]
fn the_latest_spans_are_here_with_their_names_and_the_oldest_give_way() {
    let mut traces = small();
    add(&mut traces, batch(1, &[1, 2, 1], &[], 1));
    let row = |id: u8, service: &str| (id, service.to_owned(), format!("op-{id}"));
    assert_eq!(kept(&traces, 1), [row(1, "a"), row(3, "b")]);
    assert_eq!(kept(&traces, 2), [row(2, "b")]);
    assert_eq!(kept(&traces, 9), []);
    add(&mut traces, batch(4, &[3, 3], &[], 1));
    assert_eq!(ids(&traces, 1), [3], "the oldest went");
    assert_eq!(ids(&traces, 3), [4, 5]);
}

#[test]
fn of_a_batch_that_is_larger_than_what_is_kept_the_last_spans_are_here() {
    let mut traces = small();
    add(&mut traces, batch(1, &[9, 2, 2, 2, 2, 2, 2], &[], 1));
    let row = |id: u8| (id, "b".to_owned(), format!("op-{id}"));
    assert_eq!(kept(&traces, 2), [row(4), row(5), row(6), row(7)]);
    assert!(ids(&traces, 9).is_empty(), "it was the first");
    add(&mut traces, batch(8, &[3], &[], 1));
    assert_eq!(ids(&traces, 2), [5, 6, 7]);
}

#[test]
fn what_is_empty_is_not_kept_and_what_is_gone_of_a_large_batch_is_freed() {
    let mut traces = Traces::new(TraceBounds {
        latest: 10_000,
        ..TraceBounds::default()
    });
    let (mut empty, _) = batch(1, &[], &[], 1);
    empty.resources.clear();
    add(&mut traces, (empty, Vec::new()));
    assert_eq!(traces.latest.held(), 0);
    let (mut large, judgements) = batch(1, &[1, 1], &[], 1);
    let spans = 8_000;
    large.spans = vec![large.spans[0].clone(); spans];
    large.resources[0].spans = 0..spans;
    large.resources[1].spans = spans..spans;
    let all = vec![judgements[0].clone(); spans];
    add(&mut traces, (large, all));
    assert_eq!(traces.latest.held(), spans);
    for _ in 0..6_500 {
        add(&mut traces, batch(1, &[2], &[], 1));
    }
    assert_eq!(traces.of([2; 16]).spans.len(), 6_500);
    assert_eq!(traces.of([1; 16]).spans.len(), 3_500);
    assert!(traces.latest.held() < 11_000, "{}", traces.latest.held());
}

#[test]
fn a_trace_with_a_verdict_stays_whole_for_longer() {
    let mut traces = small();
    add(&mut traces, batch(1, &[1, 2], &[], 1));
    add(&mut traces, batch(3, &[1, 2], &[1], 1));
    add(&mut traces, batch(5, &[7, 7, 7, 7], &[], 1));
    assert_eq!(ids(&traces, 1), [1, 3], "with what came before");
    assert!(ids(&traces, 2).is_empty(), "healthy: gone");
    add(&mut traces, batch(9, &[1, 1], &[], 2));
    let pinned = traces.of([1; 16]);
    assert_eq!((pinned.spans.len(), pinned.left_out), (3, 1));
}

#[test]
fn so_many_traces_are_kept_and_so_many_taken_in_a_second() {
    let mut traces = small();
    add(&mut traces, batch(1, &[1, 2, 3], &[1, 2, 3], 1));
    let gone = |traces: &mut Traces| add(traces, batch(90, &[9, 9, 9, 9], &[], 1));
    gone(&mut traces);
    assert_eq!(ids(&traces, 1), [1]);
    assert_eq!(ids(&traces, 2), [2]);
    assert!(ids(&traces, 3).is_empty(), "too many in one second");
    add(&mut traces, batch(4, &[4, 9], &[4], 2));
    gone(&mut traces);
    assert!(ids(&traces, 1).is_empty(), "the first one makes room");
    assert_eq!((ids(&traces, 2), ids(&traces, 4)), (vec![2], vec![4]));
}

#[test]
fn spans_of_no_resource_are_left_out() {
    let mut traces = small();
    let (mut spans, judgements) = batch(1, &[1, 1, 1], &[], 1);
    spans.resources.remove(0);
    spans.resources[0].spans = 2..9;
    add(&mut traces, (spans, judgements));
    assert_eq!(ids(&traces, 1), [3]);
}

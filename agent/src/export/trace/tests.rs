//! What an agent upstream said is what a trace says here.

use bytes::Bytes;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message as _;

use super::*;
use crate::{
    export::{PrometheusConfig, Store, StoreConfig, prometheus::SpanMetrics},
    metrics::AgentMetrics,
    otlp::{
        enrich::{EnrichOptions, enrich},
        view,
    },
    process::{Identity, ProcessKey},
    span::{Joined, SpanBatch},
    stack::{Stack, StackEntry},
    time::{MonoNs, UnixNs},
    verdict::{CauseInterval, Judgement, Split, Verdict},
    vocabulary::{Cause, Confidence, Fault, Layer},
    workload::Workload,
};

const TRACE: TraceId = [7; 16];
const START: u64 = 1_795_334_400_000_000_000;

fn sent(spans: Vec<Span>) -> SpanBatch {
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans: vec![ScopeSpans {
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    view::parse(Bytes::from(request.encode_to_vec()), MonoNs(1)).unwrap()
}

fn span(id: u8) -> Span {
    Span {
        trace_id: TRACE.to_vec(),
        span_id: vec![id; 8],
        name: "GET /cart".into(),
        kind: 2,
        start_time_unix_nano: START,
        end_time_unix_nano: START + 400_000_000,
        ..Span::default()
    }
}

fn throttled() -> Judgement {
    let identity = Identity {
        process: ProcessKey {
            pid: 1,
            start_ticks: 2,
        },
        comm: "cart".into(),
        cgroup_id: 3,
        cgroup_path: "/cart".into(),
        workload: Workload::default(),
        stack: Stack(vec![StackEntry {
            layer: Layer::Container,
            technology: "runc".into(),
            evidence: String::new(),
        }]),
    };
    Judgement {
        joined: Joined {
            identity: Some(Arc::new(identity)),
            confidence: Confidence::Process,
        },
        thread: None,
        split: Some(Split {
            self_time_ns: 400_000_000,
            parts: vec![
                (Cause::CpuThrottle, 320_000_000),
                (Cause::OnCpu, 80_000_000),
            ]
            .into(),
            downstream_ns: 0,
        }),
        verdict: Some(Arc::new(Verdict {
            fault: Fault::L3,
            cause: Cause::CpuThrottle,
            share: 0.8,
            culprit: String::new(),
            incident: "i-1".into(),
            summary: "held back".into(),
            remedy: "raise the quota".into(),
            evidence: vec![("cpu_throttle_ms".into(), 320.0)],
        })),
        intervals: vec![CauseInterval {
            cause: Cause::CpuThrottle,
            fault: Fault::L3,
            start: UnixNs(START + 20_000_000),
            end: UnixNs(START + 100_000_000),
            cause_ns: 80_000_000,
        }],
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(value.into())),
        }),
        ..KeyValue::default()
    }
}

/// Of no process here.
fn unknown() -> Judgement {
    Judgement {
        joined: Joined {
            identity: None,
            confidence: Confidence::Host,
        },
        thread: None,
        split: None,
        verdict: None,
        intervals: Vec::new(),
    }
}

fn store(config: StoreConfig) -> Store {
    let metrics = SpanMetrics::new(&PrometheusConfig::default(), &AgentMetrics::default());
    Store::new(config, Arc::new(metrics))
}

/// The spans of a trace as this agent tells of them, those that an agent made last.
fn told(store: &Store) -> Vec<TraceSpan> {
    let names: LabelSource = Arc::new(|_| None);
    let kept = store.trace(TRACE).spans;
    let mut spans: Vec<_> = kept
        .iter()
        .map(|span| trace_span(span, &"here".into(), &names))
        .collect();
    spans.sort_by_key(|span| (span.stretch.is_some(), span.span_id));
    spans
}

#[test]
fn a_verdict_from_upstream_is_kept_and_told() {
    let upstream = sent(vec![span(1)]);
    let options = EnrichOptions {
        node: "there".into(),
        child_spans: true,
    };
    let passed_on = enrich(&upstream, &[throttled()], &options);
    let batch = view::parse(passed_on, MonoNs(2)).unwrap();
    assert_eq!(batch.spans.len(), 2, "one is the agent's own");
    let store = store(StoreConfig::default());
    store.record(batch, vec![unknown(), unknown()]);
    let spans = told(&store);
    assert_eq!(spans.len(), 2);
    assert_eq!(&*spans[0].node, "there");
    let said = spans[0].said.as_ref().expect("its agent said something");
    let verdict = said.verdict.as_ref().expect("and had a verdict");
    assert_eq!(
        (verdict.fault, verdict.cause),
        (Fault::L3, Cause::CpuThrottle)
    );
    assert_eq!((verdict.share, &*verdict.summary), (0.8, "held back"));
    assert_eq!(verdict.evidence["cpu_throttle_ms"], 320.0);
    assert_eq!(said.split[&Cause::CpuThrottle], 320_000_000);
    assert_eq!((&*said.confidence, &*said.layer), ("process", "L-3"));
    let stretch = spans[1].stretch.as_ref().expect("the agent's own span");
    assert_eq!(stretch.start_unix_ns, START + 20_000_000);
    // What came without a word from upstream is this agent's.
    store.record(sent(vec![span(3)]), vec![throttled()]);
    let spans = told(&store);
    let own = spans.iter().find(|span| span.span_id == [3; 8]).unwrap();
    assert_eq!(&*own.node, "here");
    assert!(own.said.as_ref().is_some_and(|said| said.verdict.is_some()));
}

/// A process of this node makes attributes up as an agent writes them: of another node, with a
/// culprit of its choice, or a span that would be no hop.
#[test]
fn what_a_process_here_makes_up_is_not_told() {
    let mut made_up = span(1);
    made_up.attributes = vec![
        text("isostack.node", "there"),
        text("isostack.fault", "host"),
        text("isostack.cause", "runqueue"),
        text("isostack.culprit", "innocent"),
        text("isostack.synthetic", "true"),
    ];
    let store = store(StoreConfig::default());
    store.record(sent(vec![made_up]), vec![throttled()]);
    let spans = told(&store);
    assert_eq!((spans.len(), &*spans[0].node), (1, "here"));
    assert_eq!(spans[0].stretch, None);
    let said = spans[0].said.as_ref().expect("it was judged here");
    let verdict = said.verdict.as_ref().expect("and told so");
    assert_eq!(verdict.cause, Cause::CpuThrottle);
}

#[test]
fn a_trace_with_a_verdict_from_upstream_is_kept_for_longer() {
    let mut config = StoreConfig::default();
    config.traces.latest = 4;
    let store = store(config);
    let options = EnrichOptions {
        node: "there".into(),
        child_spans: false,
    };
    let upstream = sent(vec![span(1), span(2)]);
    let healthy = Judgement {
        verdict: None,
        intervals: Vec::new(),
        ..throttled()
    };
    let passed_on = enrich(&upstream, &[healthy, throttled()], &options);
    let batch = view::parse(passed_on, MonoNs(2)).unwrap();
    store.record(batch, vec![unknown(), unknown()]);
    let others: Vec<Span> = (10..30)
        .map(|id| Span {
            trace_id: vec![id; 16],
            ..span(id)
        })
        .collect();
    let judgements = others.iter().map(|_| unknown()).collect();
    store.record(sent(others), judgements);
    let spans = told(&store);
    let verdicts: Vec<bool> = spans
        .iter()
        .map(|span| {
            span.said
                .as_ref()
                .is_some_and(|said| said.verdict.is_some())
        })
        .collect();
    assert_eq!(verdicts, [false, true]);
}

#[test]
fn what_upstream_wrote_is_bounded_and_broken_bytes_end_it() {
    let long = "x".repeat(100_000);
    let mut made_up = span(1);
    made_up.attributes = vec![
        text("isostack.node", &long),
        text("isostack.fault", "L-9"),
        text("isostack.cause", "cpu_throttle"),
        text("isostack.summary", &long),
        text(&format!("isostack.evidence.{long}"), "1"),
        text("isostack.evidence.\u{202e}", "1"),
    ];
    let store = store(StoreConfig::default());
    store.record(sent(vec![made_up.clone()]), vec![unknown()]);
    let spans = told(&store);
    assert!(spans[0].node.len() <= 1_024, "{}", spans[0].node.len());
    let said = spans[0].said.as_ref().expect("something was said");
    assert_eq!(said.verdict, None, "there is no such layer");
    made_up.attributes[1] = text("isostack.fault", "L-3");
    let whole = trace::read::passed(&made_up.encode_to_vec(), (START, START + 1)).unwrap();
    let verdict = whole.said.and_then(|said| said.verdict).unwrap();
    assert_eq!(verdict.summary.len(), 1_024);
    assert!(verdict.evidence.is_empty(), "ours have no such names");
    let bytes = made_up.encode_to_vec();
    for length in 0..bytes.len().min(300) {
        let passed =
            trace::read::passed(&bytes[..length], (START, START + 1)).expect("little is kept");
        assert!(passed.node.len() <= 1_024);
    }
}

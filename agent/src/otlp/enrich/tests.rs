//! What comes out is what came in plus what the contract names: by decoding with prost, and
//! byte by byte.

mod any_request;
mod undone;

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value as Any},
    trace::v1 as pb,
};
use prost::Message;

use super::*;
use crate::{
    otlp::{
        view,
        wire::{put_bytes, put_tag, wire_type},
    },
    process::{Identity, ProcessKey},
    stack::{Stack, StackEntry},
    time::{MonoNs, UnixNs},
    verdict::{CauseInterval, Split, Verdict},
    vocabulary::{Cause, Fault, Layer},
    workload::Workload,
};

fn options() -> EnrichOptions {
    EnrichOptions {
        node: "node-1".to_owned(),
        child_spans: true,
    }
}

fn identity() -> Arc<Identity> {
    let entry = |layer, technology: &str| StackEntry {
        layer,
        technology: technology.to_owned(),
        evidence: String::new(),
    };
    Arc::new(Identity {
        process: ProcessKey {
            pid: 1,
            start_ticks: 2,
        },
        comm: "shop".to_owned(),
        cgroup_id: 3,
        cgroup_path: "/a".to_owned(),
        workload: Workload::default(),
        stack: Stack(vec![
            entry(Layer::Container, "runc"),
            entry(Layer::FullVirtualisation, "kvm"),
        ]),
    })
}

fn healthy(joined: Joined) -> Judgement {
    Judgement {
        thread: None,
        joined,
        split: None,
        verdict: None,
        intervals: Vec::new(),
    }
}

fn unknown_process() -> Joined {
    Joined {
        identity: None,
        confidence: Confidence::Host,
    }
}

fn known(identity: &Arc<Identity>) -> Joined {
    Joined {
        identity: Some(Arc::clone(identity)),
        confidence: Confidence::Process,
    }
}

fn throttled(identity: &Arc<Identity>) -> Judgement {
    Judgement {
        thread: None,
        joined: known(identity),
        split: Some(Split {
            self_time_ns: 9_000_000,
            parts: vec![(Cause::CpuThrottle, 7_500_000), (Cause::OnCpu, 1_500_000)].into(),
            downstream_ns: 500_000,
        }),
        verdict: Some(Arc::new(Verdict {
            fault: Fault::L3,
            cause: Cause::CpuThrottle,
            share: 0.83,
            culprit: String::new(),
            incident: "i-1".to_owned(),
            summary: "held back".to_owned(),
            remedy: "raise the quota".to_owned(),
            evidence: vec![("cpu_throttle_ms".to_owned(), 7.5)],
        })),
        intervals: vec![
            CauseInterval {
                cause: Cause::CpuThrottle,
                fault: Fault::L3,
                start: UnixNs(1_000),
                end: UnixNs(5_000),
                cause_ns: 4_000,
            },
            CauseInterval {
                cause: Cause::CpuThrottle,
                fault: Fault::L3,
                start: UnixNs(6_000),
                end: UnixNs(9_000),
                cause_ns: 2_000,
            },
        ],
    }
}

fn text(value: &str) -> Any {
    Any::StringValue(value.to_owned())
}

/// The contract, told apart from the code that writes it.
fn expected(judgement: &Judgement) -> Vec<(String, Any)> {
    let mut out = Vec::new();
    if let Some(identity) = &judgement.joined.identity {
        out.push((
            "isostack.layer".to_owned(),
            text(identity.stack.layer().as_str()),
        ));
        out.push((
            "isostack.stack".to_owned(),
            text(&identity.stack.to_string()),
        ));
    }
    let confidence = text(judgement.joined.confidence.as_str());
    out.push(("isostack.confidence".to_owned(), confidence));
    out.push(("isostack.node".to_owned(), text("node-1")));
    if judgement.verdict.is_some() {
        let rest = [
            ("isostack.fault", text("L-3")),
            ("isostack.cause", text("cpu_throttle")),
            ("isostack.share", Any::DoubleValue(0.83)),
            ("isostack.incident", text("i-1")),
            ("isostack.summary", text("held back")),
            ("isostack.remedy", text("raise the quota")),
            ("isostack.evidence.cpu_throttle_ms", Any::DoubleValue(7.5)),
            ("isostack.split.cpu_throttle_ms", Any::DoubleValue(7.5)),
            ("isostack.split.on_cpu_ms", Any::DoubleValue(1.5)),
            ("isostack.split.downstream_ms", Any::DoubleValue(0.5)),
        ];
        out.extend(rest.map(|(key, value)| (key.to_owned(), value)));
    }
    out
}

fn pairs(attributes: &[KeyValue]) -> Vec<(String, Any)> {
    let value = |kv: &KeyValue| kv.value.clone().unwrap().value.unwrap();
    attributes
        .iter()
        .map(|kv| (kv.key.clone(), value(kv)))
        .collect()
}

fn one_span() -> Bytes {
    let span = pb::Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        ..pb::Span::default()
    };
    let scope = pb::ScopeSpans {
        spans: vec![span],
        ..pb::ScopeSpans::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![pb::ResourceSpans {
            scope_spans: vec![scope],
            ..pb::ResourceSpans::default()
        }],
    }
    .encode_to_vec()
    .into()
}

fn enriched(payload: Bytes, judgement: Judgement, options: &EnrichOptions) -> Bytes {
    let batch = view::parse(payload, MonoNs(0)).unwrap();
    let judgements = vec![judgement; batch.spans.len()];
    enrich(&batch, &judgements, options)
}

#[test]
fn child_spans_say_when() {
    let output = enriched(one_span(), throttled(&identity()), &options());
    let output = ExportTraceServiceRequest::decode(output).unwrap();
    let scope = output.resource_spans[0].scope_spans.last().unwrap();
    let named = scope.scope.clone().unwrap();
    assert_eq!(
        (&*named.name, &*named.version),
        ("isostack-agent", env!("CARGO_PKG_VERSION"))
    );
    let [whole, part] = &scope.spans[..] else {
        panic!("two intervals, two spans: {scope:?}");
    };
    assert_ne!(whole.span_id, part.span_id);
    assert_ne!(whole.span_id, vec![0; 8]);
    for (span, start, end) in [(whole, 1_000, 5_000), (part, 6_000, 9_000)] {
        assert_eq!(span.name, "L-3 cpu_throttle");
        assert_eq!(span.kind, pb::span::SpanKind::Internal as i32);
        assert_eq!(
            (span.start_time_unix_nano, span.end_time_unix_nano),
            (start, end)
        );
        assert_eq!(
            (&*span.trace_id, &*span.parent_span_id),
            (&[1; 16][..], &[2; 8][..])
        );
    }
    let mut wanted = vec![
        ("isostack.synthetic".to_owned(), Any::BoolValue(true)),
        ("isostack.cause".to_owned(), text("cpu_throttle")),
        ("isostack.fault".to_owned(), text("L-3")),
    ];
    assert_eq!(pairs(&whole.attributes), wanted);
    wanted.push((
        "isostack.evidence.cpu_throttle_ms".to_owned(),
        Any::DoubleValue(0.002),
    ));
    assert_eq!(pairs(&part.attributes), wanted);
}

#[test]
fn child_spans_can_be_turned_off_and_are_limited() {
    let off = EnrichOptions {
        child_spans: false,
        ..options()
    };
    let output = enriched(one_span(), throttled(&identity()), &off);
    let output = ExportTraceServiceRequest::decode(output).unwrap();
    assert_eq!(output.resource_spans[0].scope_spans.len(), 1);

    let mut many = throttled(&identity());
    many.intervals = vec![many.intervals[0].clone(); 40];
    let output = enriched(one_span(), many, &options());
    let output = ExportTraceServiceRequest::decode(output).unwrap();
    assert_eq!(output.resource_spans[0].scope_spans[1].spans.len(), 16);
}

#[test]
fn what_another_agent_enriched_is_left_alone() {
    let once = enriched(one_span(), throttled(&identity()), &options());
    let other = EnrichOptions {
        node: "node-2".to_owned(),
        ..options()
    };
    let twice = enriched(once.clone(), throttled(&identity()), &other);
    assert_eq!(once, twice, "neither the span nor our child spans");
}

#[test]
fn prefixes_wider_than_needed_still_give_a_valid_message() {
    // Each length prefix padded to ten bytes, which the format allows.
    let wide = |number: u32, body: &[u8]| {
        let mut out = Vec::new();
        put_tag(&mut out, number, wire_type::LEN);
        let mut length = [0x80; 10];
        length[0] |= (body.len() & 0x7f) as u8;
        length[1] |= (body.len() >> 7) as u8;
        length[9] = 0;
        out.extend(length);
        out.extend_from_slice(body);
        out
    };
    let mut span = Vec::new();
    put_bytes(&mut span, 5, b"name");
    let input = wide(1, &wide(2, &wide(2, &span)));
    let output = enriched(input.into(), healthy(unknown_process()), &options());
    let output = ExportTraceServiceRequest::decode(output).unwrap();
    let span = &output.resource_spans[0].scope_spans[0].spans[0];
    assert_eq!(span.name, "name");
    assert_eq!(
        pairs(&span.attributes),
        expected(&healthy(unknown_process()))
    );
}

#[test]
fn a_span_without_a_judgement_leaves_as_it_came() {
    let input = one_span();
    let batch = view::parse(input.clone(), MonoNs(0)).unwrap();
    assert_eq!(enrich(&batch, &[], &options()), input);
}

//! Views against messages encoded by prost, and against broken ones.

use std::sync::Arc;

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value},
    resource::v1,
    trace::v1 as pb,
};
use prost::Message;

use super::*;

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, any_value::Value::StringValue(value.to_owned()))
}

fn request(resources: Vec<pb::ResourceSpans>) -> Bytes {
    ExportTraceServiceRequest {
        resource_spans: resources,
    }
    .encode_to_vec()
    .into()
}

fn resource_spans(attributes: Vec<KeyValue>, spans: Vec<pb::Span>) -> pb::ResourceSpans {
    pb::ResourceSpans {
        resource: Some(v1::Resource {
            attributes,
            ..v1::Resource::default()
        }),
        scope_spans: vec![pb::ScopeSpans {
            spans,
            ..pb::ScopeSpans::default()
        }],
        ..pb::ResourceSpans::default()
    }
}

#[test]
fn a_span_is_seen_as_it_is() {
    let span = pb::Span {
        trace_id: (1..=16).collect(),
        span_id: (1..=8).collect(),
        parent_span_id: vec![9; 8],
        name: "GET /".to_owned(),
        kind: 2,
        start_time_unix_nano: 5,
        end_time_unix_nano: 7,
        attributes: vec![
            attribute("thread.id", any_value::Value::IntValue(77)),
            text("thread.name", "main"),
        ],
        status: Some(pb::Status {
            message: "no".to_owned(),
            code: 2,
        }),
        ..pb::Span::default()
    };
    let resource = vec![
        text("service.name", "shop"),
        text("service.name", "second"),
        attribute("process.pid", any_value::Value::IntValue(4242)),
        text("k8s.pod.uid", "u-1"),
    ];
    let payload = request(vec![
        resource_spans(resource, vec![span.clone()]),
        resource_spans(vec![], vec![]),
    ]);
    let batch = parse(payload.clone(), MonoNs(3)).unwrap();
    assert_eq!(batch.received, MonoNs(3));
    assert_eq!(batch.resources.len(), 2);
    assert_eq!(
        (
            batch.resources[0].spans.clone(),
            batch.resources[1].spans.clone()
        ),
        (0..1, 1..1)
    );
    let view = &batch.spans[0];
    assert_eq!(batch.name(view), "GET /");
    assert_eq!(view.trace_id.to_vec(), span.trace_id);
    assert_eq!(view.span_id.to_vec(), span.span_id);
    assert_eq!(view.parent_span_id, [9; 8]);
    assert_eq!((view.start_unix_ns, view.end_unix_ns), (5, 7));
    assert_eq!((view.kind, view.status_code), (2, 2));
    assert_eq!(view.thread_id, Some(77));
    let body = &payload[view.body.start as usize..view.body.end as usize];
    assert_eq!(pb::Span::decode(body).unwrap(), span);
    let resource = &batch.resources[0].resource;
    assert_eq!(
        (&*resource.service, resource.pid, &*resource.pod_uid),
        ("shop", Some(4242), "u-1")
    );
    let again = parse(payload, MonoNs(4)).unwrap();
    assert!(
        Arc::ptr_eq(resource, &again.resources[0].resource),
        "read once, shared"
    );
}

#[test]
fn a_split_resource_is_merged() {
    let part = |key, value| {
        v1::Resource {
            attributes: vec![text(key, value)],
            ..v1::Resource::default()
        }
        .encode_to_vec()
    };
    let mut body = Vec::new();
    for resource in [
        part("service.name", "shop"),
        part("host.name", "h"),
        part("k8s.pod.name", "p"),
    ] {
        super::super::wire::put_bytes(&mut body, 1, &resource);
    }
    let mut payload = Vec::new();
    super::super::wire::put_bytes(&mut payload, 1, &body);
    let batch = parse(payload.into(), MonoNs(0)).unwrap();
    let resource = &batch.resources[0].resource;
    assert_eq!(
        (&*resource.service, &*resource.host, &*resource.pod),
        ("shop", "h", "p")
    );
}

#[test]
fn odd_but_allowed_spans_pass() {
    let odd = [
        pb::Span::default(),
        pb::Span {
            trace_id: vec![1; 3],
            span_id: vec![2; 20],
            ..pb::Span::default()
        },
        pb::Span {
            start_time_unix_nano: u64::MAX,
            end_time_unix_nano: 1,
            ..pb::Span::default()
        },
        pb::Span {
            attributes: (0..10_000).map(|i| text(&format!("k{i}"), "v")).collect(),
            ..pb::Span::default()
        },
    ];
    let batch = parse(
        request(vec![resource_spans(vec![], odd.to_vec())]),
        MonoNs(0),
    )
    .unwrap();
    assert_eq!(batch.spans.len(), 4);
    assert_eq!(batch.spans[1].trace_id, [0; 16]);
    assert_eq!(batch.spans[1].span_id, [0; 8]);
}

#[test]
fn too_many_parts_are_refused_before_they_take_memory() {
    let mut scope = Vec::new();
    for _ in 0..=MAX_SPANS {
        scope.extend([0x12, 0x00]);
    }
    let mut resource = Vec::new();
    super::super::wire::put_bytes(&mut resource, 2, &scope);
    let mut payload = Vec::new();
    super::super::wire::put_bytes(&mut payload, 1, &resource);
    let refused = parse(payload.into(), MonoNs(0)).unwrap_err();
    assert!(
        matches!(refused, Malformed::TooMany { what: "spans", .. }),
        "{refused}"
    );
    let resources = [0x0a, 0x00].repeat(MAX_SCOPES + 1);
    let refused = parse(resources.into(), MonoNs(0)).unwrap_err();
    assert!(matches!(refused, Malformed::TooMany { .. }), "{refused}");
}

#[test]
fn nesting_beyond_what_parsers_follow_is_refused() {
    let deep = |levels: usize| {
        let value = (0..levels).fold(AnyValue::default(), |inner, _| AnyValue {
            value: Some(any_value::Value::ArrayValue(
                opentelemetry_proto::tonic::common::v1::ArrayValue {
                    values: vec![inner],
                },
            )),
        });
        let span = pb::Span {
            attributes: vec![KeyValue {
                value: Some(value),
                ..KeyValue::default()
            }],
            ..pb::Span::default()
        };
        request(vec![resource_spans(vec![], vec![span])])
    };
    for levels in 40..60 {
        let payload = deep(levels);
        let ours = parse(payload.clone(), MonoNs(0)).is_ok();
        let theirs = ExportTraceServiceRequest::decode(payload).is_ok();
        assert_eq!(ours, theirs, "{levels} levels");
    }
}

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use proptest::prelude::*;
use prost::Message;

use super::*;

fn request(shape: &[Vec<usize>]) -> ExportTraceServiceRequest {
    let mut id = 0u64;
    let resource_spans = shape
        .iter()
        .map(|scopes| ResourceSpans {
            resource: Some(Resource {
                attributes: vec![KeyValue {
                    key: "service.name".to_owned(),
                    value: Some(AnyValue {
                        value: Some(Value::StringValue(format!("s{id}"))),
                    }),
                    ..KeyValue::default()
                }],
                ..Resource::default()
            }),
            scope_spans: scopes
                .iter()
                .map(|spans| ScopeSpans {
                    scope: Some(InstrumentationScope {
                        name: format!("scope{id}"),
                        ..InstrumentationScope::default()
                    }),
                    spans: (0..*spans)
                        .map(|_| {
                            id += 1;
                            Span {
                                span_id: id.to_be_bytes().to_vec(),
                                ..Span::default()
                            }
                        })
                        .collect(),
                    schema_url: "scope-schema".to_owned(),
                })
                .collect(),
            schema_url: "schema".to_owned(),
        })
        .collect();
    ExportTraceServiceRequest { resource_spans }
}

/// Every span with the resource and scope it is under.
fn spans(request: &ExportTraceServiceRequest) -> Vec<(ResourceSpans, ScopeSpans, Span)> {
    let mut all = Vec::new();
    for resource in &request.resource_spans {
        for scope in &resource.scope_spans {
            for span in &scope.spans {
                let mut resource = resource.clone();
                resource.scope_spans.clear();
                let mut scope = scope.clone();
                scope.spans.clear();
                all.push((resource, scope, span.clone()));
            }
        }
    }
    all
}

proptest! {
    /// Cut down to single items, nothing is lost, doubled, or moved to another resource.
    #[test]
    fn halves_hold_everything_once(
        shape in prop::collection::vec(prop::collection::vec(0usize..5, 0..4), 0..4)
    ) {
        let whole = request(&shape);
        let bytes = Bytes::from(whole.encode_to_vec());
        prop_assert_eq!(count(&bytes), spans(&whole).len());
        let mut todo = vec![bytes];
        let mut found = Vec::new();
        while let Some(piece) = todo.pop() {
            match halve(&piece) {
                Some((first, second)) => {
                    todo.push(second);
                    todo.push(first);
                }
                None => {
                    let piece = ExportTraceServiceRequest::decode(piece).unwrap();
                    let items = spans(&piece);
                    prop_assert!(items.len() <= 1);
                    found.extend(items);
                }
            }
        }
        prop_assert_eq!(found, spans(&whole));
    }

    #[test]
    fn survives_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        let _ = count(&bytes);
        if let Some((first, second)) = halve(&bytes) {
            prop_assert!(first.len() <= bytes.len() + 20 && second.len() <= bytes.len() + 20);
        }
    }
}

#[test]
fn unknown_fields_go_with_both_halves() {
    // Unknown field 9 (varint 5) in the request, beside one resource with one scope.
    let mut bytes = request(&[vec![2]]).encode_to_vec();
    bytes.extend([9 << 3, 5]);
    let (first, second) = halve(&bytes.into()).unwrap();
    assert!(first.ends_with(&[9 << 3, 5]) && second.ends_with(&[9 << 3, 5]));
    assert_eq!((count(&first), count(&second)), (1, 1));
}

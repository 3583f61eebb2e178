//! The messages of OTLP that matter here.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, de::IgnoredAny};

use super::{
    Gathering, ReadError,
    attributes::{Ours, Value},
    id, or_default,
};
use crate::trace::TraceSpan;

/// `Status.STATUS_CODE_ERROR`.
const ERROR: i32 = 2;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ResourceSpans {
    #[serde(deserialize_with = "or_default")]
    resource: Resource,
    #[serde(
        rename = "scopeSpans",
        alias = "scope_spans",
        alias = "instrumentationLibrarySpans",
        deserialize_with = "or_default"
    )]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Resource {
    #[serde(deserialize_with = "or_default")]
    attributes: Vec<KeyValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ScopeSpans {
    #[serde(deserialize_with = "or_default")]
    spans: Vec<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Span {
    #[serde(
        rename = "traceId",
        alias = "trace_id",
        deserialize_with = "or_default"
    )]
    trace_id: String,
    #[serde(rename = "spanId", alias = "span_id", deserialize_with = "or_default")]
    span_id: String,
    #[serde(
        rename = "parentSpanId",
        alias = "parent_span_id",
        deserialize_with = "or_default"
    )]
    parent_span_id: String,
    #[serde(deserialize_with = "or_default")]
    name: String,
    #[serde(deserialize_with = "or_default")]
    kind: Enum,
    #[serde(
        rename = "startTimeUnixNano",
        alias = "start_time_unix_nano",
        deserialize_with = "or_default"
    )]
    start: Integer,
    #[serde(
        rename = "endTimeUnixNano",
        alias = "end_time_unix_nano",
        deserialize_with = "or_default"
    )]
    end: Integer,
    #[serde(deserialize_with = "or_default")]
    attributes: Vec<KeyValue>,
    #[serde(deserialize_with = "or_default")]
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    #[serde(deserialize_with = "or_default")]
    code: Enum,
}

/// A number, or one of these words by its name.
#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
enum Enum {
    Number(i32),
    Name(String),
    #[default]
    Absent,
}

impl Enum {
    fn number(&self) -> i32 {
        let name = match self {
            Self::Number(number) => return *number,
            Self::Name(name) => name,
            Self::Absent => return 0,
        };
        match name.rsplit('_').next().unwrap_or_default() {
            "INTERNAL" | "OK" => 1,
            "SERVER" | "ERROR" => 2,
            "CLIENT" => 3,
            "PRODUCER" => 4,
            "CONSUMER" => 5,
            _ => 0,
        }
    }
}

/// 64 bits: as text by the rules, as a number by many.
#[derive(Debug, Default)]
struct Integer(u64);

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(u64),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(number) => Ok(Self(number)),
            Form::Text(text) => text.parse().map(Self).map_err(|_| {
                serde::de::Error::invalid_value(
                    serde::de::Unexpected::Str(&text),
                    &"nanoseconds since the epoch",
                )
            }),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct KeyValue {
    #[serde(deserialize_with = "or_default")]
    key: String,
    #[serde(deserialize_with = "or_default")]
    value: AnyValue,
}

/// One member of it is there.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AnyValue {
    #[serde(rename = "stringValue", alias = "string_value")]
    text: Option<String>,
    #[serde(rename = "boolValue", alias = "bool_value")]
    truth: Option<bool>,
    #[serde(rename = "doubleValue", alias = "double_value")]
    double: Option<Number>,
    #[serde(rename = "intValue", alias = "int_value")]
    integer: Option<Number>,
    #[serde(flatten)]
    _rest: Option<IgnoredAny>,
}

/// A number, or one as text (`"5"`, `"NaN"`).
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Number {
    Number(f64),
    Text(String),
}

impl From<AnyValue> for Value {
    fn from(value: AnyValue) -> Self {
        let AnyValue {
            text,
            truth,
            double,
            integer,
            ..
        } = value;
        match (text, truth, double.or(integer)) {
            (Some(text), ..) => Self::Text(text),
            (None, Some(truth), _) => Self::Bool(truth),
            (None, None, Some(Number::Number(number))) => Self::Number(number),
            (None, None, Some(Number::Text(text))) => {
                text.parse().map_or(Self::Other, Self::Number)
            }
            (None, None, None) => Self::Other,
        }
    }
}

/// What a resource says about its spans.
struct Origin {
    service: Arc<str>,
    node: Arc<str>,
}

/// Takes the spans of a resource.
pub(super) fn take(resource: ResourceSpans, gathering: &mut Gathering) -> Result<(), ReadError> {
    let origin = origin(resource.resource, gathering);
    for span in resource.scope_spans.into_iter().flat_map(|s| s.spans) {
        let mut ours = Ours::default();
        for KeyValue { key, value } in span.attributes {
            ours.take(&key, value.into());
        }
        let node = match &*ours.node {
            "" => origin.node.clone(),
            node => gathering.name(node),
        };
        let (start, end) = (span.start.0, span.end.0);
        let (stretch, said) = ours.finish(start, end);
        let found = TraceSpan {
            span_id: id::span_id(&span.span_id),
            parent_span_id: id::span_id(&span.parent_span_id),
            service: origin.service.clone(),
            operation: span.name,
            kind: span.kind.number(),
            is_error: span.status.code.number() == ERROR,
            start_unix_ns: start,
            end_unix_ns: end,
            node,
            said,
            stretch,
        };
        gathering.span(id::trace_id(&span.trace_id), found)?;
    }
    Ok(())
}

fn origin(resource: Resource, gathering: &mut Gathering) -> Origin {
    let mut service = String::new();
    let mut nodes = [const { String::new() }; 2];
    for KeyValue { key, value } in resource.attributes {
        let text = match Value::from(value) {
            Value::Text(text) => text,
            _ => continue,
        };
        match &*key {
            "service.name" => service = text,
            "k8s.node.name" => nodes[0] = text,
            "host.name" => nodes[1] = text,
            _ => {}
        }
    }
    let [k8s, host] = &nodes;
    let node = if k8s.is_empty() { host } else { k8s };
    Origin {
        service: gathering.name(&service),
        node: gathering.name(node),
    }
}

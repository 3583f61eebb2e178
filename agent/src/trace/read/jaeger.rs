//! Jaeger's older form: microseconds, and the parent among the references.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value as Json;

use super::{
    Gathering, ReadError,
    attributes::{Ours, Value},
    id, or_default,
};
use crate::trace::TraceSpan;

/// What is wrong, in Jaeger's words.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Said {
    #[serde(alias = "msg", deserialize_with = "or_default")]
    pub message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Trace {
    #[serde(deserialize_with = "or_default")]
    spans: Vec<Span>,
    #[serde(deserialize_with = "or_default")]
    processes: HashMap<String, Process>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Span {
    #[serde(rename = "traceID", deserialize_with = "or_default")]
    trace_id: String,
    #[serde(rename = "spanID", deserialize_with = "or_default")]
    span_id: String,
    #[serde(rename = "operationName", deserialize_with = "or_default")]
    operation: String,
    #[serde(deserialize_with = "or_default")]
    references: Vec<Reference>,
    /// Microseconds.
    #[serde(rename = "startTime", deserialize_with = "or_default")]
    start: u64,
    /// Microseconds.
    #[serde(deserialize_with = "or_default")]
    duration: u64,
    #[serde(deserialize_with = "or_default")]
    tags: Vec<Tag>,
    #[serde(rename = "processID", deserialize_with = "or_default")]
    process: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reference {
    #[serde(rename = "refType", deserialize_with = "or_default")]
    kind: String,
    #[serde(rename = "traceID", deserialize_with = "or_default")]
    trace_id: String,
    #[serde(rename = "spanID", deserialize_with = "or_default")]
    span_id: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Process {
    #[serde(rename = "serviceName", deserialize_with = "or_default")]
    service: String,
    #[serde(deserialize_with = "or_default")]
    tags: Vec<Tag>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Tag {
    #[serde(deserialize_with = "or_default")]
    key: String,
    #[serde(deserialize_with = "or_default")]
    value: Json,
}

impl From<Json> for Value {
    fn from(value: Json) -> Self {
        match value {
            Json::String(text) => Self::Text(text),
            Json::Bool(truth) => Self::Bool(truth),
            Json::Number(number) => number.as_f64().map_or(Self::Other, Self::Number),
            _ => Self::Other,
        }
    }
}

/// Takes the spans of a trace.
pub(super) fn take(trace: Trace, gathering: &mut Gathering) -> Result<(), ReadError> {
    for span in trace.spans {
        let process = trace.processes.get(&span.process);
        let found = of(&span, process, gathering);
        gathering.span(id::trace_id(&span.trace_id), found)?;
    }
    Ok(())
}

fn of(span: &Span, process: Option<&Process>, gathering: &mut Gathering) -> TraceSpan {
    let mut ours = Ours::default();
    let (mut kind, mut is_error) = (0, false);
    for tag in &span.tags {
        let value = Value::from(tag.value.clone());
        match (&*tag.key, &value) {
            ("span.kind", Value::Text(word)) => kind = kind_number(word),
            ("error", value) => is_error = *value == Value::Bool(true),
            _ => ours.take(&tag.key, value),
        }
    }
    let process_tag = |key: &str| {
        let tags = process.into_iter().flat_map(|p| &p.tags);
        let mut texts = tags
            .filter(|t| t.key == key)
            .filter_map(|t| t.value.as_str());
        texts.next().filter(|text| !text.is_empty())
    };
    let node = match &*ours.node {
        "" => ["k8s.node.name", "host.name", "hostname"]
            .into_iter()
            .find_map(process_tag)
            .unwrap_or_default(),
        node => node,
    };
    // What follows from another does not hold it up, and an OpenTelemetry link is told so.
    let parent = span.references.iter().find(|r| {
        r.kind == "CHILD_OF" && id::trace_id(&r.trace_id) == id::trace_id(&span.trace_id)
    });
    let start = span.start.saturating_mul(1_000);
    let end = start.saturating_add(span.duration.saturating_mul(1_000));
    let node = gathering.name(node);
    let (stretch, said) = ours.finish(start, end);
    TraceSpan {
        span_id: id::span_id(&span.span_id),
        parent_span_id: parent.map_or([0; 8], |r| id::span_id(&r.span_id)),
        service: gathering.name(process.map_or("", |p| &p.service)),
        operation: span.operation.clone(),
        kind,
        is_error,
        start_unix_ns: start,
        end_unix_ns: end,
        node,
        said,
        stretch,
    }
}

fn kind_number(word: &str) -> i32 {
    match word {
        "internal" => 1,
        "server" => 2,
        "client" => 3,
        "producer" => 4,
        "consumer" => 5,
        _ => 0,
    }
}

//! The messages of OTLP as tables: what JSON is translated by and binary requests are
//! checked against. A test compares every row with the published descriptors.

use opentelemetry_proto::tonic::{
    logs::v1::SeverityNumber,
    metrics::v1::AggregationTemporality,
    trace::v1::{span::SpanKind, status::StatusCode},
};

use super::{
    Signal,
    wire::{Fields, Value, WireError},
};

/// Messages nested deeper than this are refused: the limit of the usual parsers, so that
/// what is accepted here is not refused further on.
pub(crate) const MAX_DEPTH: usize = 100;

/// A message: its fields.
#[derive(Debug)]
pub(crate) struct Message {
    /// Its full name without the common prefix.
    pub name: &'static str,
    pub fields: &'static [Field],
}

/// One field of a message.
#[derive(Debug)]
pub(crate) struct Field {
    /// Its JSON key, lowerCamelCase.
    pub key: &'static str,
    pub number: u32,
    pub kind: Kind,
    pub presence: Presence,
}

/// How often a field occurs and whether its default is told from its absence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Singular; the default value is the same as absent.
    Implicit,
    /// `optional` or in a `oneof`: the default value is written too.
    Explicit,
    /// Repeated.
    Repeated,
}

/// A field's type.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    String,
    /// Bytes; base64 in JSON.
    Bytes,
    /// Bytes; hexadecimal in JSON.
    Id,
    Bool,
    Int32,
    Sint32,
    Uint32,
    Fixed32,
    Int64,
    Uint64,
    Fixed64,
    Sfixed64,
    Double,
    /// With its names.
    Enum(fn(&str) -> Option<i32>),
    Message(&'static Message),
}

impl Kind {
    /// Whether the repeated form may be packed into one length-delimited field.
    pub const fn is_packable(self) -> bool {
        !matches!(
            self,
            Self::String | Self::Bytes | Self::Id | Self::Message(_)
        )
    }

    const fn fits(self, value: &Value<'_>) -> bool {
        match self {
            Self::String | Self::Bytes | Self::Id | Self::Message(_) => {
                matches!(value, Value::Len(_))
            }
            Self::Fixed64 | Self::Sfixed64 | Self::Double => matches!(value, Value::Fixed64(_)),
            Self::Fixed32 => matches!(value, Value::Fixed32(_)),
            _ => matches!(value, Value::Varint(_)),
        }
    }

    /// Checks packed numbers.
    fn check_packed(self, bytes: &[u8]) -> Result<(), WireError> {
        match self {
            Self::Fixed64 | Self::Sfixed64 | Self::Double if bytes.len() % 8 == 0 => Ok(()),
            Self::Fixed32 if bytes.len() % 4 == 0 => Ok(()),
            Self::Fixed64 | Self::Sfixed64 | Self::Double | Self::Fixed32 => {
                Err(WireError::Truncated)
            }
            _ if bytes.last().is_some_and(|last| *last >= 0x80) => Err(WireError::Truncated),
            _ => match bytes.split(|byte| *byte < 0x80).all(|run| run.len() < 10) {
                true => Ok(()),
                false => Err(WireError::VarintOverflow),
            },
        }
    }
}

impl Message {
    /// The export request of a signal.
    pub fn request(signal: Signal) -> &'static Self {
        match signal {
            Signal::Traces => &TRACES,
            Signal::Metrics => &METRICS,
            Signal::Logs => &LOGS,
        }
    }

    /// Checks `bytes` all the way down: no field is truncated, and each known one has its
    /// wire type. Strings are not checked to be UTF-8. `depth` counts the messages around.
    pub fn check(&self, bytes: &[u8], depth: usize) -> Result<(), WireError> {
        if depth > MAX_DEPTH {
            return Err(WireError::TooDeep);
        }
        let mut fields = Fields::new(bytes);
        while let Some(found) = fields.next_field()? {
            let known = self.fields.iter().find(|f| f.number == found.number);
            let Some(known) = known else { continue };
            match (found.value, known.kind) {
                (Value::Len(bytes), Message(message)) => message.check(bytes, depth + 1)?,
                (Value::Len(bytes), kind)
                    if kind.is_packable() && known.presence == Presence::Repeated =>
                {
                    kind.check_packed(bytes)?;
                }
                (value, kind) if kind.fits(&value) => {}
                _ => return Err(WireError::KnownField(found.number)),
            }
        }
        Ok(())
    }
}

const fn one(key: &'static str, number: u32, kind: Kind) -> Field {
    Field {
        key,
        number,
        kind,
        presence: Presence::Implicit,
    }
}

const fn opt(key: &'static str, number: u32, kind: Kind) -> Field {
    Field {
        presence: Presence::Explicit,
        ..one(key, number, kind)
    }
}

const fn many(key: &'static str, number: u32, kind: Kind) -> Field {
    Field {
        presence: Presence::Repeated,
        ..one(key, number, kind)
    }
}

fn span_kind(name: &str) -> Option<i32> {
    SpanKind::from_str_name(name).map(|v| v as i32)
}

fn status_code(name: &str) -> Option<i32> {
    StatusCode::from_str_name(name).map(|v| v as i32)
}

fn temporality(name: &str) -> Option<i32> {
    AggregationTemporality::from_str_name(name).map(|v| v as i32)
}

fn severity(name: &str) -> Option<i32> {
    SeverityNumber::from_str_name(name).map(|v| v as i32)
}

/// Declares messages as `NAME "full name" { fields }`.
macro_rules! messages {
    ($($id:ident $name:literal [$($field:expr),* $(,)?])+) => {
        $(pub(crate) static $id: Message = Message { name: $name, fields: &[$($field),*] };)+

        #[cfg(test)]
        static ALL: &[&Message] = &[$(&$id),+];
    };
}

use Kind::*;

messages! {
    TRACES "collector.trace.v1.ExportTraceServiceRequest" [
        many("resourceSpans", 1, Message(&RESOURCE_SPANS)),
    ]
    METRICS "collector.metrics.v1.ExportMetricsServiceRequest" [
        many("resourceMetrics", 1, Message(&RESOURCE_METRICS)),
    ]
    LOGS "collector.logs.v1.ExportLogsServiceRequest" [
        many("resourceLogs", 1, Message(&RESOURCE_LOGS)),
    ]

    ANY_VALUE "common.v1.AnyValue" [
        opt("stringValue", 1, String),
        opt("boolValue", 2, Bool),
        opt("intValue", 3, Int64),
        opt("doubleValue", 4, Double),
        opt("arrayValue", 5, Message(&ARRAY_VALUE)),
        opt("kvlistValue", 6, Message(&KEY_VALUE_LIST)),
        opt("bytesValue", 7, Bytes),
        opt("stringValueStrindex", 8, Int32),
    ]
    ARRAY_VALUE "common.v1.ArrayValue" [many("values", 1, Message(&ANY_VALUE))]
    KEY_VALUE_LIST "common.v1.KeyValueList" [many("values", 1, Message(&KEY_VALUE))]
    KEY_VALUE "common.v1.KeyValue" [
        one("key", 1, String),
        one("value", 2, Message(&ANY_VALUE)),
        one("keyStrindex", 3, Int32),
    ]
    SCOPE "common.v1.InstrumentationScope" [
        one("name", 1, String),
        one("version", 2, String),
        many("attributes", 3, Message(&KEY_VALUE)),
        one("droppedAttributesCount", 4, Uint32),
    ]
    ENTITY_REF "common.v1.EntityRef" [
        one("schemaUrl", 1, String),
        one("type", 2, String),
        many("idKeys", 3, String),
        many("descriptionKeys", 4, String),
    ]
    RESOURCE "resource.v1.Resource" [
        many("attributes", 1, Message(&KEY_VALUE)),
        one("droppedAttributesCount", 2, Uint32),
        many("entityRefs", 3, Message(&ENTITY_REF)),
    ]

    RESOURCE_SPANS "trace.v1.ResourceSpans" [
        one("resource", 1, Message(&RESOURCE)),
        many("scopeSpans", 2, Message(&SCOPE_SPANS)),
        one("schemaUrl", 3, String),
    ]
    SCOPE_SPANS "trace.v1.ScopeSpans" [
        one("scope", 1, Message(&SCOPE)),
        many("spans", 2, Message(&SPAN)),
        one("schemaUrl", 3, String),
    ]
    SPAN "trace.v1.Span" [
        one("traceId", 1, Id),
        one("spanId", 2, Id),
        one("traceState", 3, String),
        one("parentSpanId", 4, Id),
        one("name", 5, String),
        one("kind", 6, Enum(span_kind)),
        one("startTimeUnixNano", 7, Fixed64),
        one("endTimeUnixNano", 8, Fixed64),
        many("attributes", 9, Message(&KEY_VALUE)),
        one("droppedAttributesCount", 10, Uint32),
        many("events", 11, Message(&SPAN_EVENT)),
        one("droppedEventsCount", 12, Uint32),
        many("links", 13, Message(&SPAN_LINK)),
        one("droppedLinksCount", 14, Uint32),
        one("status", 15, Message(&STATUS)),
        one("flags", 16, Fixed32),
    ]
    SPAN_EVENT "trace.v1.Span.Event" [
        one("timeUnixNano", 1, Fixed64),
        one("name", 2, String),
        many("attributes", 3, Message(&KEY_VALUE)),
        one("droppedAttributesCount", 4, Uint32),
    ]
    SPAN_LINK "trace.v1.Span.Link" [
        one("traceId", 1, Id),
        one("spanId", 2, Id),
        one("traceState", 3, String),
        many("attributes", 4, Message(&KEY_VALUE)),
        one("droppedAttributesCount", 5, Uint32),
        one("flags", 6, Fixed32),
    ]
    STATUS "trace.v1.Status" [
        one("message", 2, String),
        one("code", 3, Enum(status_code)),
    ]

    RESOURCE_METRICS "metrics.v1.ResourceMetrics" [
        one("resource", 1, Message(&RESOURCE)),
        many("scopeMetrics", 2, Message(&SCOPE_METRICS)),
        one("schemaUrl", 3, String),
    ]
    SCOPE_METRICS "metrics.v1.ScopeMetrics" [
        one("scope", 1, Message(&SCOPE)),
        many("metrics", 2, Message(&METRIC)),
        one("schemaUrl", 3, String),
    ]
    METRIC "metrics.v1.Metric" [
        one("name", 1, String),
        one("description", 2, String),
        one("unit", 3, String),
        opt("gauge", 5, Message(&GAUGE)),
        opt("sum", 7, Message(&SUM)),
        opt("histogram", 9, Message(&HISTOGRAM)),
        opt("exponentialHistogram", 10, Message(&EXPONENTIAL_HISTOGRAM)),
        opt("summary", 11, Message(&SUMMARY)),
        many("metadata", 12, Message(&KEY_VALUE)),
    ]
    GAUGE "metrics.v1.Gauge" [many("dataPoints", 1, Message(&NUMBER_POINT))]
    SUM "metrics.v1.Sum" [
        many("dataPoints", 1, Message(&NUMBER_POINT)),
        one("aggregationTemporality", 2, Enum(temporality)),
        one("isMonotonic", 3, Bool),
    ]
    HISTOGRAM "metrics.v1.Histogram" [
        many("dataPoints", 1, Message(&HISTOGRAM_POINT)),
        one("aggregationTemporality", 2, Enum(temporality)),
    ]
    EXPONENTIAL_HISTOGRAM "metrics.v1.ExponentialHistogram" [
        many("dataPoints", 1, Message(&EXPONENTIAL_HISTOGRAM_POINT)),
        one("aggregationTemporality", 2, Enum(temporality)),
    ]
    SUMMARY "metrics.v1.Summary" [many("dataPoints", 1, Message(&SUMMARY_POINT))]
    NUMBER_POINT "metrics.v1.NumberDataPoint" [
        one("startTimeUnixNano", 2, Fixed64),
        one("timeUnixNano", 3, Fixed64),
        opt("asDouble", 4, Double),
        many("exemplars", 5, Message(&EXEMPLAR)),
        opt("asInt", 6, Sfixed64),
        many("attributes", 7, Message(&KEY_VALUE)),
        one("flags", 8, Uint32),
    ]
    HISTOGRAM_POINT "metrics.v1.HistogramDataPoint" [
        one("startTimeUnixNano", 2, Fixed64),
        one("timeUnixNano", 3, Fixed64),
        one("count", 4, Fixed64),
        opt("sum", 5, Double),
        many("bucketCounts", 6, Fixed64),
        many("explicitBounds", 7, Double),
        many("exemplars", 8, Message(&EXEMPLAR)),
        many("attributes", 9, Message(&KEY_VALUE)),
        one("flags", 10, Uint32),
        opt("min", 11, Double),
        opt("max", 12, Double),
    ]
    EXPONENTIAL_HISTOGRAM_POINT "metrics.v1.ExponentialHistogramDataPoint" [
        many("attributes", 1, Message(&KEY_VALUE)),
        one("startTimeUnixNano", 2, Fixed64),
        one("timeUnixNano", 3, Fixed64),
        one("count", 4, Fixed64),
        opt("sum", 5, Double),
        one("scale", 6, Sint32),
        one("zeroCount", 7, Fixed64),
        one("positive", 8, Message(&BUCKETS)),
        one("negative", 9, Message(&BUCKETS)),
        one("flags", 10, Uint32),
        many("exemplars", 11, Message(&EXEMPLAR)),
        opt("min", 12, Double),
        opt("max", 13, Double),
        one("zeroThreshold", 14, Double),
    ]
    BUCKETS "metrics.v1.ExponentialHistogramDataPoint.Buckets" [
        one("offset", 1, Sint32),
        many("bucketCounts", 2, Uint64),
    ]
    SUMMARY_POINT "metrics.v1.SummaryDataPoint" [
        one("startTimeUnixNano", 2, Fixed64),
        one("timeUnixNano", 3, Fixed64),
        one("count", 4, Fixed64),
        one("sum", 5, Double),
        many("quantileValues", 6, Message(&QUANTILE)),
        many("attributes", 7, Message(&KEY_VALUE)),
        one("flags", 8, Uint32),
    ]
    QUANTILE "metrics.v1.SummaryDataPoint.ValueAtQuantile" [
        one("quantile", 1, Double),
        one("value", 2, Double),
    ]
    EXEMPLAR "metrics.v1.Exemplar" [
        one("timeUnixNano", 2, Fixed64),
        opt("asDouble", 3, Double),
        one("spanId", 4, Id),
        one("traceId", 5, Id),
        opt("asInt", 6, Sfixed64),
        many("filteredAttributes", 7, Message(&KEY_VALUE)),
    ]

    RESOURCE_LOGS "logs.v1.ResourceLogs" [
        one("resource", 1, Message(&RESOURCE)),
        many("scopeLogs", 2, Message(&SCOPE_LOGS)),
        one("schemaUrl", 3, String),
    ]
    SCOPE_LOGS "logs.v1.ScopeLogs" [
        one("scope", 1, Message(&SCOPE)),
        many("logRecords", 2, Message(&LOG_RECORD)),
        one("schemaUrl", 3, String),
    ]
    LOG_RECORD "logs.v1.LogRecord" [
        one("timeUnixNano", 1, Fixed64),
        one("severityNumber", 2, Enum(severity)),
        one("severityText", 3, String),
        one("body", 5, Message(&ANY_VALUE)),
        many("attributes", 6, Message(&KEY_VALUE)),
        one("droppedAttributesCount", 7, Uint32),
        one("flags", 8, Fixed32),
        one("traceId", 9, Id),
        one("spanId", 10, Id),
        one("observedTimeUnixNano", 11, Fixed64),
        one("eventName", 12, String),
    ]
}

#[cfg(test)]
mod tests;

//! Spans out of the JSON that trace stores give: OTLP (a file, one document or one a line, as
//! the collector's file exporter writes; also in Jaeger's `api_v3` and Tempo's envelopes) and
//! Jaeger's older form (also what its page downloads).
//!
//! Read for what is needed, and not through protobuf as the receiver does: the envelopes
//! differ, Tempo writes ids in base64 (protobuf's own JSON mapping), and of the attributes
//! only ours count. What is unknown is passed over, `null` is the same as absent.

mod attributes;
mod id;
mod jaeger;
mod otlp;
mod passed;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, io::Read, sync::Arc};

use serde::{Deserialize, Deserializer};
use serde_json::Value as Json;
use thiserror::Error;

pub use self::passed::{Passed, passed};
use super::{MAX_SPANS, TraceSpan};
use crate::span::TraceId;
pub use id::{BadTraceId, parse_trace_id};

/// Why there are no spans.
#[derive(Debug, Error)]
pub enum ReadError {
    /// Not JSON, or a known field holds what it cannot.
    #[error("not a trace in JSON (line {line}, column {column}: {what})")]
    Json {
        /// Where.
        line: usize,
        /// Where in it.
        column: usize,
        /// What is wrong.
        what: String,
    },
    /// It could not be read to its end.
    #[error("cannot be read: {0}")]
    Io(String),
    /// More spans than are looked at.
    #[error("the trace has more than {MAX_SPANS} spans, which is more than is looked at")]
    TooMany,
}

/// What documents held.
#[derive(Debug, Default)]
pub struct Found {
    /// Spans of the trace.
    pub spans: Vec<TraceSpan>,
    /// Spans of others.
    pub of_others: usize,
    /// What the store said beside it: an error, or why the trace is not complete.
    pub said: String,
    /// The store said that the trace is not complete.
    pub is_partial: bool,
}

/// Reads all documents of `from` and keeps the spans of one trace.
///
/// # Errors
/// When it is not JSON of a known form, or holds more than [`MAX_SPANS`] spans of the trace.
pub fn read(from: impl Read, trace_id: TraceId) -> Result<Found, ReadError> {
    let documents = serde_json::Deserializer::from_reader(from).into_iter::<Document>();
    let mut gathering = Gathering::of(trace_id);
    for document in documents {
        let document = document.map_err(|error| {
            if error.is_io() {
                return ReadError::Io(error.to_string());
            }
            let text = error.to_string();
            let place = format!(" at line {} column {}", error.line(), error.column());
            ReadError::Json {
                line: error.line(),
                column: error.column(),
                what: text.trim_end_matches(&place).to_owned(),
            }
        })?;
        gathering.document(document)?;
    }
    Ok(gathering.found)
}

/// Any of the forms.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Document {
    /// OTLP; Tempo's first version calls it `batches`.
    #[serde(
        rename = "resourceSpans",
        alias = "resource_spans",
        alias = "batches",
        deserialize_with = "or_default"
    )]
    resource_spans: Vec<otlp::ResourceSpans>,
    /// Jaeger's `api_v3`.
    result: Option<Box<Document>>,
    /// Tempo's second version.
    trace: Option<Box<Document>>,
    /// Tempo's second version: why it is not complete.
    #[serde(deserialize_with = "or_default")]
    message: String,
    /// Tempo's second version: whether it is complete (`PartialStatus`), by name or number.
    status: Json,
    /// Jaeger's older form.
    #[serde(deserialize_with = "or_default")]
    data: Vec<jaeger::Trace>,
    /// What Jaeger's older form says is wrong.
    #[serde(deserialize_with = "or_default")]
    errors: Vec<jaeger::Said>,
    /// What Jaeger's `api_v3` says is wrong.
    #[serde(deserialize_with = "or_default")]
    error: jaeger::Said,
}

/// Spans of one trace, out of many documents.
struct Gathering {
    trace_id: TraceId,
    found: Found,
    /// Names that many spans share.
    names: HashMap<String, Arc<str>>,
}

impl Gathering {
    fn of(trace_id: TraceId) -> Self {
        Self {
            trace_id,
            found: Found::default(),
            names: HashMap::new(),
        }
    }

    fn document(&mut self, document: Document) -> Result<(), ReadError> {
        let said = document.errors.into_iter().chain([document.error]);
        let said = said.map(|said| said.message).chain([document.message]);
        for text in said.filter(|text| !text.is_empty()) {
            self.found.said = text;
        }
        self.found.is_partial |= document.status == "PARTIAL" || document.status == 1;
        for resource in document.resource_spans {
            otlp::take(resource, self)?;
        }
        for trace in document.data {
            jaeger::take(trace, self)?;
        }
        for inner in [document.result, document.trace].into_iter().flatten() {
            self.document(*inner)?;
        }
        Ok(())
    }

    fn span(&mut self, trace_id: TraceId, span: TraceSpan) -> Result<(), ReadError> {
        if trace_id != self.trace_id {
            self.found.of_others += 1;
            return Ok(());
        }
        if self.found.spans.len() >= MAX_SPANS {
            return Err(ReadError::TooMany);
        }
        self.found.spans.push(span);
        Ok(())
    }

    fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return known.clone();
        }
        let shared: Arc<str> = name.into();
        self.names.insert(name.to_owned(), shared.clone());
        shared
    }
}

/// `null` is the same as absent.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

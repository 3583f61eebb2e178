//! The agent's own span of an export attempt; costs next to nothing while self-telemetry
//! is off, as the API's global tracer does nothing then.

use opentelemetry::{
    KeyValue, global,
    trace::{Span, SpanKind, Status, Tracer},
};

use super::{answer::Answer, batch::Batch, signal::Named};
use crate::otlp::Signal;

pub(super) struct Attempt(global::BoxedSpan);

impl Attempt {
    pub fn start(signal: Signal, batch: &Batch) -> Self {
        let tracer = global::tracer("isostack-agent");
        let mut span = tracer
            .span_builder("export")
            .with_kind(SpanKind::Client)
            .start(&tracer);
        if span.is_recording() {
            span.set_attribute(KeyValue::new("signal", signal.lower()));
            span.set_attribute(KeyValue::new("requests", batch.parts.len() as i64));
            span.set_attribute(KeyValue::new("items", batch.items() as i64));
            span.set_attribute(KeyValue::new("bytes", batch.bytes() as i64));
        }
        Self(span)
    }

    pub fn end(mut self, answer: &Answer) {
        let error = match answer {
            Answer::Delivered { .. } => None,
            Answer::Retry { message, .. }
            | Answer::Held { message, .. }
            | Answer::Suspect { message, .. }
            | Answer::Rejected { message }
            | Answer::TooLarge { message } => Some(message),
        };
        if let Some(message) = error
            && self.0.is_recording()
        {
            self.0.set_status(Status::error(message.clone()));
        }
        self.0.end();
    }
}

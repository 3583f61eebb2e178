//! What an agent upstream wrote on a span that came to this one: out of the span's own message in
//! protobuf, as it is kept.

use super::attributes::{Ours, Value};
use crate::{
    otlp::wire::{self, Fields},
    trace::{Said, Stretch},
};

/// Longest text taken, in bytes: a sentence.
const MAX_TEXT: usize = 1_024;
/// Attributes of one span that are looked at.
const MAX_ATTRIBUTES: usize = 1_024;

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Passed {
    /// The node of the agent that wrote it.
    pub node: String,
    /// What it said of the span.
    pub said: Option<Box<Said>>,
    /// It made the span itself.
    pub stretch: Option<Stretch>,
}

/// Reads the `Span` message of a span of these times; what is broken ends it.
#[must_use]
pub fn passed(span: &[u8], (start, end): (u64, u64)) -> Passed {
    let mut ours = Ours::default();
    let mut fields = Fields::new(span);
    let attributes = std::iter::from_fn(|| fields.next_field().ok().flatten());
    let attributes = attributes.filter_map(|field| match (field.number, field.value) {
        (9, wire::Value::Len(attribute)) => Some(attribute),
        _ => None,
    });
    for attribute in attributes.take(MAX_ATTRIBUTES) {
        if let Some((key, value)) = key_value(attribute) {
            ours.take(key, value);
        }
    }
    let node = std::mem::take(&mut ours.node);
    let (stretch, said) = ours.finish(start, end);
    Passed {
        node,
        said,
        stretch,
    }
}

/// Of a `KeyValue`.
fn key_value(attribute: &[u8]) -> Option<(&str, Value)> {
    let (mut key, mut value) = (None, Value::Other);
    let mut fields = Fields::new(attribute);
    while let Some(field) = fields.next_field().ok()? {
        match (field.number, field.value) {
            (1, wire::Value::Len(text)) => key = std::str::from_utf8(text).ok(),
            (2, wire::Value::Len(any)) => value = any_value(any)?,
            _ => {}
        }
    }
    Some((key?, value))
}

/// Of an `AnyValue`.
fn any_value(any: &[u8]) -> Option<Value> {
    let field = Fields::new(any).next_field().ok()??;
    Some(match (field.number, field.value) {
        (1, wire::Value::Len(text)) => {
            let text = &text[..text.len().min(MAX_TEXT)];
            Value::Text(String::from_utf8_lossy(text).into_owned())
        }
        (2, wire::Value::Varint(is)) => Value::Bool(is != 0),
        (3, wire::Value::Varint(number)) => Value::Number(number as i64 as f64),
        (4, wire::Value::Fixed64(bits)) => Value::Number(f64::from_bits(bits)),
        _ => Value::Other,
    })
}

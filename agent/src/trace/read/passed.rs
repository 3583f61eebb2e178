//! What an agent upstream wrote on a span that came to this one: out of the span's own message in
//! protobuf, as it is kept.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::attributes::{Ours, Value};
use crate::{
    otlp::wire::{self, Fields},
    trace::{Said, Stretch},
};

/// Longest text taken, in bytes: a sentence.
const MAX_TEXT: usize = 1_024;
/// Attributes of one span that are looked at.
const MAX_ATTRIBUTES: usize = 1_024;

/// Bytes that may be kept at once, of all spans: some 10 000 of them with verdicts.
const MAX_HELD: usize = 16 << 20;
/// Bytes of a span beside its texts: the numbers, their names and what holds them.
const BASE: usize = 512;

/// What is kept now.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// A part of [`MAX_HELD`], given back in the end.
#[derive(Debug, PartialEq)]
struct Held(usize);

impl Held {
    /// `None` where there is no room.
    fn take(bytes: usize) -> Option<Self> {
        let before = HELD.fetch_add(bytes, Ordering::Relaxed);
        let held = Self(bytes);
        (before + bytes <= MAX_HELD).then_some(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// See the module.
#[derive(Debug, PartialEq)]
pub struct Passed {
    /// The node of the agent that wrote it.
    pub node: String,
    /// What it said of the span.
    pub said: Option<Box<Said>>,
    /// It made the span itself.
    pub stretch: Option<Stretch>,
    _held: Held,
}

/// Reads the `Span` message of a span of these times; what is broken ends it. `None` where too much
/// is kept already.
#[must_use]
pub fn passed(span: &[u8], (start, end): (u64, u64)) -> Option<Passed> {
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
    let words = said.as_ref().map_or(0, |said| bytes(said));
    Some(Passed {
        _held: Held::take(BASE + node.len() + words)?,
        node,
        said,
        stretch,
    })
}

/// About as many bytes as it takes.
fn bytes(said: &Said) -> usize {
    let words = [&said.layer, &said.stack, &said.confidence].map(String::len);
    let verdict = said.verdict.as_ref().map_or(0, |verdict| {
        let texts = [
            &verdict.culprit,
            &verdict.incident,
            &verdict.summary,
            &verdict.remedy,
        ];
        let names: usize = verdict.evidence.keys().map(|name| name.len() + 64).sum();
        texts.map(String::len).iter().sum::<usize>() + names
    });
    words.iter().sum::<usize>() + said.split.len() * 64 + verdict
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_at_once_is_bounded() {
        let most = Held::take(MAX_HELD / 2).expect("little else is kept");
        assert!(Held::take(MAX_HELD).is_none());
        drop(most);
        assert!(Held::take(MAX_HELD / 2).is_some(), "it was given back");
    }
}

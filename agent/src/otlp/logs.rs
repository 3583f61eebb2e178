//! Log records that pass through: one whose body speaks of an isolation layer gets the
//! attribute `isostack.layer` at its end; every other byte leaves as it came.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;

use super::{
    view::intern,
    wire::{Fields, Value, WireError, put_bytes, put_varint},
};
use crate::{
    classify::{Classifier, Hit, Only},
    span::Resource,
    workload::Workload,
};

/// The attribute that is added.
const KEY: &str = "isostack.layer";
/// Resources of one request whose owner is asked for; the others' lines are nobody's.
const MAX_RESOURCES: usize = 1024;

/// A record that says something.
#[derive(Debug)]
pub struct FoundRecord<'a> {
    /// What it says.
    pub hit: Hit,
    /// Its body's text.
    pub body: &'a [u8],
    /// Whose it is.
    pub workload: &'a Workload,
}

/// What the resources of an `ExportLogsServiceRequest` say of themselves, in order; none of a
/// message that is not one.
#[must_use]
pub fn resources(payload: &[u8]) -> Vec<Arc<Resource>> {
    let mut resources = Vec::new();
    let mut fields = Fields::new(payload);
    while let Ok(Some(field)) = fields.next_field() {
        if let (1, Value::Len(resource_logs)) = (field.number, field.value)
            && resources.len() < MAX_RESOURCES
        {
            // What cannot be read is of nobody.
            resources.push(resource(resource_logs).unwrap_or_default());
        }
    }
    resources
}

/// An `ExportLogsServiceRequest` with the layer added where a body speaks of one. What is
/// not such a message, or already carries the attribute, leaves as it came. `owners` are those
/// of its [`resources`], in order.
#[must_use]
pub fn enrich_logs(
    payload: &Bytes,
    owners: &[Workload],
    sink: &mut dyn FnMut(FoundRecord<'_>),
) -> Bytes {
    let nobody = Workload::default();
    let mut owners = owners.iter();
    let mut rest = |resource: &[u8]| {
        let owner = owners.next().unwrap_or(&nobody);
        rewrite(resource, 2, &mut |scope| {
            rewrite(scope, 2, &mut |record| log_record(record, owner, sink))
        })
    };
    match rewrite(payload, 1, &mut rest) {
        Ok(Some(changed)) => changed.into(),
        Ok(None) | Err(_) => payload.clone(),
    }
}

/// A message that became another one; `None` where it stays as it is.
type Rewritten = Result<Option<Vec<u8>>, WireError>;

/// The message with its fields `number` rewritten by `inner`; `None` if that changes none.
fn rewrite(message: &[u8], number: u32, inner: &mut dyn FnMut(&[u8]) -> Rewritten) -> Rewritten {
    let mut fields = Fields::new(message);
    let mut out: Option<Vec<u8>> = None;
    let mut copied = 0;
    while let Some(field) = fields.next_field()? {
        let Value::Len(body) = field.value else {
            continue;
        };
        if field.number != number {
            continue;
        }
        if let Some(new) = inner(body)? {
            let out = out.get_or_insert_with(|| Vec::with_capacity(message.len() + 256));
            out.extend_from_slice(&message[copied..field.tag_end]);
            put_varint(out, new.len() as u64);
            out.extend_from_slice(&new);
            copied = fields.position();
        }
    }
    Ok(out.map(|mut out| {
        out.extend_from_slice(&message[copied..]);
        out
    }))
}

/// One `LogRecord`: body 5, attributes 6.
fn log_record(
    record: &[u8],
    workload: &Workload,
    sink: &mut dyn FnMut(FoundRecord<'_>),
) -> Rewritten {
    let mut fields = Fields::new(record);
    let mut body: &[u8] = &[];
    while let Some(field) = fields.next_field()? {
        match (field.number, field.value) {
            (5, Value::Len(value)) => body = value,
            (6, Value::Len(attribute)) if key_value(attribute)?.0 == KEY.as_bytes() => {
                return Ok(None);
            }
            _ => {}
        }
    }
    // A structured body is looked at as it lies: its texts are in it.
    let text = string_value(body)?.unwrap_or(body);
    let Some(hit) = Classifier::get().classify(text, Only::default()) else {
        return Ok(None);
    };
    sink(FoundRecord {
        hit,
        body: text,
        workload,
    });
    let mut value = Vec::new();
    put_bytes(&mut value, 1, hit.rule.layer.as_str().as_bytes());
    let mut attribute = Vec::new();
    put_bytes(&mut attribute, 1, KEY.as_bytes());
    put_bytes(&mut attribute, 2, &value);
    let mut out = Vec::with_capacity(record.len() + attribute.len() + 4);
    out.extend_from_slice(record);
    put_bytes(&mut out, 6, &attribute);
    Ok(Some(out))
}

/// The resource of a `ResourceLogs`; a message split over several occurrences is their
/// concatenation.
fn resource(resource_logs: &[u8]) -> Result<Arc<Resource>, WireError> {
    let mut bytes = Cow::Borrowed(&[][..]);
    let mut fields = Fields::new(resource_logs);
    while let Some(field) = fields.next_field()? {
        match (field.number, field.value) {
            (1, Value::Len(more)) if bytes.is_empty() => bytes = Cow::Borrowed(more),
            (1, Value::Len(more)) => bytes.to_mut().extend_from_slice(more),
            _ => {}
        }
    }
    intern(&bytes)
}

/// Key and value of a `KeyValue`.
fn key_value(message: &[u8]) -> Result<(&[u8], &[u8]), WireError> {
    let (mut key, mut value): (&[u8], &[u8]) = (&[], &[]);
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next_field()? {
        match (field.number, field.value) {
            (1, Value::Len(bytes)) => key = bytes,
            (2, Value::Len(bytes)) => value = bytes,
            _ => {}
        }
    }
    Ok((key, value))
}

/// The text of an `AnyValue` that is one.
fn string_value(any_value: &[u8]) -> Result<Option<&[u8]>, WireError> {
    let mut fields = Fields::new(any_value);
    let mut text = None;
    while let Some(field) = fields.next_field()? {
        text = match (field.number, field.value) {
            (1, Value::Len(bytes)) => Some(bytes),
            _ => None,
        };
    }
    Ok(text)
}

#[cfg(test)]
mod tests;

//! The additions taken out again.

use prost::Message;

use super::{super::children::SCOPE_NAME, *};

/// Undoes the splice by its own rules: our attributes are the last of a span, our scope is
/// the last of its resource; all prefixes are written anew.
pub(super) fn strip(output: &[u8]) -> Vec<u8> {
    rebuild(output, 1, &|resource| {
        rebuild(&without_our_scope(resource), 2, &|scope| {
            rebuild(scope, 2, &without_our_attributes)
        })
    })
}

/// All fields, those of `number` changed by `change`.
fn rebuild(bytes: &[u8], number: u32, change: &dyn Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let (mut out, mut fields) = (Vec::new(), Fields::new(bytes));
    let mut start = 0;
    while let Some(field) = fields.next_field().unwrap() {
        match field.value {
            Value::Len(body) if field.number == number => {
                put_bytes(&mut out, number, &change(body))
            }
            _ => out.extend_from_slice(&bytes[start..fields.position()]),
        }
        start = fields.position();
    }
    out
}

fn without_our_scope(resource: &[u8]) -> Vec<u8> {
    let mut fields = Fields::new(resource);
    let mut last = (0, None);
    loop {
        let start = fields.position();
        let Some(field) = fields.next_field().unwrap() else {
            break;
        };
        last = (start, Some(field));
    }
    if let (start, Some(field)) = last
        && let (2, Value::Len(body)) = (field.number, field.value)
        && let Ok(scope) = pb::ScopeSpans::decode(body)
        && scope.scope.is_some_and(|scope| scope.name == SCOPE_NAME)
    {
        return resource[..start].to_vec();
    }
    resource.to_vec()
}

fn without_our_attributes(span: &[u8]) -> Vec<u8> {
    let mut fields = Fields::new(span);
    let mut end = 0;
    while let Some(field) = fields.next_field().unwrap() {
        let is_ours = match (field.number, field.value) {
            (9, Value::Len(body)) => KeyValue::decode(body).unwrap().key.starts_with("isostack."),
            _ => false,
        };
        if !is_ours {
            end = fields.position();
        }
    }
    span[..end].to_vec()
}

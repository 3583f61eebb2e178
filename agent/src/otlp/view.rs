//! One pass over an `ExportTraceServiceRequest`: where its spans are and what judging needs
//! of them. Nothing is copied but the few fields of [`SpanView`]; resources are read once
//! and shared.
//!
//! The message is checked all the way down, because one that is acknowledged here and
//! refused downstream would be lost, and would take others with it. Strings that are not
//! UTF-8 pass: they are forwarded as they came.

use bytes::Bytes;
use thiserror::Error;

use super::{
    enrich, schema,
    wire::{Fields, Value, WireError},
};
use crate::{
    span::{Joined, ResourceSpans, SpanBatch, SpanView},
    time::MonoNs,
    vocabulary::Confidence,
};

pub(super) use self::resource::intern;

mod resource;

/// Most spans in one request: an empty span takes two bytes on the wire and a hundred here.
pub const MAX_SPANS: usize = 1 << 18;
/// Most `ResourceSpans` and `ScopeSpans` together in one request, for the same reason.
pub const MAX_SCOPES: usize = 1 << 17;

/// Why a request is not one that the protocol allows.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// Not protobuf, or not this message.
    #[error("the request is not a valid OTLP message: {0}")]
    Wire(#[from] WireError),
    /// More parts than the agent takes in one request.
    #[error("the request holds more than {limit} {what}; send smaller batches")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many are allowed.
        limit: usize,
    },
    /// 4 GiB or more.
    #[error("the request is larger than 4 GiB; send smaller batches")]
    TooLarge,
    /// Not JSON, or not this message.
    #[error("the request is not valid OTLP/JSON: {0}")]
    Json(String),
}

/// Finds the spans of a request.
///
/// `joined` of each resource starts as [`Confidence::Host`], `permit` as `None`. Ids of a
/// wrong length read as zero.
///
/// # Errors
/// When the request is malformed; nothing of it should be forwarded then.
pub fn parse(payload: Bytes, received: MonoNs) -> Result<SpanBatch, Malformed> {
    if u32::try_from(payload.len()).is_err() {
        return Err(Malformed::TooLarge);
    }
    let mut parser = Parser {
        start: payload.as_ptr() as usize,
        resources: Vec::new(),
        spans: Vec::with_capacity(payload.len() / 384),
        scopes: 0,
    };
    let mut request = Fields::new(&payload);
    while let Some(field) = request.next_field()? {
        match (field.number, field.value) {
            (1, Value::Len(body)) => parser.resource_spans(body)?,
            (1, _) => return Err(WireError::KnownField(1).into()),
            _ => {}
        }
    }
    let Parser {
        resources, spans, ..
    } = parser;
    Ok(SpanBatch {
        payload,
        received,
        resources,
        spans,
        permit: None,
    })
}

struct Parser {
    /// Address of the payload's first byte: turns parts of it into offsets.
    start: usize,
    resources: Vec<ResourceSpans>,
    spans: Vec<SpanView>,
    scopes: usize,
}

impl Parser {
    /// Where `part` lies in the payload, which is shorter than 4 GiB.
    fn range(&self, part: &[u8]) -> std::ops::Range<u32> {
        let start = (part.as_ptr() as usize - self.start) as u32;
        start..start + part.len() as u32
    }

    fn count_scope(&mut self) -> Result<(), Malformed> {
        self.scopes += 1;
        if self.scopes > MAX_SCOPES {
            return Err(Malformed::TooMany {
                what: "resources and scopes",
                limit: MAX_SCOPES,
            });
        }
        Ok(())
    }

    fn resource_spans(&mut self, body: &[u8]) -> Result<(), Malformed> {
        self.count_scope()?;
        let first = self.spans.len();
        let mut resource: Option<&[u8]> = None;
        let mut merged = Vec::new();
        let mut fields = Fields::new(body);
        while let Some(field) = fields.next_field()? {
            match (field.number, field.value) {
                (1, Value::Len(bytes)) => {
                    // A message split over several occurrences is their concatenation.
                    if let Some(earlier) = resource.replace(bytes) {
                        if merged.is_empty() {
                            merged.extend_from_slice(earlier);
                        }
                        merged.extend_from_slice(bytes);
                    }
                }
                (2, Value::Len(bytes)) => self.scope_spans(bytes)?,
                (1..=2, _) => return Err(WireError::KnownField(field.number).into()),
                (3, Value::Len(_)) => {}
                (3, _) => return Err(WireError::KnownField(3).into()),
                _ => {}
            }
        }
        let bytes = match merged.is_empty() {
            true => resource.unwrap_or_default(),
            false => &merged,
        };
        self.resources.push(ResourceSpans {
            spans: first..self.spans.len(),
            resource: intern(bytes)?,
            joined: Joined {
                identity: None,
                confidence: Confidence::Host,
            },
        });
        Ok(())
    }

    fn scope_spans(&mut self, body: &[u8]) -> Result<(), Malformed> {
        self.count_scope()?;
        let mut fields = Fields::new(body);
        while let Some(field) = fields.next_field()? {
            match (field.number, field.value) {
                (1, Value::Len(scope)) => schema::SCOPE.check(scope, 3)?,
                (2, Value::Len(span)) => {
                    if self.spans.len() == MAX_SPANS {
                        return Err(Malformed::TooMany {
                            what: "spans",
                            limit: MAX_SPANS,
                        });
                    }
                    let span = self.span(span)?;
                    self.spans.push(span);
                }
                (3, Value::Len(_)) => {}
                (1..=3, _) => return Err(WireError::KnownField(field.number).into()),
                _ => {}
            }
        }
        Ok(())
    }

    fn span(&self, body: &[u8]) -> Result<SpanView, WireError> {
        let mut view = SpanView {
            body: self.range(body),
            ..SpanView::default()
        };
        let mut fields = Fields::new(body);
        while let Some(field) = fields.next_field()? {
            match (field.number, field.value) {
                (1, Value::Len(id)) => view.trace_id = id.try_into().unwrap_or_default(),
                (2, Value::Len(id)) => view.span_id = id.try_into().unwrap_or_default(),
                (4, Value::Len(id)) => view.parent_span_id = id.try_into().unwrap_or_default(),
                (5, Value::Len(name)) => view.name = self.range(name),
                (6, Value::Varint(kind)) => view.kind = kind as i32,
                (7, Value::Fixed64(time)) => view.start_unix_ns = time,
                (8, Value::Fixed64(time)) => view.end_unix_ns = time,
                (9, Value::Len(attribute)) => {
                    let attribute = Attribute::read(attribute, 4)?;
                    if attribute.key == b"thread.id" {
                        view.thread_id = attribute.int().or(view.thread_id);
                    } else if enrich::is_mark(attribute.key) {
                        view.is_enriched = true;
                    }
                }
                (11, Value::Len(event)) => schema::SPAN_EVENT.check(event, 4)?,
                (13, Value::Len(link)) => schema::SPAN_LINK.check(link, 4)?,
                (15, Value::Len(status)) => status_code(status, &mut view.status_code)?,
                (3, Value::Len(_))
                | (10 | 12 | 14, Value::Varint(_))
                | (16, Value::Fixed32(_))
                | (17.., _) => {}
                (number, _) => return Err(WireError::KnownField(number)),
            }
        }
        Ok(view)
    }
}

fn status_code(status: &[u8], code: &mut i32) -> Result<(), WireError> {
    let mut fields = Fields::new(status);
    while let Some(field) = fields.next_field()? {
        match (field.number, field.value) {
            (3, Value::Varint(value)) => *code = value as i32,
            (2, Value::Len(_)) => {}
            (2 | 3, _) => return Err(WireError::KnownField(field.number)),
            _ => {}
        }
    }
    Ok(())
}

/// A `KeyValue`, checked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Attribute<'a> {
    /// The key, as it came.
    pub key: &'a [u8],
    /// The `AnyValue` message; the last one where split.
    value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// Reads and checks the `KeyValue` message `bytes`, `depth` messages deep.
    #[inline]
    pub fn read(bytes: &'a [u8], depth: usize) -> Result<Self, WireError> {
        match Self::plain(bytes) {
            Some(attribute) => Ok(attribute),
            None => Self::any(bytes, depth),
        }
    }

    /// A short key and then a short value that is no message: what nearly all are.
    #[inline]
    fn plain(bytes: &'a [u8]) -> Option<Self> {
        let [0x0a, length @ 0..0x80, rest @ ..] = bytes else {
            return None;
        };
        let (key, rest) = rest.split_at_checked(usize::from(*length))?;
        let [0x12, length @ 0..0x80, value @ ..] = rest else {
            return None;
        };
        let is_plain = match value {
            [0x0a, length @ 0..0x80, text @ ..] => text.len() == usize::from(*length),
            [0x10, 0..0x80] | [0x18, 0..0x80] | [0x21, _, _, _, _, _, _, _, _] => true,
            [0x18, 0x80..=0xff, 0..0x80] | [0x18, 0x80..=0xff, 0x80..=0xff, 0..0x80] => true,
            _ => false,
        };
        (is_plain && value.len() == usize::from(*length)).then_some(Self { key, value })
    }

    fn any(bytes: &'a [u8], depth: usize) -> Result<Self, WireError> {
        let mut read = Self::default();
        let mut fields = Fields::new(bytes);
        while let Some(field) = fields.next_field()? {
            match (field.number, field.value) {
                (1, Value::Len(key)) => read.key = key,
                (2, Value::Len(value)) => {
                    schema::ANY_VALUE.check(value, depth + 1)?;
                    read.value = value;
                }
                (3, Value::Varint(_)) => {}
                (1..=3, _) => return Err(WireError::KnownField(field.number)),
                _ => {}
            }
        }
        Ok(read)
    }

    /// Its value, when a string.
    pub fn string(&self) -> Option<&'a [u8]> {
        self.last(|number, value| match (number, value) {
            (1, Value::Len(text)) => Some(text),
            _ => None,
        })
    }

    /// Its value, when an integer.
    pub fn int(&self) -> Option<i64> {
        self.last(|number, value| match (number, value) {
            (3, Value::Varint(int)) => Some(int as i64),
            _ => None,
        })
    }

    /// The last field of the value decides, as of several in a `oneof`.
    fn last<T>(&self, read: impl Fn(u32, Value<'a>) -> Option<T>) -> Option<T> {
        let mut fields = Fields::new(self.value);
        let mut found = None;
        while let Ok(Some(field)) = fields.next_field() {
            if (1..=8).contains(&field.number) {
                found = read(field.number, field.value);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests;

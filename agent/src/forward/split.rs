//! Cuts one export request in two where downstream finds it too long.
//!
//! The three signals are built alike: a request repeats field 1 (resources), a resource
//! repeats field 2 (scopes), a scope repeats field 2 (spans, metrics, log records). What is
//! not repeated there (the resource itself, the scope itself, schema addresses, unknown
//! fields) belongs to both halves. Items keep their bytes.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field,
};

/// The repeated field of a request, a resource, and a scope.
const REPEATED: [u32; 3] = [1, 2, 2];

/// A field of a message: where it lies with its key, and where its value lies if it is
/// length-delimited.
struct Field {
    number: u32,
    whole: Range<usize>,
    value: Option<Range<usize>>,
}

/// The two halves; `None` when there is only one item, or none that can be found.
pub(super) fn halve(request: &Bytes) -> Option<(Bytes, Bytes)> {
    halve_at(request, &REPEATED)
}

/// Items (spans, metrics, log records) in a request; 0 when it cannot be read.
pub(super) fn count(request: &[u8]) -> usize {
    count_at(request, &REPEATED)
}

fn count_at(message: &[u8], levels: &[u32]) -> usize {
    let Some((number, below)) = levels.split_first() else {
        return 1;
    };
    let fields = fields(message).unwrap_or_default();
    let values = fields.iter().filter(|f| f.number == *number);
    values
        .filter_map(|f| f.value.clone())
        .map(|value| count_at(&message[value], below))
        .sum()
}

fn halve_at(message: &[u8], levels: &[u32]) -> Option<(Bytes, Bytes)> {
    let (number, below) = levels.split_first()?;
    let fields = fields(message)?;
    let repeated = |f: &&Field| f.number == *number && f.value.is_some();
    match fields.iter().filter(repeated).count() {
        0 => None,
        1 => {
            let only = fields.iter().find(repeated)?;
            let (first, second) = halve_at(&message[only.value.clone()?], below)?;
            let rebuild = |half: &Bytes| {
                let mut out = BytesMut::with_capacity(message.len());
                for field in &fields {
                    if field.whole == only.whole {
                        encode_key(*number, WireType::LengthDelimited, &mut out);
                        encode_varint(half.len() as u64, &mut out);
                        out.put_slice(half);
                    } else {
                        out.put_slice(&message[field.whole.clone()]);
                    }
                }
                out.freeze()
            };
            Some((rebuild(&first), rebuild(&second)))
        }
        several => {
            let (mut first, mut second) = (BytesMut::new(), BytesMut::new());
            let mut seen = 0;
            for field in &fields {
                let bytes = &message[field.whole.clone()];
                if !repeated(&field) {
                    first.put_slice(bytes);
                    second.put_slice(bytes);
                    continue;
                }
                let half = if seen < several / 2 {
                    &mut first
                } else {
                    &mut second
                };
                half.put_slice(bytes);
                seen += 1;
            }
            Some((first.freeze(), second.freeze()))
        }
    }
}

fn fields(message: &[u8]) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        let start = message.len() - rest.len();
        let (number, wire) = decode_key(&mut rest).ok()?;
        let value = if wire == WireType::LengthDelimited {
            let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
            let from = message.len() - rest.len();
            rest = rest.get(length..)?;
            Some(from..from + length)
        } else {
            skip_field(wire, number, &mut rest, DecodeContext::default()).ok()?;
            None
        };
        let whole = start..message.len() - rest.len();
        fields.push(Field {
            number,
            whole,
            value,
        });
    }
    Some(fields)
}

#[cfg(test)]
mod tests;

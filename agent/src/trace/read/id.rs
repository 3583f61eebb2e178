//! Ids as people and stores write them.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use thiserror::Error;

use crate::span::{SpanId, TraceId};

/// Why a text is no trace id.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "`{given}` is no trace id: give up to 32 hexadecimal digits, as in \
     0af7651916cd43dd8448eb211c80319c"
)]
pub struct BadTraceId {
    /// As given, cut and escaped.
    pub given: String,
}

/// A trace id as a person gives it: upper case, with blanks around it, and without its leading
/// zeros (as older tracers and stores write 64-bit ids) too.
///
/// # Errors
/// When it is none.
pub fn parse_trace_id(text: &str) -> Result<TraceId, BadTraceId> {
    const MAX_ECHO: usize = 64;
    let id = text.trim();
    let digits = !id.is_empty() && id.len() <= 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    let number = digits.then(|| u128::from_str_radix(id, 16).ok()).flatten();
    match number {
        Some(number) if number != 0 => Ok(number.to_be_bytes()),
        _ => Err(BadTraceId {
            given: text[..text.floor_char_boundary(MAX_ECHO)]
                .escape_debug()
                .to_string(),
        }),
    }
}

/// A trace id as a store writes it: hexadecimal, or base64; zeros for what is neither.
pub(super) fn trace_id(text: &str) -> TraceId {
    if let Ok(id) = parse_trace_id(text) {
        return id;
    }
    right_aligned(BASE64_STANDARD.decode(text))
}

/// A span id likewise.
pub(super) fn span_id(text: &str) -> SpanId {
    let hex = text.len() <= 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    // Twelve characters are base64's length of it, and may all be hexadecimal digits; an id
    // so short in hexadecimal is written with its leading zeros by every store but the oldest.
    match u64::from_str_radix(text, 16) {
        Ok(number) if hex && text.len() != 12 => number.to_be_bytes(),
        _ => right_aligned(BASE64_STANDARD.decode(text)),
    }
}

fn right_aligned<const N: usize>(bytes: Result<Vec<u8>, base64::DecodeError>) -> [u8; N] {
    let mut id = [0; N];
    if let Ok(bytes) = bytes
        && bytes.len() <= N
    {
        id[N - bytes.len()..].copy_from_slice(&bytes);
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_ids_in_many_ways() {
        let whole = "0af7651916cd43dd8448eb211c80319c";
        let id = parse_trace_id(whole).unwrap();
        assert_eq!(
            parse_trace_id(&format!(" {}\n", whole.to_uppercase())),
            Ok(id)
        );
        assert_eq!(parse_trace_id(&whole[1..]), Ok(id));
        assert_eq!(parse_trace_id("8448eb211c80319c").unwrap()[..8], [0; 8]);
        for bad in ["", "0", "xyz", "+1", "0x12", &"a".repeat(33), "ü", "12 34"] {
            let said = parse_trace_id(bad).unwrap_err().to_string();
            assert!(said.contains("32 hexadecimal digits"), "{said}");
        }
        assert!(
            parse_trace_id(&"\u{1b}".repeat(900))
                .unwrap_err()
                .given
                .len()
                < 600
        );
    }

    #[test]
    fn stores_write_hexadecimal_and_base64() {
        let bytes: TraceId = *b"\x0a\xf7\x65\x19\x16\xcd\x43\xdd\x84\x48\xeb\x21\x1c\x80\x31\x9c";
        assert_eq!(trace_id("0af7651916cd43dd8448eb211c80319c"), bytes);
        assert_eq!(trace_id(&BASE64_STANDARD.encode(bytes)), bytes);
        assert_eq!(trace_id("!"), [0; 16]);
        let span: SpanId = [0, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31];
        assert_eq!(span_id("00ad6b7169203331"), span);
        assert_eq!(span_id("ad6b7169203331"), span);
        assert_eq!(span_id(&BASE64_STANDARD.encode(span)), span);
        // 69b6 9b69 b69b 69b6 in base64 has no other than hexadecimal digits.
        let hexadecimal_looking = BASE64_STANDARD.decode("abababababA=").unwrap();
        assert_eq!(span_id("abababababA=")[..], hexadecimal_looking[..]);
        assert_eq!(span_id("zz!"), [0; 8]);
    }
}

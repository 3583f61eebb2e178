//! OTLP/JSON into protobuf, once, without loss of a known field.
//!
//! The mapping: <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>. Keys
//! are lowerCamelCase, ids hexadecimal, bytes base64, 64-bit integers text or numbers,
//! enums numbers, unknown keys ignored, `null` the same as absent. Beyond it, what senders
//! are known to get wrong and what cannot be meant otherwise is understood: keys in the
//! original snake case, enums by name, halves of surrogate pairs (read as U+FFFD).
//!
//! Driven by the tables of `schema`, because the derived deserialisers of the
//! OpenTelemetry crates refuse valid messages (a `status` without `message`, `"NaN"`, an
//! empty `arrayValue`, `null`).

use bytes::Bytes;
use serde::de::DeserializeSeed;

use self::message::MessageSeed;
use super::{Signal, schema::Message, view::Malformed};

mod message;
mod scalar;

/// Translates an export request.
///
/// # Errors
/// [`Malformed::Json`] when it is not JSON, or a known field holds what it cannot.
pub fn to_protobuf(signal: Signal, json: &[u8]) -> Result<Bytes, Malformed> {
    let mut out = Vec::with_capacity(json.len() / 2);
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    MessageSeed {
        message: Message::request(signal),
        out: &mut out,
    }
    .deserialize(&mut deserializer)
    .and_then(|()| deserializer.end())
    .map_err(|error| Malformed::Json(error.to_string()))?;
    out.shrink_to_fit();
    Ok(out.into())
}

#[cfg(test)]
mod tests;

//! What a process says of itself in memory (OpenTelemetry, OTEP 4719).

use std::{fs::File, io, os::unix::fs::FileExt as _};

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    resource::v1::Resource,
};
use prost::Message;

/// What its memory begins with.
const SIGNATURE: &[u8; 8] = b"OTEL_CTX";
/// The layout that is read.
const VERSION: u32 = 2;
/// Bytes of the header.
const HEADER: usize = 32;
/// Bytes of a message that is read.
const PAYLOAD_LIMIT: u32 = 1 << 20;
/// Which kind of thread context there is.
const SCHEMA: &str = "threadlocal.schema_version";

/// `opentelemetry.proto.processcontext.v1development.ProcessContext`.
#[derive(Clone, PartialEq, Message)]
struct Payload {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    attributes: Vec<KeyValue>,
}

/// What matters of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessContext {
    /// `threadlocal.schema_version`.
    pub thread_schema: Option<String>,
}

/// The part of the header that does not change while it is read, or is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    version: u32,
    size: u32,
    published: u64,
    payload: u64,
}

impl ProcessContext {
    /// Reads what lies at `address`; nothing is known where that is not complete just now, or not
    /// of the known layout.
    ///
    /// # Errors
    /// When the memory is not readable.
    pub fn read(memory: &File, address: u64) -> io::Result<Self> {
        let Some(header) = Header::read(memory, address)? else {
            return Ok(Self::default());
        };
        if header.version != VERSION || header.published == 0 || header.size > PAYLOAD_LIMIT {
            return Ok(Self::default());
        }
        let mut payload = vec![0; header.size as usize];
        memory.read_exact_at(&mut payload, header.payload)?;
        if Header::read(memory, address)? != Some(header) {
            return Ok(Self::default()); // written meanwhile
        }
        let Ok(payload) = Payload::decode(&*payload) else {
            return Ok(Self::default());
        };
        let schema = payload.attributes.into_iter().find(|a| a.key == SCHEMA);
        let thread_schema = schema.and_then(|attribute| match attribute.value {
            Some(AnyValue {
                value: Some(Value::StringValue(text)),
            }) => Some(text.chars().take(64).collect()),
            _ => None,
        });
        Ok(Self { thread_schema })
    }
}

impl Header {
    fn read(memory: &File, address: u64) -> io::Result<Option<Self>> {
        let mut bytes = [0; HEADER];
        memory.read_exact_at(&mut bytes, address)?;
        let half = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap_or_default());
        let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
        Ok((&bytes[..8] == SIGNATURE).then(|| Self {
            version: half(8),
            size: half(12),
            published: word(16),
            payload: word(24),
        }))
    }
}

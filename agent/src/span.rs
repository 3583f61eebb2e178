//! Spans as the pipeline sees them: views into the bytes that arrived, never copies.

use std::{fmt::Write as _, ops::Range, sync::Arc};

use bytes::Bytes;

use crate::{process::SharedIdentity, time::MonoNs, vocabulary::Confidence};

/// W3C trace id.
pub type TraceId = [u8; 16];
/// W3C span id; all zero means none.
pub type SpanId = [u8; 8];

/// One accepted `ExportTraceServiceRequest`: the bytes and where things are in them.
#[derive(Debug)]
pub struct SpanBatch {
    /// The request message, protobuf; JSON was translated before.
    pub payload: Bytes,
    /// When it was accepted.
    pub received: MonoNs,
    /// Its `ResourceSpans`, in order of appearance.
    pub resources: Vec<ResourceSpans>,
    /// All spans of all resources, in order of appearance.
    pub spans: Vec<SpanView>,
    /// Held until the batch is delivered or given up: the bytes it takes of the budget.
    pub permit: Option<tokio::sync::OwnedSemaphorePermit>,
}

/// One `ResourceSpans` message of a batch.
#[derive(Debug)]
pub struct ResourceSpans {
    /// Its spans, as indices into [`SpanBatch::spans`].
    pub spans: Range<usize>,
    /// What was read of the resource; shared by all requests with the same resource bytes.
    pub resource: Arc<Resource>,
    /// The process behind it.
    pub joined: Joined,
}

/// The attributes of a resource that the agent uses; empty or `None` where absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// `service.name`.
    pub service: String,
    /// `service.instance.id`.
    pub instance_id: String,
    /// `process.pid`: the pid in the sender's own pid namespace.
    pub pid: Option<u32>,
    /// `container.id`.
    pub container_id: String,
    /// `k8s.pod.uid`.
    pub pod_uid: String,
    /// `k8s.pod.name`.
    pub pod: String,
    /// `k8s.namespace.name`.
    pub namespace: String,
    /// `k8s.node.name`.
    pub node: String,
    /// `host.name`.
    pub host: String,
    /// `telemetry.sdk.language`.
    pub language: String,
}

/// The process that a resource's spans come from, and how that was found.
#[derive(Clone, Debug)]
pub struct Joined {
    /// `None` with [`Confidence::Host`] only.
    pub identity: Option<SharedIdentity>,
    /// The join that was used.
    pub confidence: Confidence,
}

/// One span: what judging needs, and its place in the payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpanView {
    /// Trace id; all zero when absent or of a wrong length (then the span is not judged).
    pub trace_id: TraceId,
    /// Span id; all zero when absent or of a wrong length (then the span is not judged).
    pub span_id: SpanId,
    /// Parent span id; all zero for a root.
    pub parent_span_id: SpanId,
    /// `start_time_unix_nano`.
    pub start_unix_ns: u64,
    /// `end_time_unix_nano`.
    pub end_unix_ns: u64,
    /// `SpanKind` as on the wire (2 = server, 3 = client, ...).
    pub kind: i32,
    /// `Status.code` as on the wire (2 = error).
    pub status_code: i32,
    /// The name's bytes in the payload.
    pub name: Range<u32>,
    /// Offset of the span's own message (after tag and length) in the payload.
    pub body: Range<u32>,
    /// Attribute `thread.id`, if any.
    pub thread_id: Option<i64>,
    /// An agent upstream was here: the span is its own, or carries its attributes.
    pub is_enriched: bool,
}

impl SpanBatch {
    /// The name of a span, lossily decoded.
    #[must_use]
    pub fn name(&self, span: &SpanView) -> std::borrow::Cow<'_, str> {
        let bytes = &self.payload[span.name.start as usize..span.name.end as usize];
        // What nearly all are is found out faster so.
        std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Into::into)
    }
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

/// The word of a `SpanKind` as on the wire.
#[must_use]
pub fn kind_word(kind: i32) -> &'static str {
    match kind {
        1 => "internal",
        2 => "server",
        3 => "client",
        4 => "producer",
        5 => "consumer",
        _ => "unspecified",
    }
}

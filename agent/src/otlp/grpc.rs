//! OTLP/gRPC: the `Export` calls of three services, all unary.
//!
//! A unary call on the server side is a five-byte frame around one message, so it is read
//! here: that way the message is never decoded, and size, memory and time are kept to by
//! the same code as over HTTP. Answers are tonic's.
//!
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>

use std::sync::Arc;

use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tonic::Code;

use super::{
    Intake, Signal,
    answer::{AnswerBody, Rejection, grpc_success},
    body::{self, BodyError},
    receive::Core,
};
use crate::metrics::Encoding;

/// Compressed flag and length.
const FRAME_HEADER_BYTES: usize = 5;

/// Whether the request is gRPC's, by its content type.
pub(super) fn is_grpc<B>(request: &Request<B>) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Answers one call.
pub(super) async fn serve<I: Intake>(
    core: &Core<I>,
    sender: &Arc<I::Sender>,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    match export(core, sender, request).await {
        Ok(()) => grpc_success(),
        Err(rejection) => {
            core.count(&rejection);
            let is_encoding = rejection.malformed_reason() == Some("content_encoding");
            let mut response = rejection.into_grpc();
            if is_encoding {
                let accepted = HeaderValue::from_static("identity,gzip");
                response
                    .headers_mut()
                    .insert("grpc-accept-encoding", accepted);
            }
            response
        }
    }
}

async fn export<I: Intake>(
    core: &Core<I>,
    sender: &Arc<I::Sender>,
    request: Request<Incoming>,
) -> Result<(), Rejection> {
    let (signal, is_gzip) = (signal(&request)?, is_gzip(&request)?);
    let mut limits = core.limits_grpc.clone();
    let max_bytes = limits.max_bytes;
    limits.max_bytes += FRAME_HEADER_BYTES;
    let held = body::read(request.into_body(), &limits, expected).await;
    let held = held.map_err(|error| match error {
        BodyError::TooLarge(_) => BodyError::TooLarge(max_bytes),
        other => other,
    })?;

    let (header, message) = held
        .bytes
        .split_at_checked(FRAME_HEADER_BYTES)
        .ok_or_else(|| frame("the call holds no message"))?;
    let (flag, length) = (header[0], length(header));
    match message.len().cmp(&length) {
        std::cmp::Ordering::Less => return Err(frame("the message is cut short")),
        std::cmp::Ordering::Greater => return Err(frame("the call holds more than one message")),
        std::cmp::Ordering::Equal => {}
    }
    let message = held.bytes.slice(FRAME_HEADER_BYTES..);
    match flag {
        0 => core.accept(sender, signal, Encoding::Grpc, message).await,
        1 if is_gzip => {
            let inner = core.gunzip(message, &core.limits_grpc).await?;
            let message = inner.bytes.clone();
            core.accept(sender, signal, Encoding::Grpc, message).await
        }
        1 => Err(frame(
            "the message is compressed, but no grpc-encoding says how",
        )),
        _ => Err(frame("the message has an unknown compression flag")),
    }
}

fn length(header: &[u8]) -> usize {
    match header {
        [_, a, b, c, d, ..] => u32::from_be_bytes([*a, *b, *c, *d]) as usize,
        _ => 0,
    }
}

fn expected(first: &[u8]) -> usize {
    FRAME_HEADER_BYTES + length(first)
}

fn signal<B>(request: &Request<B>) -> Result<Signal, Rejection> {
    let unimplemented = |message: String| Rejection::Transport {
        http: StatusCode::NOT_FOUND,
        grpc: Code::Unimplemented,
        reason: "path",
        message,
    };
    match request.uri().path() {
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => Ok(Signal::Traces),
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export" => Ok(Signal::Metrics),
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export" => Ok(Signal::Logs),
        _ => Err(unimplemented(
            "the agent serves OTLP's Export of traces, metrics and logs only".to_owned(),
        )),
    }
}

fn is_gzip<B>(request: &Request<B>) -> Result<bool, Rejection> {
    match request
        .headers()
        .get("grpc-encoding")
        .map(HeaderValue::as_bytes)
    {
        None | Some(b"identity") => Ok(false),
        Some(b"gzip") => Ok(true),
        Some(other) => Err(Rejection::Transport {
            http: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            grpc: Code::Unimplemented,
            reason: "content_encoding",
            message: format!(
                "the compression `{}` is not supported: use gzip or none",
                other.escape_ascii()
            ),
        }),
    }
}

fn frame(message: &str) -> Rejection {
    Rejection::Transport {
        http: StatusCode::BAD_REQUEST,
        grpc: Code::Internal,
        reason: "frame",
        message: message.to_owned(),
    }
}

//! OTLP/HTTP: three paths, two encodings.
//!
//! <https://opentelemetry.io/docs/specs/otlp/#otlphttp>

use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tonic::Code;

use super::{
    Intake, Signal,
    answer::{AnswerBody, Format, Rejection},
    body,
    receive::Core,
};
use crate::metrics::Encoding;

/// Answers one request.
pub(super) async fn serve<I: Intake>(
    core: &Core<I>,
    sender: &Arc<I::Sender>,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    let format = format(&request);
    match export(core, sender, request, format).await {
        Ok(format) => format.success(),
        Err(rejection) => {
            core.count(&rejection);
            let reason = rejection.malformed_reason();
            let mut response = rejection.into_http(format.unwrap_or(Format::Json));
            let hint = match reason {
                Some("method") => Some((header::ALLOW, "POST")),
                Some("content_encoding") => Some((header::ACCEPT_ENCODING, "gzip, identity")),
                _ => None,
            };
            if let Some((name, value)) = hint {
                let value = HeaderValue::from_static(value);
                response.headers_mut().insert(name, value);
            }
            response
        }
    }
}

async fn export<I: Intake>(
    core: &Core<I>,
    sender: &Arc<I::Sender>,
    request: Request<Incoming>,
    format: Option<Format>,
) -> Result<Format, Rejection> {
    let signal = signal(request.uri().path())?;
    if request.method() != Method::POST {
        return Err(rejection(
            StatusCode::METHOD_NOT_ALLOWED,
            Code::Unimplemented,
            "method",
            format!("use POST, not {}", request.method()),
        ));
    }
    let format = format.ok_or_else(|| {
        rejection(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Code::InvalidArgument,
            "content_type",
            "the content type must be application/x-protobuf or application/json".to_owned(),
        )
    })?;
    let is_gzip = is_gzip(&request)?;
    let held = body::read(request.into_body(), &core.limits_http, |_| 0).await?;
    let (bytes, _inner) = match is_gzip {
        false => (held.bytes.clone(), None),
        true => {
            let inner = core.gunzip(held.bytes.clone(), &core.limits_http).await?;
            (inner.bytes.clone(), Some(inner))
        }
    };
    match format {
        Format::Protobuf => {
            let encoding = Encoding::HttpProtobuf;
            core.accept(sender, signal, encoding, bytes).await?;
        }
        Format::Json => {
            let payload = core.translate(signal, bytes).await?;
            core.accept(sender, signal, Encoding::HttpJson, payload)
                .await?;
        }
    }
    Ok(format)
}

fn signal(path: &str) -> Result<Signal, Rejection> {
    match path {
        "/v1/traces" => Ok(Signal::Traces),
        "/v1/metrics" => Ok(Signal::Metrics),
        "/v1/logs" => Ok(Signal::Logs),
        _ => Err(rejection(
            StatusCode::NOT_FOUND,
            Code::NotFound,
            "path",
            "the paths are /v1/traces, /v1/metrics and /v1/logs".to_owned(),
        )),
    }
}

/// By the content type without its parameters.
fn format<B>(request: &Request<B>) -> Option<Format> {
    let content_type = request.headers().get(header::CONTENT_TYPE)?.to_str().ok()?;
    let media_type = content_type.split(';').next()?.trim();
    if media_type.eq_ignore_ascii_case("application/x-protobuf") {
        return Some(Format::Protobuf);
    }
    media_type
        .eq_ignore_ascii_case("application/json")
        .then_some(Format::Json)
}

fn is_gzip<B>(request: &Request<B>) -> Result<bool, Rejection> {
    let mut is_gzip = false;
    for value in request.headers().get_all(header::CONTENT_ENCODING) {
        match value
            .as_bytes()
            .trim_ascii()
            .to_ascii_lowercase()
            .as_slice()
        {
            b"" | b"identity" => {}
            b"gzip" | b"x-gzip" if !is_gzip => is_gzip = true,
            other => {
                return Err(rejection(
                    StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    Code::Unimplemented,
                    "content_encoding",
                    format!(
                        "the content encoding `{}` is not supported: use gzip or none",
                        other.escape_ascii()
                    ),
                ));
            }
        }
    }
    Ok(is_gzip)
}

fn rejection(http: StatusCode, grpc: Code, reason: &'static str, message: String) -> Rejection {
    Rejection::Transport {
        http,
        grpc,
        reason,
        message,
    }
}

//! What the receiver answers, in the words of each transport.
//!
//! <https://opentelemetry.io/docs/specs/otlp/#failures>,
//! <https://opentelemetry.io/docs/specs/otlp/#failures-1>

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use prost::Message;
use serde::Serialize;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::{Refusal, Signal, body::BodyError, view::Malformed};

/// Data, trailers, both or none.
#[derive(Debug, Default)]
pub(super) struct AnswerBody {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match self.data.take() {
            Some(data) => Some(Frame::data(data)),
            None => self.trailers.take().map(Frame::trailers),
        };
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        // A length is for answers without trailers: gRPC's have none in their headers.
        match self.trailers {
            Some(_) => SizeHint::default(),
            None => SizeHint::with_exact(self.data.as_ref().map_or(0, Bytes::len) as u64),
        }
    }
}

/// Why a request was not accepted.
#[derive(Debug)]
pub(super) enum Rejection {
    Body(BodyError),
    Malformed(Malformed),
    Refused(Signal, Refusal),
    /// Wrong use of the transport, in its own code, with the word it is counted by.
    Transport {
        http: StatusCode,
        grpc: Code,
        reason: &'static str,
        message: String,
    },
}

impl From<BodyError> for Rejection {
    fn from(error: BodyError) -> Self {
        Self::Body(error)
    }
}

impl From<Malformed> for Rejection {
    fn from(error: Malformed) -> Self {
        Self::Malformed(error)
    }
}

/// After this long, when it is the receiver itself that is full.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Rejection {
    /// The word by which `requests_malformed` counts it; `None` for a refusal.
    pub fn malformed_reason(&self) -> Option<&'static str> {
        match self {
            Self::Body(BodyError::TooLarge(_)) => Some("too_large"),
            Self::Body(BodyError::Timeout(_)) => Some("timeout"),
            Self::Body(BodyError::Broken(_)) => Some("broken_off"),
            Self::Body(BodyError::Gzip(_)) => Some("gzip"),
            Self::Malformed(Malformed::Json(_)) => Some("json"),
            Self::Malformed(Malformed::Wire(_)) => Some("protobuf"),
            Self::Malformed(Malformed::TooMany { .. } | Malformed::TooLarge) => Some("too_large"),
            Self::Transport { reason, .. } => Some(reason),
            Self::Body(BodyError::Full) | Self::Refused(..) => None,
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Body(error) => error.to_string(),
            Self::Malformed(error) => error.to_string(),
            Self::Refused(_, Refusal::Busy { .. }) => {
                "the agent has no room for more until its downstream takes some; try again"
                    .to_owned()
            }
            Self::Refused(_, Refusal::Loop) => {
                "the agent's downstream leads back to the agent itself: name another in \
                 --export-endpoint or OTEL_EXPORTER_OTLP_ENDPOINT"
                    .to_owned()
            }
            Self::Refused(_, Refusal::Stopping) => "the agent is stopping; try again".to_owned(),
            Self::Refused(signal, Refusal::NoDownstream) => {
                let name = signal_name(*signal);
                format!(
                    "the agent takes {name} only to pass them on, and has no downstream: \
                     set --export-endpoint, or send {name} elsewhere"
                )
            }
            Self::Transport { message, .. } => message.clone(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(_, Refusal::Busy { retry_after }) => Some(*retry_after),
            Self::Body(BodyError::Full) => Some(RETRY_AFTER),
            _ => None,
        }
    }

    fn codes(&self) -> (StatusCode, Code) {
        match self {
            Self::Body(BodyError::TooLarge(_)) => {
                (StatusCode::PAYLOAD_TOO_LARGE, Code::ResourceExhausted)
            }
            Self::Body(BodyError::Timeout(_)) => {
                (StatusCode::REQUEST_TIMEOUT, Code::DeadlineExceeded)
            }
            Self::Body(BodyError::Broken(_)) => (StatusCode::BAD_REQUEST, Code::Cancelled),
            Self::Body(BodyError::Gzip(_)) | Self::Malformed(_) => {
                (StatusCode::BAD_REQUEST, Code::InvalidArgument)
            }
            Self::Refused(_, Refusal::NoDownstream) => (StatusCode::NOT_FOUND, Code::Unimplemented),
            Self::Refused(_, Refusal::Loop) => (StatusCode::FORBIDDEN, Code::FailedPrecondition),
            Self::Body(BodyError::Full) | Self::Refused(..) => {
                (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable)
            }
            Self::Transport { http, grpc, .. } => (*http, *grpc),
        }
    }

    /// For a gRPC client.
    pub fn into_grpc(self) -> Response<AnswerBody> {
        let (_, code) = self.codes();
        let status = match self.retry_after() {
            Some(delay) => {
                let details = ErrorDetails::with_retry_info(Some(delay));
                Status::with_error_details(code, self.message(), details)
            }
            None => Status::new(code, self.message()),
        };
        status.into_http()
    }

    /// For an HTTP client that sent `format`.
    pub fn into_http(self, format: Format) -> Response<AnswerBody> {
        let (http, code) = self.codes();
        let mut response = format.answer(format.status(code, self.message()));
        *response.status_mut() = http;
        if let Some(delay) = self.retry_after() {
            // Whole seconds: at least one, never sooner than asked.
            let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

fn signal_name(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "traces",
        Signal::Metrics => "metrics",
        Signal::Logs => "logs",
    }
}

/// Full success over gRPC: an empty message, uncompressed, and `OK` in the trailers.
pub(super) fn grpc_success() -> Response<AnswerBody> {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
    let mut response = Response::new(AnswerBody {
        data: Some(Bytes::from_static(&[0; 5])),
        trailers: Some(trailers),
    });
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(header::CONTENT_TYPE, grpc);
    response
}

/// The encoding of an HTTP request, and so of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Protobuf,
    Json,
}

/// `google.rpc.Status` in JSON.
#[derive(Serialize)]
struct JsonStatus<'a> {
    code: i32,
    message: &'a str,
}

impl Format {
    /// Full success: an empty message.
    pub fn success(self) -> Response<AnswerBody> {
        self.answer(match self {
            Self::Protobuf => Bytes::new(),
            Self::Json => Bytes::from_static(b"{}"),
        })
    }

    fn status(self, code: Code, message: String) -> Bytes {
        let code = code as i32;
        match self {
            Self::Protobuf => {
                let details = Vec::new();
                tonic_types::Status {
                    code,
                    message,
                    details,
                }
                .encode_to_vec()
                .into()
            }
            Self::Json => {
                let message = &message;
                let json = serde_json::to_vec(&JsonStatus { code, message });
                json.expect("a number and a string are JSON").into()
            }
        }
    }

    fn answer(self, data: Bytes) -> Response<AnswerBody> {
        let mut response = Response::new(AnswerBody {
            data: Some(data).filter(|data| !data.is_empty()),
            trailers: None,
        });
        let content_type = HeaderValue::from_static(match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        });
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, content_type);
        response
    }
}

//! What an answer of downstream means for the request: the table in the head of
//! [`super`], as code. Pure; the two clients bring answers into its terms.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::checked::Foreign;

/// Longest text of downstream that is kept, in characters.
const MAX_MESSAGE: usize = 240;
/// A wait that downstream asks for is cut to this: a slip of units must not stop the flow
/// for days.
const MAX_THROTTLE: Duration = Duration::from_secs(600);
/// How servers word that a message is too long, where the code alone does not say it:
/// grpc-go and grpc-core, grpc-java, tonic (which says it with `OUT_OF_RANGE`).
const TOO_LONG: [&str; 4] = [
    "larger than max",
    "exceeds maximum size",
    "too large",
    "too long",
];

/// What is to be done with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Taken, but for `rejected` items.
    Delivered {
        /// Items that downstream did not take and does not want again.
        rejected: u64,
        /// Its words, possibly a warning without rejection.
        message: String,
    },
    /// Downstream cannot take it now.
    Retry {
        /// Word for the counter.
        reason: &'static str,
        /// When downstream wants it again, if it said so.
        after: Option<Duration>,
        /// For people.
        message: String,
    },
    /// Downstream takes nothing from us as we are configured: kept, tried again slowly.
    Held {
        /// Word for the counter.
        reason: &'static str,
        /// It does not know this signal at all.
        unknown_signal: bool,
        /// For people.
        message: String,
    },
    /// Downstream failed and does not say whether at this request or at any.
    Suspect {
        /// Word for the counter.
        reason: &'static str,
        /// For people.
        message: String,
    },
    /// The request itself is bad.
    Rejected {
        /// For people.
        message: String,
    },
    /// The request is too long for downstream.
    TooLarge {
        /// For people.
        message: String,
    },
}

/// No answer: the connection could not be made or was lost.
pub(super) fn no_connection(error: &(dyn std::error::Error + 'static)) -> Answer {
    Answer::Retry {
        reason: "connection",
        after: None,
        message: printable(&chain(error)),
    }
}

/// No answer in time.
pub(super) fn timed_out(timeout: Duration) -> Answer {
    Answer::Retry {
        reason: "timeout",
        after: None,
        message: format!("no answer within {} ms", timeout.as_millis()),
    }
}

/// The body of a positive answer. The answers of all three signals have the same fields
/// under the same numbers.
pub(super) fn from_body(body: &[u8]) -> Answer {
    match ExportTraceServiceResponse::decode(body) {
        Ok(response) => {
            let partial = response.partial_success.unwrap_or_default();
            Answer::Delivered {
                rejected: u64::try_from(partial.rejected_spans).unwrap_or(0),
                message: printable(&partial.error_message),
            }
        }
        Err(error) => garbage(format!("success with an unreadable body ({error})")),
    }
}

/// An answer that no OTLP server gives: most likely the endpoint is something else.
pub(super) fn garbage(message: String) -> Answer {
    Answer::Held {
        reason: "garbage",
        unknown_signal: false,
        message: format!("not an OTLP answer: {message}; is the endpoint right?"),
    }
}

/// A gRPC status that is not OK.
pub(super) fn from_status(status: &Status) -> Answer {
    if let Some(error) = std::error::Error::source(status) {
        // Made on this side, not sent by downstream as a status.
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(Foreign(answer)) = error.downcast_ref() {
                return answer.clone();
            }
            cause = error.source();
        }
        return no_connection(error);
    }
    let message = printable(&format!("{:?}: {}", status.code(), status.message()));
    let after = status
        .get_details_retry_info()
        .and_then(|info| info.retry_delay)
        .map(|delay| delay.min(MAX_THROTTLE));
    let too_long = || {
        let text = status.message().to_ascii_lowercase();
        TOO_LONG.iter().any(|words| text.contains(words))
    };
    let held = |reason, unknown_signal| Answer::Held {
        reason,
        unknown_signal,
        message: message.clone(),
    };
    match status.code() {
        Code::ResourceExhausted | Code::OutOfRange if after.is_none() && too_long() => {
            Answer::TooLarge { message }
        }
        Code::ResourceExhausted if after.is_none() => held("exhausted", false),
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Answer::Retry {
            reason: if after.is_some() {
                "throttled"
            } else {
                "unavailable"
            },
            after,
            message,
        },
        Code::InvalidArgument => Answer::Rejected { message },
        Code::Unauthenticated | Code::PermissionDenied => held("unauthorized", false),
        Code::Unimplemented => held("not_found", true),
        Code::NotFound | Code::AlreadyExists | Code::FailedPrecondition => held("not_found", false),
        Code::Ok | Code::Unknown | Code::Internal => Answer::Suspect {
            reason: "error",
            message,
        },
    }
}

/// A successful HTTP answer. Protobuf is what the specification asks for; servers in the
/// field also answer with nothing, or with JSON whatever was sent.
pub(super) fn from_http_success(headers: &HeaderMap, body: &[u8]) -> Answer {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .map(|v| v.split(';').next().unwrap_or(v).trim().to_ascii_lowercase());
    match kind.as_deref() {
        _ if body.is_empty() => from_body(body),
        None | Some("application/x-protobuf" | "application/protobuf") => from_body(body),
        Some("application/json") => match serde_json::from_slice::<serde_json::Value>(body) {
            Ok(serde_json::Value::Object(object)) => from_json(&object),
            _ => garbage(format!("success with {}", printable(&quoted(body)))),
        },
        Some(other) => garbage(printable(&format!("success with {other} {}", quoted(body)))),
    }
}

fn from_json(answer: &serde_json::Map<String, serde_json::Value>) -> Answer {
    let partial = answer.get("partialSuccess");
    let field = |name: &str| partial.and_then(|p| p.get(name));
    // A 64-bit integer is a string in JSON of protobuf, and a number in that of many servers.
    let rejected = ["rejectedSpans", "rejectedDataPoints", "rejectedLogRecords"]
        .iter()
        .find_map(|name| field(name))
        .and_then(|v| v.as_u64().or_else(|| v.as_str()?.parse().ok()));
    let message = field("errorMessage").and_then(|v| v.as_str());
    Answer::Delivered {
        rejected: rejected.unwrap_or(0),
        message: printable(message.unwrap_or_default()),
    }
}

fn quoted(body: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(&body[..body.len().min(80)]))
}

/// An HTTP status that is not a success. `now` is the wall clock, for a `Retry-After` that
/// is a date.
pub(super) fn from_http(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: std::time::SystemTime,
) -> Answer {
    let message = match body_text(headers, body) {
        text if text.is_empty() => format!("HTTP {status}"),
        text => format!("HTTP {status}: {text}"),
    };
    let held = |reason, unknown_signal| Answer::Held {
        reason,
        unknown_signal,
        message: message.clone(),
    };
    match status.as_u16() {
        429 | 502 | 503 | 504 => {
            let after = retry_after(headers, now);
            Answer::Retry {
                reason: if after.is_some() {
                    "throttled"
                } else {
                    "unavailable"
                },
                after,
                message,
            }
        }
        408 | 425 => Answer::Retry {
            reason: "unavailable",
            after: None,
            message,
        },
        400 | 422 => Answer::Rejected { message },
        413 => Answer::TooLarge { message },
        401 | 403 | 407 => held("unauthorized", false),
        404 | 405 | 501 => held("not_found", true),
        500.. => Answer::Suspect {
            reason: "error",
            message,
        },
        // Redirects (not followed: they would carry the headers elsewhere) and the rest.
        _ => held("garbage", false),
    }
}

fn retry_after(headers: &HeaderMap, now: std::time::SystemTime) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let delay = match value.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(value)
            .ok()?
            .duration_since(now)
            .unwrap_or_default(),
    };
    Some(delay.min(MAX_THROTTLE))
}

/// The words in an error body: a `google.rpc.Status` where the content type says so.
fn body_text(headers: &HeaderMap, body: &[u8]) -> String {
    let kind = headers.get(header::CONTENT_TYPE).map(|v| v.as_bytes());
    if kind.is_some_and(|k| k.starts_with(b"application/x-protobuf"))
        && let Ok(status) = tonic_types::Status::decode(body)
    {
        return printable(&status.message);
    }
    printable(&String::from_utf8_lossy(body))
}

/// Text from the network, bounded, on one line, without control characters.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::new();
    let mut words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let mut left = MAX_MESSAGE;
    for word in words.by_ref().filter(|w| !w.is_empty()) {
        if !out.is_empty() {
            out.push(' ');
        }
        for c in word.chars() {
            if left == 0 {
                out.push('…');
                return out;
            }
            left -= 1;
            out.push(c);
        }
    }
    out
}

/// An error and its causes, outermost first, without repetitions.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;

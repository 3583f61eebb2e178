use std::time::{Duration, SystemTime};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;
use tonic_types::{ErrorDetails, StatusExt};

use super::*;

fn http(status: u16, headers: &[(&'static str, &str)], body: &[u8]) -> Answer {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(*name, value.parse().unwrap());
    }
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    from_http(StatusCode::from_u16(status).unwrap(), &map, body, now)
}

fn word(answer: &Answer) -> &'static str {
    match answer {
        Answer::Delivered { .. } => "delivered",
        Answer::Retry { .. } => "retry",
        Answer::Held { .. } => "held",
        Answer::Suspect { .. } => "suspect",
        Answer::Rejected { .. } => "rejected",
        Answer::TooLarge { .. } => "too large",
    }
}

#[test]
fn http_statuses() {
    for (statuses, expected) in [
        (&[408, 425, 429, 502, 503, 504][..], "retry"),
        (
            &[301, 302, 307, 401, 403, 404, 405, 407, 415, 418, 501],
            "held",
        ),
        (&[500, 505, 599], "suspect"),
        (&[400, 422], "rejected"),
        (&[413], "too large"),
    ] {
        for status in statuses {
            assert_eq!(word(&http(*status, &[], b"")), expected, "{status}");
        }
    }
    let unknown = |status| match http(status, &[], b"") {
        Answer::Held { unknown_signal, .. } => unknown_signal,
        other => panic!("{other:?}"),
    };
    assert!(unknown(404) && !unknown(401) && !unknown(301));
}

#[test]
fn retry_after_in_seconds_as_date_and_absurd() {
    let after = |value: &str| match http(503, &[("retry-after", value)], b"") {
        Answer::Retry { after, reason, .. } => {
            assert_eq!(reason == "throttled", after.is_some());
            after
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(after("7"), Some(Duration::from_secs(7)));
    let date = after("Sun, 06 Nov 1994 08:49:47 GMT");
    assert_eq!(date, Some(Duration::from_secs(10)));
    let past = after("Sun, 06 Nov 1994 08:49:27 GMT");
    assert_eq!(past, Some(Duration::ZERO));
    assert_eq!(after("9999999999"), Some(MAX_THROTTLE));
    assert_eq!(after("soon"), None);
}

#[test]
fn grpc_codes() {
    for (codes, expected) in [
        (
            &[
                Code::Cancelled,
                Code::DeadlineExceeded,
                Code::Aborted,
                Code::OutOfRange,
                Code::Unavailable,
                Code::DataLoss,
            ][..],
            "retry",
        ),
        (
            &[
                Code::Unauthenticated,
                Code::PermissionDenied,
                Code::Unimplemented,
                Code::NotFound,
                Code::AlreadyExists,
                Code::FailedPrecondition,
                Code::ResourceExhausted,
            ],
            "held",
        ),
        (&[Code::Internal, Code::Unknown], "suspect"),
        (&[Code::InvalidArgument], "rejected"),
    ] {
        for code in codes {
            let answer = from_status(&Status::new(*code, "x"));
            assert_eq!(word(&answer), expected, "{code:?}");
        }
    }
}

#[test]
fn retry_info_makes_exhaustion_retryable() {
    let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(3)));
    let status = Status::with_error_details(Code::ResourceExhausted, "busy", details);
    let Answer::Retry { after, reason, .. } = from_status(&status) else {
        panic!("not retryable");
    };
    assert_eq!((after, reason), (Some(Duration::from_secs(3)), "throttled"));
    // Details that are no details.
    let garbage = Bytes::from_static(b"\xff\xff\xff");
    let status = Status::with_details(Code::ResourceExhausted, "busy", garbage);
    assert_eq!(word(&from_status(&status)), "held");
}

#[test]
fn too_long_as_servers_say_it() {
    for (code, words) in [
        (
            Code::ResourceExhausted,
            "grpc: received message larger than max (5000000 vs. 4194304)",
        ),
        (
            Code::ResourceExhausted,
            "gRPC message exceeds maximum size 4194304: 5000000",
        ),
        (
            Code::OutOfRange,
            "Error, decoded message length too large: found 5000000 bytes, the limit is: 4194304",
        ),
    ] {
        let answer = from_status(&Status::new(code, words));
        assert_eq!(word(&answer), "too large", "{words}");
    }
    let other = Status::new(Code::InvalidArgument, "name too long");
    assert_eq!(word(&from_status(&other)), "rejected");
}

#[test]
fn own_failures_are_lost_connections_whatever_their_code() {
    let error = Box::new(std::io::Error::other("broken pipe"));
    let answer = from_status(&Status::from_error(error));
    let Answer::Retry {
        reason, message, ..
    } = answer
    else {
        panic!("{answer:?}");
    };
    assert_eq!(reason, "connection");
    assert!(message.contains("broken pipe"), "{message}");
}

#[test]
fn success_bodies() {
    let success = |kind: Option<&str>, body: &[u8]| {
        let mut headers = HeaderMap::new();
        if let Some(kind) = kind {
            headers.insert("content-type", kind.parse().unwrap());
        }
        from_http_success(&headers, body)
    };
    let all = Answer::Delivered {
        rejected: 0,
        message: String::new(),
    };
    let part = Answer::Delivered {
        rejected: 3,
        message: "three are too old".to_owned(),
    };
    let partial = ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans: 3,
            error_message: "three are\n too old".to_owned(),
        }),
    }
    .encode_to_vec();
    assert_eq!(success(None, b""), all);
    assert_eq!(success(Some("text/plain"), b""), all);
    assert_eq!(success(Some("application/x-protobuf"), &partial), part);
    assert_eq!(success(Some("application/json; charset=utf-8"), b"{}"), all);
    let json = br#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"three are too old"}}"#;
    assert_eq!(success(Some("application/json"), json), part);

    for (kind, body) in [
        (Some("text/html"), &b"<html>welcome"[..]),
        (Some("application/json"), b"[]"),
        (Some("application/json"), b"{"),
        (
            Some("application/x-protobuf"),
            &partial[..partial.len() - 1],
        ),
        (None, b"<html>"),
    ] {
        assert_eq!(word(&success(kind, body)), "held", "{kind:?} {body:?}");
    }
    // A negative count is no count.
    assert_eq!(
        from_body(
            &ExportTraceServiceResponse {
                partial_success: Some(ExportTracePartialSuccess {
                    rejected_spans: -1,
                    error_message: String::new()
                })
            }
            .encode_to_vec()
        ),
        all
    );
}

#[test]
fn error_bodies_are_quoted_safely() {
    let status = tonic_types::Status {
        code: 3,
        message: "bad \u{1b}[31mspan\r\nid".to_owned(),
        details: Vec::new(),
    };
    let kind = [("content-type", "application/x-protobuf")];
    let answer = http(400, &kind, &status.encode_to_vec());
    let Answer::Rejected { message } = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(message, "HTTP 400 Bad Request: bad [31mspan id");
    let long = printable(&"x".repeat(10_000));
    assert_eq!(long.chars().count(), MAX_MESSAGE + 1);
}

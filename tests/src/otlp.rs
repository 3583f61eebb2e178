//! Spans that a test makes itself, where it must know each answer: OTLP over HTTP as JSON.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::http;

/// Sends `count` spans of one trace to the agent; true when they were accepted.
///
/// Trace and span ids are made from `sequence`, so that every span is known by name.
///
/// # Errors
/// When there is no HTTP answer at all.
pub fn send(otlp_http: &str, service: &str, sequence: u64, count: u64) -> anyhow::Result<bool> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    let spans: Vec<_> = (0..count)
        .map(|index| {
            json!({
                "traceId": trace_id(sequence),
                "spanId": span_id(sequence, index),
                "name": "work",
                "kind": 1,
                "startTimeUnixNano": (now - 5_000_000).to_string(),
                "endTimeUnixNano": now.to_string(),
            })
        })
        .collect();
    let body = json!({"resourceSpans": [{
        "resource": {"attributes": [
            {"key": "service.name", "value": {"stringValue": service}}
        ]},
        "scopeSpans": [{"scope": {"name": "test"}, "spans": spans}],
    }]});
    let answer = http::request(
        "POST",
        &format!("http://{otlp_http}/v1/traces"),
        &[("content-type", "application/json")],
        body.to_string().as_bytes(),
    )?;
    Ok(answer.status == 200)
}

/// The trace id of a request.
#[must_use]
pub fn trace_id(sequence: u64) -> String {
    format!("{:032x}", u128::from(sequence) + (1 << 100))
}

/// The id of one of its spans.
#[must_use]
pub fn span_id(sequence: u64, index: u64) -> String {
    format!("{:016x}", (sequence << 16) + index + 1)
}

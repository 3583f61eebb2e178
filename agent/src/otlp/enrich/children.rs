//! Our child spans: when, inside a slow span, its time was lost.

use rand::Rng;

use super::attributes::{ms, put_bool, put_double, put_text};
use crate::{
    otlp::wire::{put_bytes, put_message, put_tag, put_varint, wire_type},
    span::{SpanId, SpanView},
    verdict::{CauseInterval, Judgement},
};

/// Name of the scope that our spans are in.
pub const SCOPE_NAME: &str = "isostack-agent";
/// Most child spans of one span.
const MAX_CHILDREN: usize = 16;
/// `SpanKind.SPAN_KIND_INTERNAL`.
const INTERNAL: u64 = 1;

/// Appends a `ScopeSpans` (field 2 of `ResourceSpans`) with the children of all `spans`;
/// nothing when there are none. A span without valid ids cannot be a parent.
pub(super) fn put_scope(out: &mut Vec<u8>, spans: &[(&SpanView, &Judgement)]) {
    let mut parents = spans
        .iter()
        .filter(|(span, _)| span.trace_id != [0; 16] && span.span_id != [0; 8])
        .peekable();
    if parents.peek().is_none() {
        return;
    }
    put_message(out, 2, |out| {
        put_message(out, 1, |out| {
            put_bytes(out, 1, SCOPE_NAME.as_bytes());
            put_bytes(out, 2, env!("CARGO_PKG_VERSION").as_bytes());
        });
        for (span, judgement) in parents {
            for interval in judgement.intervals.iter().take(MAX_CHILDREN) {
                put_message(out, 2, |out| put_child(out, span, interval));
            }
        }
    });
}

fn put_child(out: &mut Vec<u8>, parent: &SpanView, interval: &CauseInterval) {
    let CauseInterval { cause, fault, .. } = interval;
    put_bytes(out, 1, &parent.trace_id);
    put_bytes(out, 2, &random_id());
    put_bytes(out, 4, &parent.span_id);
    put_bytes(out, 5, format!("{fault} {cause}").as_bytes());
    put_tag(out, 6, wire_type::VARINT);
    put_varint(out, INTERNAL);
    for (number, time) in [(7, interval.start), (8, interval.end)] {
        put_tag(out, number, wire_type::FIXED64);
        out.extend_from_slice(&time.0.to_le_bytes());
    }
    put_bool(out, "isostack.synthetic", true);
    put_text(out, "isostack.cause", cause.as_str());
    put_text(out, "isostack.fault", fault.as_str());
    if interval.cause_ns < interval.end.0.saturating_sub(interval.start.0) {
        let key = format!("isostack.evidence.{cause}_ms");
        put_double(out, &key, ms(interval.cause_ns));
    }
}

/// Zero is no id.
fn random_id() -> SpanId {
    rand::rng().random_range(1..=u64::MAX).to_be_bytes()
}

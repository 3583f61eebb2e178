//! The attributes of the contract, encoded as fields of a `Span`.

use super::is_known;
use crate::{
    otlp::wire::{put_bytes, put_message, put_tag, put_varint, wire_type},
    span::Joined,
    verdict::{Split, Verdict},
    vocabulary::Cause,
};

/// Marks a span that an agent enriched.
pub(super) const NODE: &[u8] = b"isostack.node";
/// Marks a span that an agent made.
pub(super) const SYNTHETIC: &[u8] = b"isostack.synthetic";

/// `Span.attributes`.
const ATTRIBUTES: u32 = 9;

/// The attributes of every span. Of an unknown process, layer and stack are left out
/// rather than invented.
pub(super) fn put_base(out: &mut Vec<u8>, joined: &Joined, node: &str) {
    if let (true, Some(identity)) = (is_known(joined), &joined.identity) {
        put_text(out, "isostack.layer", identity.stack.layer().as_str());
        put_text(out, "isostack.stack", &identity.stack.to_string());
    }
    put_text(out, "isostack.confidence", joined.confidence.as_str());
    put_text(out, "isostack.node", node);
}

/// The attributes of a span with a verdict, beyond the first ones.
pub(super) fn put_verdict(out: &mut Vec<u8>, verdict: &Verdict, split: Option<&Split>) {
    put_text(out, "isostack.fault", verdict.fault.as_str());
    put_text(out, "isostack.cause", verdict.cause.as_str());
    put_double(out, "isostack.share", verdict.share);
    for (key, value) in [
        ("isostack.culprit", &verdict.culprit),
        ("isostack.incident", &verdict.incident),
        ("isostack.summary", &verdict.summary),
        ("isostack.remedy", &verdict.remedy),
    ] {
        if !value.is_empty() {
            put_text(out, key, value);
        }
    }
    for (name, value) in &verdict.evidence {
        put_double(out, &format!("isostack.evidence.{name}"), *value);
    }
    if let Some(split) = split {
        put_split(out, split);
    }
}

/// `downstream` is a cause like the others, always shown; it is not of the self time.
fn put_split(out: &mut Vec<u8>, split: &Split) {
    let downstream = (Cause::Downstream, split.downstream_ns);
    let parts = split.parts.iter().copied().chain([downstream]);
    for (cause, ns) in parts.filter(|(_, ns)| *ns > 0) {
        put_double(out, &format!("isostack.split.{cause}_ms"), ms(ns));
    }
}

pub(super) fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// A string attribute.
pub(super) fn put_text(out: &mut Vec<u8>, key: &str, value: &str) {
    put_attribute(out, key, |out| put_bytes(out, 1, value.as_bytes()));
}

/// A boolean attribute.
pub(super) fn put_bool(out: &mut Vec<u8>, key: &str, value: bool) {
    put_attribute(out, key, |out| {
        put_tag(out, 2, wire_type::VARINT);
        put_varint(out, u64::from(value));
    });
}

/// A floating-point attribute.
pub(super) fn put_double(out: &mut Vec<u8>, key: &str, value: f64) {
    put_attribute(out, key, |out| {
        put_tag(out, 4, wire_type::FIXED64);
        out.extend_from_slice(&value.to_le_bytes());
    });
}

/// A `KeyValue` whose `AnyValue` is what `value` writes.
fn put_attribute(out: &mut Vec<u8>, key: &str, value: impl FnOnce(&mut Vec<u8>)) {
    put_message(out, ATTRIBUTES, |out| {
        put_bytes(out, 1, key.as_bytes());
        put_message(out, 2, value);
    });
}

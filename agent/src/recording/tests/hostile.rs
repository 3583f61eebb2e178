//! Files that nobody recorded, or that were damaged since.

use proptest::prelude::*;

use super::*;

#[test]
fn what_is_no_recording_is_refused_with_a_reason() {
    let (_dir, file) = recorded();
    let good = lines(&file);
    let with = |pointer: &str, value: Value| {
        let mut lines = good.clone();
        *lines[0].pointer_mut(pointer).unwrap() = value;
        of_lines(&lines).unwrap_err().to_string()
    };
    let after_first = |line: Value| {
        let lines = [good[0].clone(), line];
        of_lines(&lines).unwrap_err().to_string()
    };
    let far = u64::MAX;
    let of_bytes = |bytes: &[u8]| of_bytes(bytes.to_vec()).unwrap_err().to_string();
    let table = [
        (of_bytes(b""), "it is empty"),
        (
            of_bytes(b"\x7fELF\x02\x01"),
            "neither gzip nor lines of JSON",
        ),
        (of_bytes(b"\x1f\x8b\x08\0nonsense"), "its first line"),
        (
            of_bytes(b"{\"resourceSpans\":[]}\n"),
            "its first line does not say",
        ),
        (with("/recording/format", json!("pcap")), "something else"),
        (
            with("/recording/version", json!(2)),
            "this agent reads up to version 1",
        ),
        (with("/recording/mono", json!(far)), "more memory"),
        (
            with("/recording/pipeline/max_children", json!(1u64 << 40)),
            "more memory",
        ),
        (with("/recording/pipeline/settle_ns", json!(-1)), "line 1"),
        (after_first(json!({"weather": "fine"})), "line 2"),
        (after_first(good[0].clone()), "only the first line"),
        (
            after_first(json!({"settle": {"now": far}})),
            "none that a clock shows",
        ),
        (
            after_first(json!({"clock": {"mono": 1, "wall": far}})),
            "none that a clock shows",
        ),
        (
            after_first(json!({"batch": {"received": 1, "joined": [], "payload": "!"}})),
            "base64",
        ),
        (
            after_first(json!({"batch": {"received": 1, "joined": [], "payload": "//8="}})),
            "not a valid OTLP message",
        ),
        (
            after_first(
                json!({"batch": {"received": 1, "joined": [{"confidence": "host"}], "payload": ""}}),
            ),
            "0 resources and 1 joins",
        ),
        (
            after_first(
                json!({"batch": {"received": 1, "joined": [{"identity": 3, "confidence": "process"}], "payload": "CgA="}}),
            ),
            "nobody has slot 3",
        ),
        (
            after_first(
                json!({"events": {"now": 1, "events": vec![delay(1, Cause::Sleep, 0, 1); 257]}}),
            ),
            "more than 256 events",
        ),
        (
            after_first(
                json!({"lost": {"entries": 1, "why": "x".repeat(crate::recording::MAX_SMALL_LINE_BYTES)}}),
            ),
            "longer than",
        ),
    ];
    for (error, expected) in table {
        assert!(
            error.contains(expected),
            "{error:?} does not say {expected:?}"
        );
    }
}

#[test]
fn a_line_without_end_is_not_read_for_ever() {
    let (_dir, file) = recorded();
    let mut text = format!("{}\n{{\"lost\":", lines(&file)[0]).into_bytes();
    text.resize(text.len() + crate::recording::MAX_LINE_BYTES, b' ');
    let error = of_bytes(text).unwrap_err().to_string();
    assert!(
        error.contains("line 2") && error.contains("longer than"),
        "{error}"
    );
}

/// Numbers that hurt.
fn hurting() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!(0)),
        Just(json!(u64::MAX)),
        Just(json!((1u64 << 62) - 1)),
        Just(json!(-1)),
        Just(json!("x")),
        Just(Value::Null),
        any::<u64>().prop_map(|n| json!(n)),
    ]
}

fn put(value: &mut Value, nth: &mut usize, new: &Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| put(item, nth, new)),
        Value::Object(fields) => fields.values_mut().for_each(|field| put(field, nth, new)),
        leaf => {
            if *nth == 0 {
                *leaf = new.clone();
            }
            *nth = nth.wrapping_sub(1);
        }
    }
}

/// The recording's bytes, and its lines.
static RECORDED: LazyLock<(Vec<u8>, Vec<Value>)> = LazyLock::new(|| {
    let (_dir, file) = recorded();
    (fs::read(&file).unwrap(), lines(&file))
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is wrong with a file, it is replayed or refused, and nothing else happens.
    #[test]
    fn a_file_with_wrong_bytes_is_replayed_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        packed in any::<bool>(),
    ) {
        let mut bytes = match packed {
            true => RECORDED.0.clone(),
            false => RECORDED.1.iter().flat_map(|l| format!("{l}\n").into_bytes()).collect(),
        };
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if let Err(error) = of_bytes(bytes) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    /// The same of lines that are JSON but say what cannot be.
    #[test]
    fn a_file_with_wrong_values_is_replayed_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0usize..40, hurting()), 1..12),
    ) {
        let mut lines = RECORDED.1.clone();
        for (index, mut nth, value) in changes {
            let at = index.index(lines.len());
            put(&mut lines[at], &mut nth, &value);
        }
        if let Err(error) = of_lines(&lines) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}

//! For any request: the output is the input and additions, and no bytes make it panic.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::{undone::strip, *};

prop_compose! {
    /// A field of a number that OTLP does not know.
    fn unknown_field()(
        number in 40..100_000_u32,
        kind in 0..5,
        bits: u64,
        bytes in vec(any::<u8>(), 0..200),
    ) -> Vec<u8> {
        let mut out = Vec::new();
        match kind {
            0 => { put_tag(&mut out, number, wire_type::VARINT); put_varint(&mut out, bits); }
            1 => {
                put_tag(&mut out, number, wire_type::FIXED64);
                out.extend(bits.to_le_bytes());
            }
            2 => {
                put_tag(&mut out, number, wire_type::FIXED32);
                out.extend((bits as u32).to_le_bytes());
            }
            3 => put_bytes(&mut out, number, &bytes),
            _ => {
                put_tag(&mut out, number, 3);
                put_bytes(&mut out, 7, &bytes);
                put_tag(&mut out, number, 4);
            }
        }
        out
    }
}

fn field(number: u32, content: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    content.prop_map(move |content| {
        let mut out = Vec::new();
        put_bytes(&mut out, number, &content);
        out
    })
}

fn message(parts: impl Strategy<Value = Vec<u8>>, max: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(parts, 0..max).prop_map(|parts| parts.concat())
}

fn key_value() -> impl Strategy<Value = Vec<u8>> {
    let value = prop_oneof![
        any::<String>().prop_map(Any::StringValue),
        any::<i64>().prop_map(Any::IntValue),
        any::<bool>().prop_map(Any::BoolValue),
        vec(any::<u8>(), 0..9).prop_map(Any::BytesValue),
    ];
    let known = ("[a-z.]{0,20}", value).prop_map(|(key, value)| {
        KeyValue {
            key,
            value: Some(AnyValue { value: Some(value) }),
            ..KeyValue::default()
        }
        .encode_to_vec()
    });
    (known, prop_oneof![Just(Vec::new()), unknown_field()])
        .prop_map(|(known, unknown)| [unknown, known].concat())
}

fn span() -> impl Strategy<Value = Vec<u8>> {
    let time = (prop_oneof![Just(7_u32), Just(8)], any::<u64>()).prop_map(|(number, time)| {
        let mut out = Vec::new();
        put_tag(&mut out, number, wire_type::FIXED64);
        out.extend(time.to_le_bytes());
        out
    });
    let event = pb::span::Event {
        time_unix_nano: 1,
        name: "e".to_owned(),
        ..pb::span::Event::default()
    };
    let part = prop_oneof![
        field(
            1,
            prop_oneof![9 => vec(any::<u8>(), 16), 1 => vec(any::<u8>(), 0..20)]
        ),
        field(
            2,
            prop_oneof![9 => vec(any::<u8>(), 8), 1 => vec(any::<u8>(), 0..20)]
        ),
        field(5, any::<String>().prop_map(String::into_bytes)),
        field(9, key_value()),
        field(9, key_value()),
        field(11, Just(event.encode_to_vec())),
        time,
        unknown_field(),
    ];
    message(part, 12)
}

fn request() -> impl Strategy<Value = Vec<u8>> {
    let scope = prop_oneof![3 => field(2, span()), 1 => unknown_field(),
        1 => field(3, Just(b"https://schema".to_vec()))];
    let scope = message(scope, 8);
    let resource = field(
        1,
        key_value().prop_map(|kv| {
            let mut out = Vec::new();
            put_bytes(&mut out, 1, &kv);
            out
        }),
    );
    let resource_spans = prop_oneof![3 => field(2, scope), 1 => unknown_field(), 1 => resource];
    message(
        prop_oneof![3 => field(1, message(resource_spans, 5)), 1 => unknown_field()],
        5,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn output_is_input_and_additions_only(input in request(), choices in vec(0..4_usize, 1..40)) {
        let batch = view::parse(input.clone().into(), MonoNs(0)).unwrap();
        let one = identity();
        let judgements: Vec<_> = batch.spans.iter().zip(choices.iter().cycle()).map(|(_, choice)| {
            match choice {
                0 => healthy(unknown_process()),
                1 => healthy(known(&one)),
                2 => healthy(known(&identity())),
                _ => throttled(&one),
            }
        }).collect();
        let output = enrich(&batch, &judgements, &options());

        prop_assert_eq!(strip(&output), input.clone(), "byte by byte");

        let before = ExportTraceServiceRequest::decode(&*input).unwrap();
        let after = ExportTraceServiceRequest::decode(output).unwrap();
        prop_assert_eq!(before.resource_spans.len(), after.resource_spans.len());
        let mut judgements = judgements.iter();
        for (before, mut after) in before.resource_spans.into_iter().zip(after.resource_spans) {
            let mut children = Vec::new();
            for (i, scope) in before.scope_spans.iter().enumerate() {
                for (j, span) in scope.spans.iter().enumerate() {
                    let judgement = judgements.next().unwrap();
                    let ours = after.scope_spans[i].spans[j]
                        .attributes.split_off(span.attributes.len());
                    prop_assert_eq!(pairs(&ours), expected(judgement));
                    if judgement.verdict.is_some() && is_valid(span) {
                        let parent = (span.trace_id.clone(), span.span_id.clone());
                        children.extend([parent.clone(), parent]);
                    }
                }
            }
            let ours = after.scope_spans.split_off(before.scope_spans.len());
            prop_assert_eq!(ours.len(), usize::from(!children.is_empty()));
            let made = ours.iter().flat_map(|scope| &scope.spans);
            let made: Vec<_> = made.map(|s| (s.trace_id.clone(), s.parent_span_id.clone())).collect();
            prop_assert_eq!(made, children);
            prop_assert_eq!(before, after, "all else as it came");
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        try_all(bytes);
    }

    #[test]
    fn damaged_requests_never_panic(
        mut input in request(),
        edits in vec((any::<Index>(), any::<u8>()), 1..8),
        cut: Index,
    ) {
        prop_assume!(!input.is_empty());
        for (at, byte) in edits {
            let at = at.index(input.len());
            input[at] = byte;
        }
        try_all(input[..=cut.index(input.len())].to_vec());
    }
}

fn is_valid(span: &pb::Span) -> bool {
    let is_id = |id: &[u8], length| id.len() == length && id.iter().any(|b| *b != 0);
    is_id(&span.trace_id, 16) && is_id(&span.span_id, 8)
}

/// What is accepted here is accepted by prost (which also wants UTF-8), and stays so.
fn try_all(bytes: Vec<u8>) {
    let Ok(batch) = view::parse(bytes.clone().into(), MonoNs(0)) else {
        return;
    };
    let judged = vec![throttled(&identity()); batch.spans.len()];
    let output = enrich(&batch, &judged, &options());
    for message in [&bytes[..], &output] {
        if let Err(error) = ExportTraceServiceRequest::decode(message) {
            assert!(error.to_string().contains("UTF-8"), "{error}");
        }
    }
    assert!(view::parse(output, MonoNs(0)).is_ok());
}

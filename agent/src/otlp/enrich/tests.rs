//! What comes out is what came in plus what the contract names: by decoding with prost, and
//! byte by byte.

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value as Any},
    trace::v1 as pb,
};
use proptest::{collection::vec, prelude::*, sample::Index};
use prost::Message;

use super::{children::SCOPE_NAME, *};
use crate::{
    otlp::{
        view,
        wire::{put_bytes, put_tag, wire_type},
    },
    process::{Identity, ProcessKey},
    stack::{Stack, StackEntry},
    time::{MonoNs, UnixNs},
    verdict::{CauseInterval, Split, Verdict},
    vocabulary::{Cause, Fault, Layer},
    workload::Workload,
};

fn options() -> EnrichOptions {
    EnrichOptions {
        node: "node-1".to_owned(),
        child_spans: true,
    }
}

fn identity() -> Arc<Identity> {
    let entry = |layer, technology: &str| StackEntry {
        layer,
        technology: technology.to_owned(),
        evidence: String::new(),
    };
    Arc::new(Identity {
        process: ProcessKey {
            pid: 1,
            start_ticks: 2,
        },
        comm: "shop".to_owned(),
        cgroup_id: 3,
        cgroup_path: "/a".to_owned(),
        workload: Workload::default(),
        stack: Stack(vec![
            entry(Layer::Container, "runc"),
            entry(Layer::FullVirtualisation, "kvm"),
        ]),
    })
}

fn healthy(joined: Joined) -> Judgement {
    Judgement {
        thread: None,
        joined,
        split: None,
        verdict: None,
        intervals: Vec::new(),
    }
}

fn unknown_process() -> Joined {
    Joined {
        identity: None,
        confidence: Confidence::Host,
    }
}

fn known(identity: &Arc<Identity>) -> Joined {
    Joined {
        identity: Some(Arc::clone(identity)),
        confidence: Confidence::Process,
    }
}

fn throttled(identity: &Arc<Identity>) -> Judgement {
    Judgement {
        thread: None,
        joined: known(identity),
        split: Some(Split {
            self_time_ns: 9_000_000,
            parts: vec![(Cause::CpuThrottle, 7_500_000), (Cause::OnCpu, 1_500_000)],
            downstream_ns: 500_000,
        }),
        verdict: Some(Arc::new(Verdict {
            fault: Fault::L3,
            cause: Cause::CpuThrottle,
            share: 0.83,
            culprit: String::new(),
            incident: "i-1".to_owned(),
            summary: "held back".to_owned(),
            remedy: "raise the quota".to_owned(),
            evidence: vec![("cpu_throttle_ms".to_owned(), 7.5)],
        })),
        intervals: vec![
            CauseInterval {
                cause: Cause::CpuThrottle,
                fault: Fault::L3,
                start: UnixNs(1_000),
                end: UnixNs(5_000),
                cause_ns: 4_000,
            },
            CauseInterval {
                cause: Cause::CpuThrottle,
                fault: Fault::L3,
                start: UnixNs(6_000),
                end: UnixNs(9_000),
                cause_ns: 2_000,
            },
        ],
    }
}

fn text(value: &str) -> Any {
    Any::StringValue(value.to_owned())
}

/// The contract, told apart from the code that writes it.
fn expected(judgement: &Judgement) -> Vec<(String, Any)> {
    let mut out = Vec::new();
    if let Some(identity) = &judgement.joined.identity {
        out.push((
            "isostack.layer".to_owned(),
            text(identity.stack.layer().as_str()),
        ));
        out.push((
            "isostack.stack".to_owned(),
            text(&identity.stack.to_string()),
        ));
    }
    let confidence = text(judgement.joined.confidence.as_str());
    out.push(("isostack.confidence".to_owned(), confidence));
    out.push(("isostack.node".to_owned(), text("node-1")));
    if judgement.verdict.is_some() {
        let rest = [
            ("isostack.fault", text("L-3")),
            ("isostack.cause", text("cpu_throttle")),
            ("isostack.share", Any::DoubleValue(0.83)),
            ("isostack.incident", text("i-1")),
            ("isostack.summary", text("held back")),
            ("isostack.remedy", text("raise the quota")),
            ("isostack.evidence.cpu_throttle_ms", Any::DoubleValue(7.5)),
            ("isostack.split.cpu_throttle_ms", Any::DoubleValue(7.5)),
            ("isostack.split.on_cpu_ms", Any::DoubleValue(1.5)),
            ("isostack.split.downstream_ms", Any::DoubleValue(0.5)),
        ];
        out.extend(rest.map(|(key, value)| (key.to_owned(), value)));
    }
    out
}

fn pairs(attributes: &[KeyValue]) -> Vec<(String, Any)> {
    let value = |kv: &KeyValue| kv.value.clone().unwrap().value.unwrap();
    attributes
        .iter()
        .map(|kv| (kv.key.clone(), value(kv)))
        .collect()
}

/// Undoes the splice by its own rules: our attributes are the last of a span, our scope is
/// the last of its resource; all prefixes are written anew.
fn strip(output: &[u8]) -> Vec<u8> {
    rebuild(output, 1, &|resource| {
        rebuild(&without_our_scope(resource), 2, &|scope| {
            rebuild(scope, 2, &without_our_attributes)
        })
    })
}

/// All fields, those of `number` changed by `change`.
fn rebuild(bytes: &[u8], number: u32, change: &dyn Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let (mut out, mut fields) = (Vec::new(), Fields::new(bytes));
    let mut start = 0;
    while let Some(field) = fields.next_field().unwrap() {
        match field.value {
            Value::Len(body) if field.number == number => {
                put_bytes(&mut out, number, &change(body))
            }
            _ => out.extend_from_slice(&bytes[start..fields.position()]),
        }
        start = fields.position();
    }
    out
}

fn without_our_scope(resource: &[u8]) -> Vec<u8> {
    let mut fields = Fields::new(resource);
    let mut last = (0, None);
    loop {
        let start = fields.position();
        let Some(field) = fields.next_field().unwrap() else {
            break;
        };
        last = (start, Some(field));
    }
    if let (start, Some(field)) = last
        && let (2, Value::Len(body)) = (field.number, field.value)
        && let Ok(scope) = pb::ScopeSpans::decode(body)
        && scope.scope.is_some_and(|scope| scope.name == SCOPE_NAME)
    {
        return resource[..start].to_vec();
    }
    resource.to_vec()
}

fn without_our_attributes(span: &[u8]) -> Vec<u8> {
    let mut fields = Fields::new(span);
    let mut end = 0;
    while let Some(field) = fields.next_field().unwrap() {
        let is_ours = match (field.number, field.value) {
            (9, Value::Len(body)) => KeyValue::decode(body).unwrap().key.starts_with("isostack."),
            _ => false,
        };
        if !is_ours {
            end = fields.position();
        }
    }
    span[..end].to_vec()
}

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

fn one_span() -> Bytes {
    let span = pb::Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        ..pb::Span::default()
    };
    let scope = pb::ScopeSpans {
        spans: vec![span],
        ..pb::ScopeSpans::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![pb::ResourceSpans {
            scope_spans: vec![scope],
            ..pb::ResourceSpans::default()
        }],
    }
    .encode_to_vec()
    .into()
}

fn enriched(payload: Bytes, judgement: Judgement, options: &EnrichOptions) -> Bytes {
    let batch = view::parse(payload, MonoNs(0)).unwrap();
    let judgements = vec![judgement; batch.spans.len()];
    enrich(&batch, &judgements, options)
}

#[test]
fn child_spans_say_when() {
    let output = enriched(one_span(), throttled(&identity()), &options());
    let output = ExportTraceServiceRequest::decode(output).unwrap();
    let scope = output.resource_spans[0].scope_spans.last().unwrap();
    let named = scope.scope.clone().unwrap();
    assert_eq!(
        (&*named.name, &*named.version),
        ("isostack-agent", env!("CARGO_PKG_VERSION"))
    );
    let [whole, part] = &scope.spans[..] else {
        panic!("two intervals, two spans: {scope:?}");
    };
    assert_ne!(whole.span_id, part.span_id);
    assert_ne!(whole.span_id, vec![0; 8]);
    for (span, start, end) in [(whole, 1_000, 5_000), (part, 6_000, 9_000)] {
        assert_eq!(span.name, "L-3 cpu_throttle");
        assert_eq!(span.kind, pb::span::SpanKind::Internal as i32);
        assert_eq!(
            (span.start_time_unix_nano, span.end_time_unix_nano),
            (start, end)
        );
        assert_eq!(
            (&*span.trace_id, &*span.parent_span_id),
            (&[1; 16][..], &[2; 8][..])
        );
    }
    let mut wanted = vec![
        ("isostack.synthetic".to_owned(), Any::BoolValue(true)),
        ("isostack.cause".to_owned(), text("cpu_throttle")),
        ("isostack.fault".to_owned(), text("L-3")),
    ];
    assert_eq!(pairs(&whole.attributes), wanted);
    wanted.push((
        "isostack.evidence.cpu_throttle_ms".to_owned(),
        Any::DoubleValue(0.002),
    ));
    assert_eq!(pairs(&part.attributes), wanted);
}

#[test]
fn child_spans_can_be_turned_off_and_are_limited() {
    let off = EnrichOptions {
        child_spans: false,
        ..options()
    };
    let output = enriched(one_span(), throttled(&identity()), &off);
    let output = ExportTraceServiceRequest::decode(output).unwrap();
    assert_eq!(output.resource_spans[0].scope_spans.len(), 1);

    let mut many = throttled(&identity());
    many.intervals = vec![many.intervals[0].clone(); 40];
    let output = enriched(one_span(), many, &options());
    let output = ExportTraceServiceRequest::decode(output).unwrap();
    assert_eq!(output.resource_spans[0].scope_spans[1].spans.len(), 16);
}

#[test]
fn what_another_agent_enriched_is_left_alone() {
    let once = enriched(one_span(), throttled(&identity()), &options());
    let other = EnrichOptions {
        node: "node-2".to_owned(),
        ..options()
    };
    let twice = enriched(once.clone(), throttled(&identity()), &other);
    assert_eq!(once, twice, "neither the span nor our child spans");
}

#[test]
fn prefixes_wider_than_needed_still_give_a_valid_message() {
    // Each length prefix padded to ten bytes, which the format allows.
    let wide = |number: u32, body: &[u8]| {
        let mut out = Vec::new();
        put_tag(&mut out, number, wire_type::LEN);
        let mut length = [0x80; 10];
        length[0] |= (body.len() & 0x7f) as u8;
        length[1] |= (body.len() >> 7) as u8;
        length[9] = 0;
        out.extend(length);
        out.extend_from_slice(body);
        out
    };
    let mut span = Vec::new();
    put_bytes(&mut span, 5, b"name");
    let input = wide(1, &wide(2, &wide(2, &span)));
    let output = enriched(input.into(), healthy(unknown_process()), &options());
    let output = ExportTraceServiceRequest::decode(output).unwrap();
    let span = &output.resource_spans[0].scope_spans[0].spans[0];
    assert_eq!(span.name, "name");
    assert_eq!(
        pairs(&span.attributes),
        expected(&healthy(unknown_process()))
    );
}

#[test]
fn a_span_without_a_judgement_leaves_as_it_came() {
    let input = one_span();
    let batch = view::parse(input.clone(), MonoNs(0)).unwrap();
    assert_eq!(enrich(&batch, &[], &options()), input);
}

//! What trace stores really give: Jaeger's answers are as a Jaeger 2.13 gave them, that of
//! Tempo's first API is a Tempo 1.5.0's, byte for byte. Tempo's second API came with 2.6, which
//! was not tried: its answers are written after its source.

use serde_json::{Value, json};

use super::{ReadError, parse_trace_id, read};
use crate::{
    trace::{TraceSpan, report},
    vocabulary::{Cause, Fault},
};

const ID: &str = "0af7651916cd43dd8448eb211c80319c";
const START: u64 = 1_795_000_000_123_456_789;

fn spans(text: &str) -> Vec<TraceSpan> {
    read(text.as_bytes(), parse_trace_id(ID).unwrap())
        .unwrap()
        .spans
}

fn attribute(key: &str, value: Value) -> Value {
    json!({ "key": key, "value": value })
}

/// A server's span with a verdict, its client child, and a stretch, as OTLP.
fn otlp() -> Value {
    let text = |v: &str| json!({ "stringValue": v });
    let verdict = [
        attribute("isostack.node", text("node-b")),
        attribute("isostack.layer", text("L-3")),
        attribute("isostack.stack", text("L-3:runc/L-1:kvm")),
        attribute("isostack.confidence", text("process")),
        attribute("isostack.fault", text("L-3")),
        attribute("isostack.cause", text("cpu_throttle")),
        attribute("isostack.share", json!({ "doubleValue": 0.75 })),
        attribute("isostack.culprit", text("shop/noisy")),
        attribute("isostack.summary", text("75 % of it")),
        attribute(
            "isostack.evidence.limit_cores",
            json!({ "doubleValue": 0.2 }),
        ),
        attribute(
            "isostack.split.cpu_throttle_ms",
            json!({ "doubleValue": 300.0 }),
        ),
        attribute("isostack.split.on_cpu_ms", json!({ "intValue": "100" })),
        attribute(
            "isostack.split.downstream_ms",
            json!({ "doubleValue": 9.0 }),
        ),
        attribute("isostack.split.nonsense_ms", json!({ "doubleValue": 9.0 })),
        attribute("isostack.split.steal_ms", json!({ "doubleValue": -1.0 })),
        attribute(
            "isostack.split.runqueue_ms",
            json!({ "doubleValue": "NaN" }),
        ),
        attribute("tags", json!({ "arrayValue": { "values": [text("a")] } })),
    ];
    let at = |ms: u64| (START + ms * 1_000_000).to_string();
    json!({ "resourceSpans": [{
        "resource": { "attributes": [
            attribute("service.name", text("cart")),
            attribute("host.name", text("node-x")),
        ] },
        "scopeSpans": [{ "scope": { "name": "lib" }, "spans": [
            { "traceId": ID, "spanId": "00ad6b7169203331", "name": "GET /", "kind": 2,
              "startTimeUnixNano": at(0), "endTimeUnixNano": at(400),
              "attributes": verdict, "status": { "code": 2 } },
            { "traceId": ID, "spanId": "00ad6b7169203332", "parentSpanId": "00ad6b7169203331",
              "name": "call", "kind": "SPAN_KIND_CLIENT", "startTimeUnixNano": at(10),
              "endTimeUnixNano": at(20), "status": null, "attributes": null },
            { "traceId": ID, "spanId": "00ad6b7169203333", "parentSpanId": "00ad6b7169203331",
              "name": "L-3 cpu_throttle", "kind": 1, "startTimeUnixNano": at(30),
              "endTimeUnixNano": at(110), "attributes": [
                attribute("isostack.synthetic", json!({ "boolValue": true })),
                attribute("isostack.fault", text("L-3")),
                attribute("isostack.cause", text("cpu_throttle")),
            ] },
        ] }],
    }] })
}

/// The same whatever the envelope.
fn assert_is_otlp(text: &str) {
    let spans = spans(text);
    assert_eq!(spans.len(), 3, "{text}");
    let report = report(parse_trace_id(ID).unwrap(), spans);
    assert_eq!((report.spans_total, report.critical_path.len()), (2, 2));
    let hop = report.slowest_hop.as_ref().unwrap();
    assert_eq!(
        (&*hop.service, &*hop.node, &*hop.kind),
        ("cart", "node-b", "server")
    );
    assert_eq!(report.spans[1].kind, "client");
    assert_eq!(report.spans[1].node, "node-x");
    assert!(hop.error);
    assert_eq!(hop.stretches[0].start_ms, 30.0);
    assert_eq!(hop.split[&Cause::CpuThrottle], 300.0);
    assert_eq!(hop.split[&Cause::OnCpu], 100.0);
    assert_eq!(hop.split.len(), 2, "{:?}", hop.split);
    let answer = &report.verdict.as_ref().unwrap().answer;
    assert_eq!(
        (answer.fault, answer.cause),
        (Fault::L3, Cause::CpuThrottle)
    );
    assert_eq!((answer.share, &*answer.culprit), (0.75, "shop/noisy"));
    assert_eq!(answer.evidence["limit_cores"], 0.2);
}

#[test]
fn otlp_as_one_document_and_one_a_line() {
    let one = otlp();
    assert_is_otlp(&one.to_string());
    assert_is_otlp(&format!("{one:#}"));
    // The collector's file exporter: a document a line, the spans of a trace in several.
    let mut lines = String::new();
    for index in 0..3 {
        let mut part = one.clone();
        let spans = &mut part["resourceSpans"][0]["scopeSpans"][0]["spans"];
        *spans = json!([spans[index]]);
        lines += &format!("{part}\n");
    }
    assert_is_otlp(&lines);
    let others = lines.replace(ID, "0af7651916cd43dd8448eb2100000000");
    let found = read((lines + &others).as_bytes(), parse_trace_id(ID).unwrap()).unwrap();
    assert_eq!((found.spans.len(), found.of_others), (3, 3));
}

#[test]
fn jaegers_stable_api() {
    assert_is_otlp(&json!({ "result": otlp() }).to_string());
    let absent = r#"{"error":{"httpCode":404,"message":"No traces found"}}"#;
    let found = read(absent.as_bytes(), parse_trace_id(ID).unwrap()).unwrap();
    assert_eq!((found.spans.len(), &*found.said), (0, "No traces found"));
}

#[test]
fn jaegers_older_api_and_its_pages_download() {
    let answer = json!({ "data": [{ "traceID": ID, "spans": [
        { "traceID": ID, "spanID": "00ad6b7169203332", "operationName": "call",
          "references": [
            { "refType": "FOLLOWS_FROM", "traceID": ID, "spanID": "00000000000000ff" },
            { "refType": "CHILD_OF", "traceID": ID, "spanID": "00ad6b7169203331" }],
          "startTime": 1_795_000_000_133_456_u64, "duration": 10_000,
          "tags": [{ "key": "span.kind", "type": "string", "value": "client" }],
          "logs": [], "processID": "p1", "warnings": null },
        // The store calls a link to one's own child a reference too.
        { "traceID": ID, "spanID": "00ad6b7169203331", "operationName": "GET /",
          "references": [{ "refType": "FOLLOWS_FROM", "traceID": ID, "spanID": "00ad6b7169203332" }],
          "startTime": 1_795_000_000_123_456_u64, "duration": 400_000,
          "tags": [
            { "key": "error", "type": "bool", "value": true },
            { "key": "isostack.cause", "type": "string", "value": "cpu_throttle" },
            { "key": "isostack.fault", "type": "string", "value": "L-3" },
            { "key": "isostack.share", "type": "float64", "value": 0.71 },
            { "key": "span.kind", "type": "string", "value": "server" }],
          "logs": [], "processID": "p1", "warnings": null }],
        "processes": { "p1": { "serviceName": "cart", "tags": [
            { "key": "host.name", "type": "string", "value": "node-b" }] } },
        "warnings": null }], "total": 0, "errors": null });
    let report = report(parse_trace_id(ID).unwrap(), spans(&answer.to_string()));
    assert!(report.notes.is_empty(), "{:?}", report.notes);
    assert_eq!(report.spans[1].depth, 1);
    assert_eq!(report.slowest_hop.unwrap().node, "node-b");
    assert_eq!(report.verdict.unwrap().answer.share, 0.71);
    assert_eq!(report.duration_ms, 400.0);
}

/// Ids in base64, `batches` of `instrumentationLibrarySpans`, words for the kinds.
#[test]
fn tempos_first_api_as_it_answered() {
    let answer = include_str!("../../../tests/data/trace_stores/tempo-1.5.0.json");
    let id = parse_trace_id("0ad209e7c5bbb3459a4dd4aa597ee00d").unwrap();
    let found = read(answer.as_bytes(), id).unwrap();
    // Five of the services' and seven stretches.
    assert_eq!((found.spans.len(), found.of_others), (12, 0));
    assert!(found.said.is_empty() && !found.is_partial);
    let report = report(id, found.spans);
    assert!(report.notes.is_empty(), "{:?}", report.notes);
    assert_eq!(report.duration_ms, 370.319_29);
    let hops: Vec<_> = report
        .spans
        .iter()
        .map(|hop| (&*hop.service, &*hop.operation, &*hop.kind, hop.depth))
        .collect();
    assert_eq!(
        hops,
        [
            ("web", "GET /buy", "server", 0),
            ("web", "GET", "client", 1),
            ("orders", "GET /buy", "server", 2),
            ("orders", "GET", "client", 3),
            ("store", "GET /buy", "server", 4),
        ]
    );
    let hop = report.slowest_hop.as_ref().unwrap();
    assert_eq!((&*hop.service, &*hop.node), ("store", "node-a"));
    assert_eq!(hop.stretches.len(), 7);
    assert_eq!(hop.split[&Cause::CpuThrottle], 274.573);
    let answer = &report.verdict.as_ref().unwrap().answer;
    assert_eq!(
        (answer.fault, answer.cause),
        (Fault::L3, Cause::CpuThrottle)
    );
    assert_eq!(answer.share, 0.824_436_847_055_973_8);
    assert_eq!(answer.evidence["cpu_limit_cores"], 0.1);
}

/// Written after its source (`TraceByIDResponse`), not taken from a running one.
#[test]
fn tempos_second_api_says_what_is_missing() {
    // 0af7651916cd43dd8448eb211c80319c, 00ad6b7169203331 and its neighbours.
    let base64 = otlp()
        .to_string()
        .replace(ID, "CvdlGRbNQ92ESOshHIAxnA==")
        .replace("00ad6b7169203331", "AK1rcWkgMzE=")
        .replace("00ad6b7169203332", "AK1rcWkgMzI=")
        .replace("00ad6b7169203333", "AK1rcWkgMzM=")
        .replace(r#""kind":2"#, r#""kind":"SPAN_KIND_SERVER""#)
        .replace(r#""code":2"#, r#""code":"STATUS_CODE_ERROR""#);
    for trace in [base64, otlp().to_string()] {
        for (more, is_partial, said) in [
            (r#""metrics":{}"#, false, ""),
            (r#""status":"COMPLETE","message":"""#, false, ""),
            (
                r#""status":"PARTIAL","message":"too large""#,
                true,
                "too large",
            ),
            (r#""status":"PARTIAL""#, true, ""),
            (r#""status":1,"message":null"#, true, ""),
        ] {
            let answer = format!(r#"{{"trace":{trace},{more}}}"#);
            assert_is_otlp(&answer);
            let found = read(answer.as_bytes(), parse_trace_id(ID).unwrap()).unwrap();
            assert_eq!((found.is_partial, &*found.said), (is_partial, said));
        }
    }
    let absent = read(&br#"{"trace":{},"metrics":{}}"#[..], [1; 16]).unwrap();
    assert!(absent.spans.is_empty());
}

#[test]
fn what_is_no_trace_is_told_with_its_place() {
    let error = |text: &str| read(text.as_bytes(), [1; 16]).unwrap_err();
    for (text, said) in [
        ("<!DOCTYPE html>", "line 1, column 1"),
        ("{\"resourceSpans\": 5}", "invalid type"),
        ("[1, 2]", "line 1"),
        ("{\"resourceSpans\": [", "EOF"),
        (
            r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"startTimeUnixNano":"soon"}]}]}]}"#,
            "nanoseconds since the epoch",
        ),
    ] {
        let error = error(text);
        assert!(matches!(error, ReadError::Json { .. }), "{error:?}");
        assert!(error.to_string().contains(said), "{error}");
    }
    let deep = format!("{}{}", "{\"result\":".repeat(500), "}".repeat(500));
    assert!(error(&deep).to_string().contains("recursion"));
    assert!(read(&b""[..], [1; 16]).unwrap().spans.is_empty());
    assert!(read(&b"{}"[..], [1; 16]).unwrap().spans.is_empty());
}

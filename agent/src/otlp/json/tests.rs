//! The mapping, sentence by sentence, decoded with prost.

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{AnyValue, any_value::Value},
    metrics::v1::{exemplar, metric::Data, number_data_point},
    trace::v1::Span,
};
use proptest::prelude::*;
use prost::Message as _;

use super::*;

fn traces(json: &str) -> ExportTraceServiceRequest {
    let bytes = to_protobuf(Signal::Traces, json.as_bytes()).unwrap_or_else(|e| panic!("{e}"));
    ExportTraceServiceRequest::decode(bytes).unwrap()
}

fn span(json: &str) -> Span {
    let json = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{json}]}}]}}]}}"#);
    traces(&json).resource_spans[0].scope_spans[0].spans[0].clone()
}

fn refused(json: &str) -> String {
    let json = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{json}]}}]}}]}}"#);
    to_protobuf(Signal::Traces, json.as_bytes())
        .unwrap_err()
        .to_string()
}

fn value(json: &str) -> Option<Value> {
    let span = span(&format!(
        r#"{{"attributes":[{{"key":"k","value":{json}}}]}}"#
    ));
    span.attributes[0].value.clone().and_then(|v| v.value)
}

#[test]
fn a_whole_span_comes_over() {
    let request = traces(
        r#"{"resourceSpans":[{
          "resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}],
                      "droppedAttributesCount":3,
                      "entityRefs":[{"type":"service","idKeys":["service.name"]}]},
          "scopeSpans":[{
            "scope":{"name":"lib","version":"1","attributes":[{"key":"a","value":{"boolValue":true}}]},
            "spans":[{
              "traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"eee19b7ec3c1b174",
              "parentSpanId":"eee19b7ec3c1b173","traceState":"a=b","flags":257,
              "name":"I'm a server span \u00e9 \ud83d\ude00","kind":2,
              "startTimeUnixNano":"1544712660000000000","endTimeUnixNano":1544712661000000000,
              "droppedAttributesCount":1,"droppedEventsCount":2,"droppedLinksCount":4,
              "events":[{"timeUnixNano":"5","name":"e","attributes":[{"key":"x","value":{"intValue":"1"}}],
                         "droppedAttributesCount":9}],
              "links":[{"traceId":"000102030405060708090a0b0c0d0e0f","spanId":"0001020304050607",
                        "traceState":"c=d","flags":1,"attributes":[],"droppedAttributesCount":8}],
              "status":{"code":2}}],
            "schemaUrl":"s"}],
          "schemaUrl":"r"}]}"#,
    );
    let resource_spans = &request.resource_spans[0];
    let resource = resource_spans.resource.clone().unwrap();
    assert_eq!(resource.dropped_attributes_count, 3);
    assert_eq!(resource.entity_refs[0].id_keys, ["service.name"]);
    assert_eq!(resource_spans.schema_url, "r");
    let scope_spans = &resource_spans.scope_spans[0];
    assert_eq!(scope_spans.schema_url, "s");
    let scope = scope_spans.scope.clone().unwrap();
    assert_eq!(
        (&*scope.name, &*scope.version, scope.attributes.len()),
        ("lib", "1", 1)
    );
    let span = &scope_spans.spans[0];
    assert_eq!(span.trace_id[..3], [0x5b, 0x8e, 0xff]);
    assert_eq!((span.trace_id.len(), span.span_id.len()), (16, 8));
    assert_eq!(span.parent_span_id[7], 0x73);
    assert_eq!((&*span.trace_state, span.flags), ("a=b", 257));
    assert_eq!(span.name, "I'm a server span é 😀");
    assert_eq!(span.kind, 2);
    assert_eq!(span.start_time_unix_nano, 1_544_712_660_000_000_000);
    assert_eq!(span.end_time_unix_nano, 1_544_712_661_000_000_000);
    let dropped = (
        span.dropped_attributes_count,
        span.dropped_events_count,
        span.dropped_links_count,
    );
    assert_eq!(dropped, (1, 2, 4));
    let event = &span.events[0];
    assert_eq!(
        (event.time_unix_nano, event.dropped_attributes_count),
        (5, 9)
    );
    assert_eq!(event.attributes[0].key, "x");
    let link = &span.links[0];
    assert_eq!(link.trace_id, (0..16).collect::<Vec<u8>>());
    assert_eq!((link.flags, link.dropped_attributes_count), (1, 8));
    assert_eq!(span.status.clone().unwrap().code, 2);
}

#[test]
fn every_form_of_a_value_is_understood() {
    let nested = r#"{"kvlistValue":{"values":[{"key":"a","value":{"arrayValue":{"values":
        [{"intValue":1},{},null,{"stringValue":""}]}}}]}}"#;
    let Some(Value::KvlistValue(list)) = value(nested) else {
        panic!("a list");
    };
    let Some(Value::ArrayValue(array)) = list.values[0].value.clone().unwrap().value else {
        panic!("an array");
    };
    let text = |text: &str| Some(Value::StringValue(text.to_owned()));
    let values: Vec<_> = array.values.into_iter().map(|v| v.value).collect();
    assert_eq!(values, [Some(Value::IntValue(1)), None, None, text("")]);

    for (json, wanted) in [
        ("{}", None),
        ("null", None),
        (r#"{"futureValue":[1,{"x":2}]}"#, None),
        (r#"{"stringValue":null}"#, None),
        (r#"{"stringValue":"a"}"#, text("a")),
        (r#"{"string_value":"snake"}"#, text("snake")),
        (
            r#"{"stringValue":"cut \ud83d"}"#,
            text("cut \u{fffd}\u{fffd}\u{fffd}"),
        ),
        (r#"{"boolValue":false}"#, Some(Value::BoolValue(false))),
        (
            r#"{"intValue":"-9223372036854775808"}"#,
            Some(Value::IntValue(i64::MIN)),
        ),
        (
            r#"{"intValue":9223372036854775807}"#,
            Some(Value::IntValue(i64::MAX)),
        ),
        (r#"{"intValue":0}"#, Some(Value::IntValue(0))),
        (r#"{"intValue":1.0}"#, Some(Value::IntValue(1))),
        (r#"{"intValue":"1e3"}"#, Some(Value::IntValue(1000))),
        (r#"{"doubleValue":0}"#, Some(Value::DoubleValue(0.0))),
        (
            r#"{"doubleValue":-1.5e-3}"#,
            Some(Value::DoubleValue(-0.0015)),
        ),
        (r#"{"doubleValue":"2.5"}"#, Some(Value::DoubleValue(2.5))),
        (
            r#"{"doubleValue":"Infinity"}"#,
            Some(Value::DoubleValue(f64::INFINITY)),
        ),
        (
            r#"{"doubleValue":"-Infinity"}"#,
            Some(Value::DoubleValue(f64::NEG_INFINITY)),
        ),
        (
            r#"{"bytesValue":"AP8+/w=="}"#,
            Some(Value::BytesValue(vec![0, 255, 62, 255])),
        ),
        (
            r#"{"bytesValue":"AP8-_w"}"#,
            Some(Value::BytesValue(vec![0, 255, 62, 255])),
        ),
        (r#"{"bytesValue":""}"#, Some(Value::BytesValue(vec![]))),
        (
            r#"{"arrayValue":{}}"#,
            Some(Value::ArrayValue(Default::default())),
        ),
        (
            r#"{"kvlistValue":{}}"#,
            Some(Value::KvlistValue(Default::default())),
        ),
    ] {
        let got = value(json);
        match (&got, &wanted) {
            (Some(Value::StringValue(got)), Some(Value::StringValue(_)))
                if json.contains("cut") =>
            {
                assert!(got.starts_with("cut \u{fffd}"), "{got:?}");
            }
            _ => assert_eq!(got, wanted, "{json}"),
        }
    }
    let Some(Value::DoubleValue(nan)) = value(r#"{"doubleValue":"NaN"}"#) else {
        panic!("a number");
    };
    assert!(nan.is_nan());
}

#[test]
fn missing_empty_null_and_unknown_are_defaults() {
    for json in [
        "{}",
        r#"{"resourceSpans":null}"#,
        r#"{"resourceSpans":[]}"#,
        r#"{"x":[{"y":1e9}]}"#,
    ] {
        assert_eq!(traces(json), ExportTraceServiceRequest::default(), "{json}");
    }
    for json in [
        "{}",
        r#"{"parentSpanId":"","kind":0,"status":null,"attributes":null,"events":[]}"#,
        r#"{"name":null,"new":{"deep":[[1]]},"startTimeUnixNano":"0"}"#,
    ] {
        assert_eq!(span(json), Span::default(), "{json}");
    }
    assert_eq!(span(r#"{"status":{}}"#).status, Some(Default::default()));
    assert_eq!(span(r#"{"kind":"SPAN_KIND_CLIENT"}"#).kind, 3);
    assert_eq!(span(r#"{"kind":"3"}"#).kind, 3);
    assert_eq!(
        span(r#"{"status":{"code":"STATUS_CODE_ERROR"}}"#)
            .status
            .unwrap()
            .code,
        2
    );
    assert_eq!(traces(r#"{"resource_spans":[{}]}"#).resource_spans.len(), 1);
}

#[test]
fn what_a_field_cannot_hold_is_refused_by_name() {
    for (json, word) in [
        (r#"{"traceId":"xyz"}"#, "traceId"),
        (r#"{"traceId":"abc"}"#, "traceId"),
        (r#"{"startTimeUnixNano":-1}"#, "startTimeUnixNano"),
        (
            r#"{"startTimeUnixNano":"18446744073709551616"}"#,
            "startTimeUnixNano",
        ),
        (r#"{"startTimeUnixNano":1.5}"#, "startTimeUnixNano"),
        (r#"{"flags":4294967296}"#, "flags"),
        (r#"{"kind":"SERVER"}"#, "kind"),
        (r#"{"kind":true}"#, "kind"),
        (r#"{"name":5}"#, "name"),
        (r#"{"attributes":{}}"#, "attributes"),
        (
            r#"{"attributes":[{"value":{"boolValue":"true"}}]}"#,
            "boolValue",
        ),
        (
            r#"{"attributes":[{"value":{"intValue":9223372036854775808}}]}"#,
            "intValue",
        ),
        (
            r#"{"attributes":[{"value":{"bytesValue":"*"}}]}"#,
            "bytesValue",
        ),
        (
            r#"{"attributes":[{"value":{"doubleValue":"nan"}}]}"#,
            "doubleValue",
        ),
        (r#"{"status":7}"#, "Status"),
    ] {
        let message = refused(json);
        assert!(message.contains(word), "{json}: {message}");
    }
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for json in [
        "",
        "{",
        "[]",
        "nonsense",
        "{}{}",
        "{\"resourceSpans\":[{}]",
        &nested,
    ] {
        assert!(
            to_protobuf(Signal::Traces, json.as_bytes()).is_err(),
            "{json:.20}"
        );
    }
}

#[test]
fn metrics_come_over() {
    let json = r#"{"resourceMetrics":[{"resource":{},"scopeMetrics":[{"scope":{"name":"m"},"metrics":[
      {"name":"g","unit":"1","gauge":{"dataPoints":[
        {"asDouble":"NaN","timeUnixNano":"7"},{"asInt":"0"},{"asInt":-5,"flags":1,"attributes":[{"key":"k"}]}]}},
      {"name":"s","sum":{"aggregationTemporality":2,"isMonotonic":true,"dataPoints":[
        {"startTimeUnixNano":"1","asDouble":0,"exemplars":[
          {"timeUnixNano":"3","asInt":"4","spanId":"0001020304050607",
           "traceId":"000102030405060708090a0b0c0d0e0f","filteredAttributes":[{"key":"f"}]}]}]}},
      {"name":"h","metadata":[{"key":"m"}],"histogram":{"aggregationTemporality":"AGGREGATION_TEMPORALITY_DELTA",
        "dataPoints":[{"count":"6","sum":0,"min":-1.5,"max":"Infinity",
          "bucketCounts":["0",2,"4"],"explicitBounds":[0,1.5]}]}},
      {"name":"e","exponentialHistogram":{"dataPoints":[{"scale":-3,"zeroCount":"2","zeroThreshold":0.5,
        "positive":{"offset":-7,"bucketCounts":["1",300]},"negative":{}}]}},
      {"name":"q","summary":{"dataPoints":[{"count":2,"sum":3.5,
        "quantileValues":[{"quantile":0.5,"value":2},{"quantile":1,"value":"NaN"}]}]}},
      {"name":"empty","gauge":{}}
    ]}]}]}"#;
    let bytes = to_protobuf(Signal::Metrics, json.as_bytes()).unwrap();
    let request = ExportMetricsServiceRequest::decode(bytes).unwrap();
    let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
    let data = |i: usize| metrics[i].data.clone().unwrap();
    let Data::Gauge(gauge) = data(0) else {
        panic!()
    };
    let is_nan = |v: &Option<number_data_point::Value>| matches!(v, Some(number_data_point::Value::AsDouble(v)) if v.is_nan());
    assert!(is_nan(&gauge.data_points[0].value));
    assert_eq!(
        gauge.data_points[1].value,
        Some(number_data_point::Value::AsInt(0))
    );
    assert_eq!(
        gauge.data_points[2].value,
        Some(number_data_point::Value::AsInt(-5))
    );
    assert_eq!(
        (
            gauge.data_points[2].flags,
            gauge.data_points[0].time_unix_nano
        ),
        (1, 7)
    );
    let Data::Sum(sum) = data(1) else { panic!() };
    assert_eq!((sum.aggregation_temporality, sum.is_monotonic), (2, true));
    assert_eq!(
        sum.data_points[0].value,
        Some(number_data_point::Value::AsDouble(0.0))
    );
    let exemplar = &sum.data_points[0].exemplars[0];
    assert_eq!(exemplar.value, Some(exemplar::Value::AsInt(4)));
    assert_eq!((exemplar.span_id.len(), exemplar.trace_id.len()), (8, 16));
    let Data::Histogram(histogram) = data(2) else {
        panic!()
    };
    assert_eq!(histogram.aggregation_temporality, 1);
    let point = &histogram.data_points[0];
    assert_eq!(
        (point.count, point.sum, point.min, point.max),
        (6, Some(0.0), Some(-1.5), Some(f64::INFINITY))
    );
    assert_eq!(
        (&point.bucket_counts[..], &point.explicit_bounds[..]),
        (&[0, 2, 4][..], &[0.0, 1.5][..])
    );
    let Data::ExponentialHistogram(histogram) = data(3) else {
        panic!()
    };
    let point = &histogram.data_points[0];
    assert_eq!(
        (
            point.scale,
            point.zero_count,
            point.zero_threshold,
            point.sum
        ),
        (-3, 2, 0.5, None)
    );
    let positive = point.positive.clone().unwrap();
    assert_eq!(
        (positive.offset, positive.bucket_counts),
        (-7, vec![1, 300])
    );
    assert_eq!(point.negative, Some(Default::default()));
    let Data::Summary(summary) = data(4) else {
        panic!()
    };
    assert_eq!(summary.data_points[0].quantile_values[0].value, 2.0);
    assert!(summary.data_points[0].quantile_values[1].value.is_nan());
    assert_eq!(data(5), Data::Gauge(Default::default()));
}

#[test]
fn logs_come_over() {
    let json = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"1",
      "observedTimeUnixNano":"2","severityNumber":"SEVERITY_NUMBER_WARN","severityText":"W",
      "body":{"stringValue":"b"},"attributes":[{"key":"k","value":{"intValue":"5"}}],"flags":1,
      "droppedAttributesCount":"3","traceId":"000102030405060708090a0b0c0d0e0f",
      "spanId":"0001020304050607","eventName":"e"}]}]}]}"#;
    let bytes = to_protobuf(Signal::Logs, json.as_bytes()).unwrap();
    let request = ExportLogsServiceRequest::decode(bytes).unwrap();
    let record = &request.resource_logs[0].scope_logs[0].log_records[0];
    assert_eq!(
        (record.time_unix_nano, record.observed_time_unix_nano),
        (1, 2)
    );
    assert_eq!((record.severity_number, &*record.severity_text), (13, "W"));
    let body = AnyValue {
        value: Some(Value::StringValue("b".to_owned())),
    };
    assert_eq!(record.body, Some(body));
    assert_eq!((record.flags, record.dropped_attributes_count), (1, 3));
    assert_eq!(
        (
            record.trace_id.len(),
            record.span_id.len(),
            &*record.event_name
        ),
        (16, 8, "e")
    );
}

proptest! {
    /// The OpenTelemetry crate writes right JSON (it only reads too little of it).
    #[test]
    fn what_the_opentelemetry_crate_writes_is_read_back(
        name: String, trace_id in proptest::collection::vec(any::<u8>(), 16),
        start: u64, end: u64, int: i64, double in proptest::num::f64::NORMAL, bytes: Vec<u8>, flags: u32,
    ) {
        use opentelemetry_proto::tonic::{common::v1::KeyValue, trace::v1::{ResourceSpans, ScopeSpans}};
        let value = |value| Some(AnyValue { value: Some(value) });
        let attributes = [Value::IntValue(int), Value::DoubleValue(double), Value::BytesValue(bytes)]
            .map(|v| KeyValue { key: name.clone(), value: value(v), ..KeyValue::default() });
        let span = Span {
            trace_id, name, flags, start_time_unix_nano: start, end_time_unix_nano: end,
            attributes: attributes.to_vec(), ..Span::default()
        };
        let request = ExportTraceServiceRequest { resource_spans: vec![ResourceSpans {
            scope_spans: vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }]};
        let json = serde_json::to_string(&request).unwrap();
        prop_assert_eq!(traces(&json), request);
    }

    #[test]
    fn arbitrary_text_never_panics(text: String) {
        let _ = to_protobuf(Signal::Logs, text.as_bytes());
    }
}

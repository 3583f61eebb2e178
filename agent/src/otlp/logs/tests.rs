use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value as Any},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use proptest::prelude::*;
use prost::Message as _;

use super::*;

fn string(text: &str) -> AnyValue {
    AnyValue {
        value: Some(Any::StringValue(text.to_owned())),
    }
}

fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(string(value)),
        ..KeyValue::default()
    }
}

fn record(body: &str) -> LogRecord {
    LogRecord {
        time_unix_nano: 7,
        body: Some(string(body)),
        attributes: vec![attribute("a", "b")],
        trace_id: vec![1; 16],
        ..LogRecord::default()
    }
}

fn request(records: Vec<LogRecord>) -> ExportLogsServiceRequest {
    let resource = Resource {
        attributes: vec![
            attribute("k8s.pod.name", "web-0"),
            attribute("k8s.namespace.name", "shop"),
            attribute("k8s.container.name", "cart"),
        ],
        ..Resource::default()
    };
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(resource),
            scope_logs: vec![ScopeLogs {
                log_records: records,
                schema_url: "scope".to_owned(),
                ..ScopeLogs::default()
            }],
            schema_url: "resource".to_owned(),
        }],
    }
}

fn enriched(payload: &[u8]) -> (Bytes, Vec<(String, &'static str)>) {
    let owner = Workload {
        process: "teller".to_owned(),
        ..Workload::default()
    };
    let mut found = Vec::new();
    let out = enrich_logs(&Bytes::copy_from_slice(payload), &[owner], &mut |record| {
        found.push((record.workload.display_name(), record.hit.rule.id));
    });
    (out, found)
}

#[test]
fn a_record_that_speaks_of_a_layer_says_so_and_the_rest_is_as_it_came() {
    let plain = request(vec![
        record("all is well"),
        record("pod was OOMKilled"),
        record("fine"),
    ]);
    let (out, found) = enriched(&plain.encode_to_vec());
    assert_eq!(found, [("teller".to_owned(), "oom_killed")]);
    let mut expected = plain;
    let records = &mut expected.resource_logs[0].scope_logs[0].log_records;
    records[1]
        .attributes
        .push(attribute("isostack.layer", "L-3"));
    assert_eq!(ExportLogsServiceRequest::decode(&*out).unwrap(), expected);
    // A second agent on the way finds it said already.
    let (again, found) = enriched(&out);
    assert_eq!((again, found.len()), (out, 0));
}

/// Of several resources each has its own owner, whatever it says of itself.
#[test]
fn the_lines_of_a_resource_are_its_owners() {
    let mut plain = request(vec![record("OOMKilled")]);
    for service in ["cart", "till"] {
        let mut more = request(vec![record("OOMKilled")]).resource_logs.remove(0);
        let said = more.resource.as_mut().unwrap();
        said.attributes = vec![attribute("service.name", service)];
        plain.resource_logs.push(more);
    }
    plain.resource_logs[1].resource = None;
    let payload = Bytes::from(plain.encode_to_vec());
    let said = resources(&payload);
    let said: Vec<_> = said.iter().map(|r| (&*r.pod, &*r.service)).collect();
    assert_eq!(said, [("web-0", ""), ("", ""), ("", "till")]);
    let owner = |name: &str| Workload {
        process: name.to_owned(),
        ..Workload::default()
    };
    let mut found = Vec::new();
    let owners = [owner("one"), owner("two")];
    let _ = enrich_logs(&payload, &owners, &mut |record| {
        found.push(record.workload.display_name());
    });
    assert_eq!(found, ["one", "two", ""]);
    assert!(resources(b"no message").is_empty());
}

#[test]
fn unknown_fields_and_odd_prefixes_survive() {
    let mut payload = request(vec![record("x OOMKilled")]).encode_to_vec();
    payload.extend([0xfa, 0x3f, 3, b'n', b'e', b'w']); // field 1023
    let (out, found) = enriched(&payload);
    assert_eq!(found.len(), 1);
    assert!(out.ends_with(&[0xfa, 0x3f, 3, b'n', b'e', b'w']));
}

#[test]
fn nothing_to_say_costs_no_byte() {
    let payload = request(vec![record("all is well")]).encode_to_vec();
    assert_eq!(enriched(&payload).0, payload);
}

proptest! {
    #[test]
    fn any_bytes_leave_as_they_came_or_decodable(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let (out, found) = enriched(&bytes);
        if found.is_empty() {
            prop_assert_eq!(&out[..], &bytes[..]);
        }
    }

    #[test]
    fn any_records_keep_what_they_say(bodies in proptest::collection::vec("[ -~]{0,40}|OOMKilled|EPT violation", 0..8)) {
        let plain = request(bodies.iter().map(|body| record(body)).collect());
        let (out, found) = enriched(&plain.encode_to_vec());
        let mut decoded = ExportLogsServiceRequest::decode(&*out).unwrap();
        let mut removed = 0;
        for record in &mut decoded.resource_logs[0].scope_logs[0].log_records {
            let before = record.attributes.len();
            record.attributes.retain(|a| a.key != "isostack.layer");
            removed += before - record.attributes.len();
        }
        prop_assert_eq!(decoded, plain);
        prop_assert_eq!(removed, found.len());
    }
}

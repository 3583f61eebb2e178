//! The tables against the descriptors that the OpenTelemetry project publishes.

use std::collections::BTreeMap;

use super::*;

/// `(number, json key, label, type, type name)` of each field, by message.
type Published = BTreeMap<std::string::String, Vec<(u32, std::string::String, u64, u64)>>;

fn text(bytes: &[u8]) -> std::string::String {
    std::string::String::from_utf8(bytes.to_vec()).unwrap()
}

/// Reads a `DescriptorProto` (field numbers: google/protobuf/descriptor.proto).
fn message(package: &str, bytes: &[u8], all: &mut Published) {
    let mut name = std::string::String::new();
    let (mut fields, mut nested) = (Vec::new(), Vec::new());
    let mut walk = Fields::new(bytes);
    while let Some(field) = walk.next_field().unwrap() {
        match (field.number, field.value) {
            (1, Value::Len(bytes)) => name = format!("{package}.{}", text(bytes)),
            (2, Value::Len(bytes)) => fields.push(self::field(bytes)),
            (3, Value::Len(bytes)) => nested.push(bytes),
            _ => {}
        }
    }
    for bytes in nested {
        message(&name, bytes, all);
    }
    fields.sort();
    all.insert(name, fields);
}

fn camel(name: &str) -> std::string::String {
    let mut parts = name.split('_');
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |mut key, part| {
        key.push_str(&part[..1].to_uppercase());
        key.push_str(&part[1..]);
        key
    })
}

fn field(bytes: &[u8]) -> (u32, std::string::String, u64, u64) {
    let (mut number, mut key, mut label, mut kind) = (0, std::string::String::new(), 0, 0);
    let mut walk = Fields::new(bytes);
    while let Some(field) = walk.next_field().unwrap() {
        match (field.number, field.value) {
            (1, Value::Len(name)) => key = camel(&text(name)),
            (3, Value::Varint(value)) => number = value as u32,
            (4, Value::Varint(value)) => label = value,
            (5, Value::Varint(value)) => kind = value,
            // In a oneof (9), which proto3_optional is as well: presence is told.
            (9, Value::Varint(_)) => label = 100,
            _ => {}
        }
    }
    (number, key, label, kind)
}

fn published() -> Published {
    let mut all = Published::new();
    let mut files = Fields::new(opentelemetry_proto::DESCRIPTORS);
    while let Some(file) = files.next_field().unwrap() {
        let Value::Len(bytes) = file.value else {
            continue;
        };
        let (mut package, mut messages) = (std::string::String::new(), Vec::new());
        let mut walk = Fields::new(bytes);
        while let Some(field) = walk.next_field().unwrap() {
            match (field.number, field.value) {
                (2, Value::Len(bytes)) => package = text(bytes),
                (4, Value::Len(bytes)) => messages.push(bytes),
                _ => {}
            }
        }
        for bytes in messages {
            message(&package, bytes, &mut all);
        }
    }
    all
}

/// `FieldDescriptorProto.Type`.
fn type_number(kind: Kind) -> u64 {
    match kind {
        Double => 1,
        Int64 => 3,
        Uint64 => 4,
        Int32 => 5,
        Fixed64 => 6,
        Fixed32 => 7,
        Bool => 8,
        String => 9,
        Message(_) => 11,
        Bytes | Id => 12,
        Uint32 => 13,
        Enum(_) => 14,
        Sfixed64 => 16,
        Sint32 => 17,
    }
}

#[test]
fn every_row_is_as_published_and_none_is_missing() {
    let published = published();
    for ours in ALL {
        let name = format!("opentelemetry.proto.{}", ours.name);
        let theirs = published.get(&name).unwrap_or_else(|| panic!("no {name}"));
        let mut rows: Vec<_> = ours
            .fields
            .iter()
            .map(|field| {
                let label = match field.presence {
                    Presence::Implicit => 1,
                    Presence::Explicit => 100,
                    Presence::Repeated => 3,
                };
                let kind = type_number(field.kind);
                (field.number, field.key.to_owned(), label, kind)
            })
            .collect();
        rows.sort();
        assert_eq!(&rows, theirs, "{name}");
    }
}

#[test]
fn packed_numbers_are_checked() {
    assert_eq!(Double.check_packed(&[0; 16]), Ok(()));
    assert_eq!(Double.check_packed(&[0; 15]), Err(WireError::Truncated));
    assert_eq!(Uint64.check_packed(&[0x80, 1, 5]), Ok(()));
    assert_eq!(Uint64.check_packed(&[1, 0x80]), Err(WireError::Truncated));
    let long = [255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1];
    assert_eq!(Uint64.check_packed(&long), Err(WireError::VarintOverflow));
}

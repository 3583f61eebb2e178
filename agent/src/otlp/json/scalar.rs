//! Values that are not objects: each kind from every JSON form that the mapping allows.

use std::fmt;

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::de::{DeserializeSeed, Deserializer, Error, Visitor};

use crate::otlp::{
    schema::{Field, Kind, Presence},
    wire::{put_bytes, put_tag, put_varint, wire_type},
};

/// Standard or URL-safe (translated first), padded or not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Writes one value.
pub(super) struct ScalarSeed<'a> {
    field: &'static Field,
    out: &'a mut Vec<u8>,
    /// Inside a packed field no value has a tag, and zeros count.
    is_packed: bool,
}

impl<'a> ScalarSeed<'a> {
    pub(super) const fn with_tag(field: &'static Field, out: &'a mut Vec<u8>) -> Self {
        Self {
            field,
            out,
            is_packed: false,
        }
    }

    pub(super) const fn packed(field: &'static Field, out: &'a mut Vec<u8>) -> Self {
        Self {
            field,
            out,
            is_packed: true,
        }
    }

    fn writes_default(&self) -> bool {
        self.is_packed || self.field.presence != Presence::Implicit
    }

    fn tag(&mut self, wire_type: u32) {
        if !self.is_packed {
            put_tag(self.out, self.field.number, wire_type);
        }
    }

    fn varint(mut self, value: u64) {
        if value != 0 || self.writes_default() {
            self.tag(wire_type::VARINT);
            put_varint(self.out, value);
        }
    }

    fn fixed64(mut self, bits: u64) {
        if bits != 0 || self.writes_default() {
            self.tag(wire_type::FIXED64);
            self.out.extend_from_slice(&bits.to_le_bytes());
        }
    }

    fn fixed32(mut self, bits: u32) {
        if bits != 0 || self.writes_default() {
            self.tag(wire_type::FIXED32);
            self.out.extend_from_slice(&bits.to_le_bytes());
        }
    }

    fn bytes(self, bytes: &[u8]) {
        if !bytes.is_empty() || self.writes_default() {
            put_bytes(self.out, self.field.number, bytes);
        }
    }

    /// An integer of any kind, or a double.
    fn integer<E: Error>(self, value: i128) -> Result<(), E> {
        let key = self.field.key;
        let range = || E::custom(format_args!("{value} is out of range for {key}"));
        match self.field.kind {
            Kind::Int32 | Kind::Enum(_) => {
                let value = i32::try_from(value).map_err(|_| range())?;
                self.varint(i64::from(value) as u64);
            }
            Kind::Sint32 => {
                let value = i32::try_from(value).map_err(|_| range())?;
                self.varint(u64::from((value << 1 ^ value >> 31) as u32));
            }
            Kind::Uint32 => self.varint(u32::try_from(value).map_err(|_| range())?.into()),
            Kind::Fixed32 => self.fixed32(u32::try_from(value).map_err(|_| range())?),
            Kind::Int64 => self.varint(i64::try_from(value).map_err(|_| range())? as u64),
            Kind::Uint64 => self.varint(u64::try_from(value).map_err(|_| range())?),
            Kind::Fixed64 => self.fixed64(u64::try_from(value).map_err(|_| range())?),
            Kind::Sfixed64 => self.fixed64(i64::try_from(value).map_err(|_| range())? as u64),
            Kind::Double => self.fixed64((value as f64).to_bits()),
            _ => return Err(E::custom(format_args!("a number is no value for {key}"))),
        }
        Ok(())
    }

    fn double<E: Error>(self, value: f64) -> Result<(), E> {
        if matches!(self.field.kind, Kind::Double) {
            self.fixed64(value.to_bits());
            return Ok(());
        }
        // `1.0` and `1e3` are integers in JSON. Beyond 2^64 no field has room.
        if value.fract() == 0.0 && value.abs() <= 2_f64.powi(64) {
            return self.integer(value as i128);
        }
        let key = self.field.key;
        Err(E::custom(format_args!("{value} is no integer for {key}")))
    }

    fn text<E: Error>(self, text: &str) -> Result<(), E> {
        let key = self.field.key;
        match self.field.kind {
            Kind::String => self.bytes(text.as_bytes()),
            Kind::Bytes => {
                let standard = text.replace('-', "+").replace('_', "/");
                let bytes = BASE64
                    .decode(standard)
                    .map_err(|error| E::custom(format_args!("{key} is not base64: {error}")))?;
                self.bytes(&bytes);
            }
            Kind::Id => {
                let bytes = unhex(text)
                    .ok_or_else(|| E::custom(format_args!("{key} is not hexadecimal")))?;
                self.bytes(&bytes);
            }
            Kind::Double => {
                let value = match text {
                    "NaN" => Some(f64::NAN),
                    "Infinity" => Some(f64::INFINITY),
                    "-Infinity" => Some(f64::NEG_INFINITY),
                    text => text.parse().ok().filter(|value: &f64| value.is_finite()),
                };
                let value = value.ok_or_else(|| E::custom(format_args!("{key} is no number")))?;
                return self.double(value);
            }
            Kind::Bool => return Err(E::custom(format_args!("a text is no value for {key}"))),
            kind => {
                if let Ok(value) = text.parse::<i128>() {
                    return self.integer(value);
                }
                if let Kind::Enum(by_name) = kind
                    && let Some(value) = by_name(text)
                {
                    return self.integer(value.into());
                }
                let value = text.parse::<f64>().ok().filter(|value| value.is_finite());
                let value = value.ok_or_else(|| E::custom(format_args!("{key} is no integer")))?;
                return self.double(value);
            }
        }
        Ok(())
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let byte = |[high, low]: &[u8; 2]| Some(digit(high)? << 4 | digit(low)?);
    rest.is_empty()
        .then(|| pairs.iter().map(byte).collect())
        .flatten()
}

impl<'de> DeserializeSeed<'de> for ScalarSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.field.kind {
            // As bytes, as only so a half of a surrogate pair is not an error: some
            // languages cut texts in the middle of one.
            Kind::String => deserializer.deserialize_bytes(self),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl Visitor<'_> for ScalarSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value for {}", self.field.key)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        match self.field.kind {
            Kind::Bool => self.varint(value.into()),
            _ => {
                return Err(E::custom(format_args!(
                    "{value} is no value for {}",
                    self.field.key
                )));
            }
        }
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.integer(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.integer(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.double(value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.text(value)
    }

    fn visit_bytes<E: Error>(self, value: &[u8]) -> Result<(), E> {
        self.text(&String::from_utf8_lossy(value))
    }
}

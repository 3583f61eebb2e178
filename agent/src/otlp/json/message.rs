//! Objects and arrays: one seed per level, each writing straight into the output.

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::scalar::ScalarSeed;
use crate::otlp::{
    schema::{Field, Kind, Message, Presence},
    wire::{put_message, put_prefixed, put_tag, wire_type},
};

/// Writes the fields of a JSON object, not the length before them.
pub(super) struct MessageSeed<'a> {
    pub message: &'static Message,
    pub out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for MessageSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MessageSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object ({})", self.message.name)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match find(self.message, &key) {
                Some(field) => map.next_value_seed(FieldSeed {
                    field,
                    out: self.out,
                })?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// By its key, or by the original name with underscores.
fn find(message: &'static Message, key: &str) -> Option<&'static Field> {
    let same =
        |field: &&Field| field.key == key || (key.contains('_') && is_camel_of(field.key, key));
    message.fields.iter().find(same)
}

fn is_camel_of(camel: &str, snake: &str) -> bool {
    let mut upper = false;
    let converted = snake.chars().filter_map(|c| {
        if c == '_' {
            upper = true;
            return None;
        }
        let c = if upper { c.to_ascii_uppercase() } else { c };
        upper = false;
        Some(c)
    });
    converted.eq(camel.chars())
}

/// Writes a field with all its values; `null` writes nothing.
struct FieldSeed<'a> {
    field: &'static Field,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for FieldSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for FieldSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.presence {
            Presence::Repeated => write!(f, "an array for {}", self.field.key),
            _ => write!(f, "a value for {}", self.field.key),
        }
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.field.presence == Presence::Repeated {
            return deserializer.deserialize_seq(self);
        }
        let Self { field, out } = self;
        match field.kind {
            Kind::Message(message) => put_message(out, field.number, |out| {
                MessageSeed { message, out }.deserialize(deserializer)
            }),
            _ => ScalarSeed::with_tag(field, out).deserialize(deserializer),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { field, out } = self;
        if field.kind.is_packable() {
            put_tag(out, field.number, wire_type::LEN);
            return put_prefixed(out, |out| {
                while seq
                    .next_element_seed(ScalarSeed::packed(field, out))?
                    .is_some()
                {}
                Ok(())
            });
        }
        while seq.next_element_seed(ElementSeed { field, out })?.is_some() {}
        Ok(())
    }
}

/// One element of an array of messages or strings; `null` is an empty one, so that the
/// others keep their places.
struct ElementSeed<'a> {
    field: &'static Field,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for ElementSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for ElementSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an element of {}", self.field.key)
    }

    fn visit_none<E>(self) -> Result<(), E> {
        put_message(self.out, self.field.number, |_| ());
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Self { field, out } = self;
        match field.kind {
            Kind::Message(message) => put_message(out, field.number, |out| {
                MessageSeed { message, out }.deserialize(deserializer)
            }),
            _ => ScalarSeed::with_tag(field, out).deserialize(deserializer),
        }
    }
}

//! The protobuf wire format, no more: walking a message's fields in place and writing the
//! few shapes that the splice needs.
//!
//! Own code because no library keeps the bytes: a decoded and re-encoded message loses
//! unknown fields, field order and prefix widths. Nothing here panics on any input, and
//! the only nesting it follows, that of groups, has a limit.
//!
//! Format: <https://protobuf.dev/programming-guides/encoding/>

use thiserror::Error;

/// Groups nested deeper than this are refused.
const MAX_GROUP_DEPTH: usize = 32;

/// Why bytes are not a protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// The bytes end inside a field.
    #[error("the message ends in the middle of a field")]
    Truncated,
    /// A variable-length integer of more than 64 bits.
    #[error("a variable-length integer is longer than 64 bits")]
    VarintOverflow,
    /// Field number 0, or one beyond 2^29 - 1.
    #[error("a field number is out of range")]
    FieldNumber,
    /// Wire type 6 or 7.
    #[error("a field has the unknown wire type {0}")]
    WireType(u8),
    /// A group that ends without having begun, or never ends.
    #[error("a group has no matching begin or end")]
    Group,
    /// A field that OTLP knows has another wire type than it must have.
    #[error("field {0} has the wrong wire type")]
    KnownField(u32),
    /// Nested deeper than any parser follows.
    #[error("the message is nested too deeply")]
    TooDeep,
}

/// A field's value as it lies in the message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2: string, bytes, message or packed numbers.
    Len(&'a [u8]),
    /// Wire type 3: skipped as a whole.
    Group,
    /// Wire type 5.
    Fixed32(u32),
}

/// One field of a message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Field<'a> {
    /// Its number.
    pub number: u32,
    /// Its value.
    pub value: Value<'a>,
    /// Offset, in the walked bytes, of what follows the tag.
    pub tag_end: usize,
}

/// Walks the fields of one message.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Fields<'a> {
    /// Starts at the first field of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// Offset of the next field.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.position
    }

    /// The next field, `None` at the end.
    ///
    /// # Errors
    /// When the bytes from here on are not a field.
    #[inline(always)]
    pub fn next_field(&mut self) -> Result<Option<Field<'a>>, WireError> {
        if self.position >= self.bytes.len() {
            return Ok(None);
        }
        let (number, wire_type) = self.tag()?;
        let tag_end = self.position;
        let value = match wire_type {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => Value::Len(self.length_delimited()?),
            3 => {
                self.skip_group(number)?;
                Value::Group
            }
            4 => return Err(WireError::Group),
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            other => return Err(WireError::WireType(other)),
        };
        Ok(Some(Field {
            number,
            value,
            tag_end,
        }))
    }

    #[inline]
    fn tag(&mut self) -> Result<(u32, u8), WireError> {
        let tag = u32::try_from(self.varint()?).map_err(|_| WireError::FieldNumber)?;
        match tag >> 3 {
            0 => Err(WireError::FieldNumber),
            number => Ok((number, (tag & 7) as u8)),
        }
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, WireError> {
        match self.bytes.get(self.position) {
            Some(&byte) if byte < 0x80 => {
                self.position += 1;
                Ok(u64::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0_u64;
        for i in 0..10 {
            let &byte = self
                .bytes
                .get(self.position + i)
                .ok_or(WireError::Truncated)?;
            if i == 9 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.position += i + 1;
                return Ok(value);
            }
        }
        Err(WireError::VarintOverflow)
    }

    #[inline]
    fn length_delimited(&mut self) -> Result<&'a [u8], WireError> {
        let length = usize::try_from(self.varint()?).map_err(|_| WireError::Truncated)?;
        self.take(length)
    }

    #[inline]
    fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let end = self.position.checked_add(length);
        let taken = end.and_then(|end| self.bytes.get(self.position..end));
        let taken = taken.ok_or(WireError::Truncated)?;
        self.position += length;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| WireError::Truncated)
    }

    /// Skips to after the end of the group just begun.
    fn skip_group(&mut self, number: u32) -> Result<(), WireError> {
        let mut open = [0_u32; MAX_GROUP_DEPTH];
        open[0] = number;
        let mut depth = 1;
        while depth > 0 {
            if self.position >= self.bytes.len() {
                return Err(WireError::Group);
            }
            let (number, wire_type) = self.tag()?;
            match wire_type {
                0 => drop(self.varint()?),
                1 => drop(self.take(8)?),
                2 => drop(self.length_delimited()?),
                3 => {
                    *open.get_mut(depth).ok_or(WireError::TooDeep)? = number;
                    depth += 1;
                }
                4 if open[depth - 1] == number => depth -= 1,
                4 => return Err(WireError::Group),
                5 => drop(self.take(4)?),
                other => return Err(WireError::WireType(other)),
            }
        }
        Ok(())
    }
}

/// Bytes that `value` takes as a variable-length integer.
#[must_use]
pub const fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Appends a variable-length integer.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Wire types, for [`put_tag`].
pub mod wire_type {
    /// Variable-length integer.
    pub const VARINT: u32 = 0;
    /// Eight bytes.
    pub const FIXED64: u32 = 1;
    /// Length-delimited.
    pub const LEN: u32 = 2;
    /// Four bytes.
    pub const FIXED32: u32 = 5;
}

/// Appends a field's tag.
pub fn put_tag(out: &mut Vec<u8>, number: u32, wire_type: u32) {
    put_varint(out, u64::from(number << 3 | wire_type));
}

/// Appends a length-delimited field.
pub fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_tag(out, number, wire_type::LEN);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a length-delimited field whose content `write` appends.
pub fn put_message<R>(out: &mut Vec<u8>, number: u32, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    put_tag(out, number, wire_type::LEN);
    put_prefixed(out, write)
}

/// Appends what `write` appends, with its length before it.
pub fn put_prefixed<R>(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    // Most are shorter than 128 bytes: one byte is set aside, and only a longer one moves.
    let prefix = out.len();
    out.push(0);
    let result = write(out);
    let length = out.len() - prefix - 1;
    if length < 0x80 {
        out[prefix] = length as u8;
    } else {
        let mut encoded = Vec::with_capacity(5);
        put_varint(&mut encoded, length as u64);
        out.splice(prefix..=prefix, encoded);
    }
    result
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn walk(bytes: &[u8]) -> Result<Vec<(u32, usize)>, WireError> {
        let mut fields = Fields::new(bytes);
        let mut seen = Vec::new();
        while let Some(field) = fields.next_field()? {
            seen.push((field.number, field.tag_end));
        }
        assert_eq!(fields.position(), bytes.len());
        Ok(seen)
    }

    #[test]
    fn each_wire_type_is_walked() {
        let mut bytes = vec![0x08, 0x96, 0x01]; // 1: varint 150
        bytes.extend([0x11, 1, 2, 3, 4, 5, 6, 7, 8]); // 2: fixed64
        bytes.extend([0x1a, 2, b'h', b'i']); // 3: bytes
        bytes.extend([0x23, 0x08, 0x01, 0x2b, 0x2c, 0x24]); // 4: group with a group 5 inside
        bytes.extend([0x35, 1, 2, 3, 4]); // 6: fixed32
        assert_eq!(
            walk(&bytes),
            Ok(vec![(1, 1), (2, 4), (3, 13), (4, 17), (6, 23)])
        );
        for cut in [1, 2, 5, 13, 15, 17, 19, 24] {
            assert!(walk(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn what_no_parser_accepts_is_refused() {
        assert_eq!(walk(&[0x00, 0x01]), Err(WireError::FieldNumber));
        assert_eq!(walk(&[0x0e]), Err(WireError::WireType(6)));
        assert_eq!(walk(&[0x0c]), Err(WireError::Group));
        assert_eq!(walk(&[0x0b, 0x14]), Err(WireError::Group));
        assert_eq!(walk(&[0x0b; 40]), Err(WireError::TooDeep));
        assert_eq!(walk(&[0x08, 0xff]), Err(WireError::Truncated));
        let overflow = [0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2];
        assert_eq!(walk(&overflow), Err(WireError::VarintOverflow));
        let huge = [0x0a, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1];
        assert_eq!(walk(&huge), Err(WireError::Truncated));
    }

    proptest! {
        #[test]
        fn varints_come_back(value: u64) {
            let mut out = vec![0x08];
            put_varint(&mut out, value);
            prop_assert_eq!(out.len() - 1, varint_len(value));
            let field = Fields::new(&out).next_field().unwrap().unwrap();
            prop_assert_eq!(field.value, Value::Varint(value));
        }

        #[test]
        fn messages_of_any_length_come_back(length in 0..40_000_usize) {
            let content = vec![7; length];
            let mut out = Vec::new();
            put_message(&mut out, 300, |out| out.extend_from_slice(&content));
            let field = Fields::new(&out).next_field().unwrap().unwrap();
            prop_assert_eq!(field.number, 300);
            prop_assert_eq!(field.value, Value::Len(&content));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = walk(&bytes);
        }
    }
}

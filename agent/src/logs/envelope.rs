//! What container engines put around a program's lines in the files that they keep, taken off: the
//! lines begin where the program began them, and read as it wrote them.
//!
//! * the container runtime interface: `TIME stdout|stderr P|F TEXT`, where `P` is a part of a line
//!   and the next one goes on with it;
//! * Docker's json-file: `{"log":"TEXT\n",...}`, escaped as JSON, a part where `\n` is missing.
//!
//! A line that is neither passes as it is. Nothing is kept but the first bytes of a line.

use memchr::{memchr, memchr2};

/// How a line of Docker begins.
const DOCKER: &[u8] = b"{\"log\":\"";
/// A line whose first bytes are no time, stream and tag by then has none.
const MAX_HEAD_BYTES: usize = 64;

/// Where in a line of the file it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// At its first bytes.
    #[default]
    Head,
    /// In a text, at whose end the program's line ends, too, if it is not a part of one.
    Text { ends: bool },
    /// In a text in JSON.
    Json,
    /// Behind it.
    Rest,
}

/// Takes the envelope off, in pieces of any size.
#[derive(Debug, Default)]
pub struct Envelope {
    state: State,
    /// What came of the head.
    head: Vec<u8>,
    /// What came of an escape sequence.
    escape: Vec<u8>,
    /// The first half of a pair of UTF-16.
    high: Option<u16>,
}

impl Envelope {
    /// The next bytes of the file; calls `out` with what the program wrote.
    pub fn open(&mut self, mut bytes: &[u8], out: &mut impl FnMut(&[u8])) {
        while let [first, ..] = *bytes {
            let taken = match self.state {
                State::Head => {
                    self.head.push(first);
                    self.look_at_head(out);
                    1
                }
                State::Text { ends } => match memchr(b'\n', bytes) {
                    Some(end) => {
                        self.state = State::Head;
                        out(&bytes[..end + usize::from(ends)]);
                        end + 1
                    }
                    None => {
                        out(bytes);
                        bytes.len()
                    }
                },
                State::Json => self.json(bytes, out),
                State::Rest => match memchr(b'\n', bytes) {
                    Some(end) => {
                        self.state = State::Head;
                        end + 1
                    }
                    None => bytes.len(),
                },
            };
            bytes = &bytes[taken..];
        }
    }

    /// Bytes of the file of which nothing was given out yet.
    pub fn pending(&self) -> usize {
        self.head.len() + self.escape.len()
    }

    /// The file has ended within a line, or something was left out: what comes next is a line's
    /// beginning.
    pub fn restart(&mut self, out: &mut impl FnMut(&[u8])) {
        out(&self.head);
        *self = Self::default();
    }

    fn look_at_head(&mut self, out: &mut impl FnMut(&[u8])) {
        if self.head == DOCKER {
            self.state = State::Json;
        } else if !DOCKER.starts_with(&self.head) {
            match cri(&self.head) {
                Some(Some(ends)) => self.state = State::Text { ends },
                Some(None) => return,
                None => {
                    // As it is, to its end.
                    let ended = self.head.ends_with(b"\n");
                    self.state = if ended {
                        State::Head
                    } else {
                        State::Text { ends: true }
                    };
                    out(&self.head);
                }
            }
        } else {
            return;
        }
        self.head.clear();
    }

    /// Some of a text in JSON; how many bytes that was.
    fn json(&mut self, bytes: &[u8], out: &mut impl FnMut(&[u8])) -> usize {
        if !self.escape.is_empty() {
            self.escape.push(bytes[0]);
            self.look_at_escape(out);
            return 1;
        }
        // A new line in it is not JSON: there it ends at the latest.
        let special = memchr2(b'"', b'\\', bytes).unwrap_or(bytes.len());
        let special = memchr(b'\n', &bytes[..special]).unwrap_or(special);
        if special > 0 {
            self.give_up_half(out);
            out(&bytes[..special]);
            return special;
        }
        match bytes[0] {
            b'\\' => self.escape.push(b'\\'),
            b'\n' => {
                self.give_up_half(out);
                self.state = State::Head;
            }
            _ => {
                self.give_up_half(out);
                self.state = State::Rest;
            }
        }
        1
    }

    fn look_at_escape(&mut self, out: &mut impl FnMut(&[u8])) {
        let plain = match self.escape[1..] {
            [b'u'] | [b'u', _] | [b'u', _, _] | [b'u', _, _, _] => return,
            [b'u', ref digits @ ..] => {
                let text = std::str::from_utf8(digits).unwrap_or_default();
                let unit = u16::from_str_radix(text, 16).unwrap_or(0xfffd);
                self.escape.clear();
                self.unit(unit, out);
                return;
            }
            [b'n'] => b'\n',
            [b't'] => b'\t',
            [b'r'] => b'\r',
            [b'b'] => 8,
            [b'f'] => 12,
            [other] => other,
            _ => b' ', // cannot be: it is looked at after each byte
        };
        self.escape.clear();
        self.give_up_half(out);
        out(&[plain]);
    }

    /// A unit of UTF-16.
    fn unit(&mut self, unit: u16, out: &mut impl FnMut(&[u8])) {
        let high = self.high.take();
        if (0xd800..0xdc00).contains(&unit) {
            if high.is_some() {
                put(char::REPLACEMENT_CHARACTER, out);
            }
            self.high = Some(unit);
            return;
        }
        for unit in char::decode_utf16(high.into_iter().chain([unit])) {
            put(unit.unwrap_or(char::REPLACEMENT_CHARACTER), out);
        }
    }

    /// Something else follows than its other half.
    fn give_up_half(&mut self, out: &mut impl FnMut(&[u8])) {
        if self.high.take().is_some() {
            put(char::REPLACEMENT_CHARACTER, out);
        }
    }
}

fn put(character: char, out: &mut impl FnMut(&[u8])) {
    out(character.encode_utf8(&mut [0; 4]).as_bytes());
}

/// Whether this may be the head of a line of the container runtime interface; and if it is
/// complete, whether the program's line ends with it.
fn cri(head: &[u8]) -> Option<Option<bool>> {
    let mut words = head.split(|byte| *byte == b' ');
    let time = words.next().unwrap_or_default();
    // 2026-11-23T10:00:00.123456789Z, or with an offset.
    let is_of_time = |byte: &u8| byte.is_ascii_digit() || b"-:.TZ+".contains(byte);
    if head.len() > MAX_HEAD_BYTES || !head[0].is_ascii_digit() || !time.iter().all(is_of_time) {
        return None;
    }
    let Some(stream) = words.next() else {
        return Some(None);
    };
    let names: [&[u8]; 2] = [b"stdout", b"stderr"];
    let Some(tag) = words.next() else {
        let may_be = names.iter().any(|name| name.starts_with(stream));
        return may_be.then_some(None);
    };
    if !names.contains(&stream) || !time.contains(&b'T') || tag.contains(&b'\n') {
        return None;
    }
    // More tags may follow a colon.
    match (words.next(), tag.first()) {
        (None, None | Some(b'P' | b'F')) => Some(None),
        (Some(_), Some(b'F')) => Some(Some(true)),
        (Some(_), Some(b'P')) => Some(Some(false)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// In pieces of so many bytes.
    fn opened(bytes: &[u8], piece: usize) -> String {
        let (mut envelope, mut text) = (Envelope::default(), Vec::new());
        for piece in bytes.chunks(piece) {
            envelope.open(piece, &mut |bytes| text.extend_from_slice(bytes));
        }
        envelope.restart(&mut |bytes| text.extend_from_slice(bytes));
        String::from_utf8_lossy(&text).into_owned()
    }

    #[test]
    fn what_engines_write_is_what_programs_wrote() {
        let time = "2026-11-23T10:00:00.123456789";
        let file = format!(
            "{time}Z stdout F Exception: unreachable\n\
             {time}+01:00 stderr P half of a li\n\
             {time}+01:00 stderr F ne\n\
             {{\"log\":\"apparmor=\\\"DENIED\\\" \\u003cx\\u003e\\tend\\n\",\"stream\":\"stderr\"}}\n\
             {{\"log\":\"half of a li\",\"stream\":\"stdout\",\"time\":\"t\"}}\n\
             {{\"log\":\"ne \\ud83d\\ude00 \\ud83d!\\n\",\"stream\":\"stdout\",\"time\":\"t\"}}\n\
             as it is\n\
             2026-11-23 10:00:00 as it is\n\
             {{\"level\":\"info\"}}\n\
             \n\
             {time}Z stdout F \n\
             cut"
        );
        let expected = "Exception: unreachable\n\
                        half of a line\n\
                        apparmor=\"DENIED\" <x>\tend\n\
                        half of a line \u{1f600} \u{fffd}!\n\
                        as it is\n\
                        2026-11-23 10:00:00 as it is\n\
                        {\"level\":\"info\"}\n\
                        \n\
                        \n\
                        cut";
        for piece in [1, 2, 7, 64, 10_000] {
            assert_eq!(opened(file.as_bytes(), piece), expected, "{piece}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_the_same(
            bytes in prop::collection::vec(
                prop_oneof![any::<u8>(), prop::sample::select(b"\n {\"log:\\nu0dP F2T".to_vec())],
                0..400,
            ),
            piece in 1usize..50,
        ) {
            prop_assert_eq!(opened(&bytes, piece), opened(&bytes, 1000));
        }

        /// Whatever a program writes, Docker's file gives back.
        #[test]
        fn any_text_comes_back_from_json(text in "\\PC{0,80}") {
            let quoted = serde_json::to_string(&format!("{text}\n")).unwrap();
            let file = format!("{{\"log\":{quoted},\"stream\":\"stdout\"}}\n");
            prop_assert_eq!(opened(file.as_bytes(), 5), format!("{text}\n"));
        }
    }
}

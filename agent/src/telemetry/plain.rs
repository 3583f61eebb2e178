//! Keeps text of others (error messages, names) from acting on the terminal or looking like
//! lines of the log: colours are not worth that, so every control character is shown, and
//! what follows a line break is indented.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use tracing_subscriber::fmt::MakeWriter;

/// Makes [`Plain`] writers.
pub(super) struct MakePlain<M>(pub M);

/// Passes on one event, which comes in one piece with a line break at its end.
pub(super) struct Plain<W>(W);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for MakePlain<M> {
    type Writer = Plain<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Plain(self.0.make_writer())
    }
}

impl<W: Write> Write for Plain<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let (text, end) = match text.strip_suffix('\n') {
            Some(text) => (text, "\n"),
            None => (&*text, ""),
        };
        if !text.contains(char::is_control) {
            return self.0.write_all(event).map(|()| event.len());
        }
        let mut plain = String::with_capacity(text.len() + 16);
        for c in text.chars() {
            match c {
                '\n' => plain.push_str("\n    "),
                '\t' => plain.push(c),
                c if c.is_control() => {
                    let _ = write!(plain, "{}", c.escape_unicode());
                }
                c => plain.push(c),
            }
        }
        plain.push_str(end);
        self.0.write_all(plain.as_bytes()).map(|()| event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

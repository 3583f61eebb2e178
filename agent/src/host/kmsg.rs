//! The kernel's own log, `/dev/kmsg`, from now on. Each read gives one record.
//!
//! Format: <https://www.kernel.org/doc/Documentation/ABI/testing/dev-kmsg>

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// Where it is.
pub const PATH: &str = "/dev/kmsg";
/// The kernel writes a record of 1 KiB at most, each byte of which it may escape by four.
const RECORD_BYTES: usize = 8 * 1024;

/// An open reader.
#[derive(Debug)]
pub struct Kmsg {
    file: File,
    record: Box<[u8]>,
}

/// What a read gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// The text of a record, without its head and dictionary.
    Text(&'a [u8]),
    /// Records were overwritten before they were read.
    Lost,
    /// Nothing more now.
    Nothing,
}

impl Kmsg {
    /// Opens it at its end: what is in it by now is history, which has no time that a span
    /// of this run could have.
    ///
    /// # Errors
    /// When it is not there or not allowed (`kernel.dmesg_restrict` asks for CAP_SYSLOG).
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(path)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self {
            file,
            record: vec![0; RECORD_BYTES].into_boxed_slice(),
        })
    }

    /// The next record.
    ///
    /// # Errors
    /// When reading fails for good.
    pub fn read(&mut self) -> io::Result<Next<'_>> {
        loop {
            let error = match self.file.read(&mut self.record) {
                Ok(0) => return Ok(Next::Nothing),
                Ok(n) => return Ok(Next::Text(text(&self.record[..n]))),
                Err(error) => error,
            };
            match error.raw_os_error() {
                Some(libc::EAGAIN) => return Ok(Next::Nothing),
                Some(libc::EPIPE) => return Ok(Next::Lost),
                Some(libc::EINTR) => {}
                _ => return Err(error),
            }
        }
    }
}

/// The text of `priority,sequence,microseconds,flags;text\n KEY=value\n`.
fn text(record: &[u8]) -> &[u8] {
    let start = memchr::memchr(b';', record).map_or(0, |at| at + 1);
    let text = &record[start..];
    &text[..memchr::memchr(b'\n', text).unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_record() {
        let record = b"6,339,5140900,-;NET: Registered; family\n SUBSYSTEM=net\n";
        assert_eq!(text(record), b"NET: Registered; family");
        assert_eq!(text(b"6,1,2,-;no end"), b"no end");
        assert_eq!(text(b"no head"), b"no head");
        assert_eq!(text(b""), b"");
    }
}

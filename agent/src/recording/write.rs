//! Writes a recording: lines into a compressor into a file that gets its name when it is
//! complete.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::{Compression, write::GzEncoder};

use super::{
    MAX_IDENTITIES,
    entry::{EndReason, Entry, JoinedTo},
};
use crate::{otlp::view::MAX_SCOPES, process::Identity, span::Joined, time::MonoNs};

/// Room for the last line and the end of the compressed stream.
const TAIL_BYTES: u64 = 4_096;
/// Identities remembered from one batch to the next.
const MANY_IDENTITIES: usize = 4_096;
const _: () = assert!(
    MANY_IDENTITIES + MAX_SCOPES <= MAX_IDENTITIES as usize,
    "each resource of a request finds a slot"
);

/// What a file is called until it is complete.
#[must_use]
pub fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// What a recording of this name would replace: a complete one, or what a killed agent left.
#[must_use]
pub fn earlier(path: &Path) -> Option<PathBuf> {
    // Of a folder it is said that it is one.
    let file = Some(path.to_owned()).filter(|path| path.exists() && !path.is_dir());
    file.or_else(|| Some(partial(path)).filter(|path| path.exists()))
}

/// See the module's head.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    out: GzEncoder<Counted>,
    /// Bytes given to the compressor since it was flushed: it holds so many at most.
    pending: u64,
    max_bytes: u64,
    identities: HashMap<String, u32>,
    line: Vec<u8>,
}

/// Whether there is room for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// It was written.
    Written,
    /// It was not, as the file would become too large: time for [`Writer::finish`].
    Full,
}

impl Writer {
    /// Makes the file under its preliminary name, readable by its owner only: spans and names
    /// are nobody else's business.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(path: &Path, max_bytes: u64) -> io::Result<Self> {
        Self::compressing(path, max_bytes, Compression::new(3))
    }

    /// The same for a file that is to be small whatever that takes: a tenth less.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create_small(path: &Path, max_bytes: u64) -> io::Result<Self> {
        Self::compressing(path, max_bytes, Compression::best())
    }

    fn compressing(path: &Path, max_bytes: u64, level: Compression) -> io::Result<Self> {
        // Only at the end does the file get its name: too late to find out.
        if path.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(partial(path))?;
        let counted = Counted {
            out: BufWriter::new(file),
            bytes: 0,
        };
        Ok(Self {
            path: path.to_owned(),
            out: GzEncoder::new(counted, level),
            pending: 0,
            max_bytes,
            identities: HashMap::new(),
            line: Vec::new(),
        })
    }

    /// Writes one line, if there is room for it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn entry(&mut self, entry: &Entry) -> io::Result<Room> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, entry)?;
        self.line.push(b'\n');
        // A compressor may add a little to what cannot be compressed.
        let length = self.line.len() as u64 + self.line.len() as u64 / 1_000 + 64;
        if self.out.get_ref().bytes + self.pending + length + TAIL_BYTES > self.max_bytes {
            self.flush()?;
            if self.out.get_ref().bytes + length + TAIL_BYTES > self.max_bytes {
                return Ok(Room::Full);
            }
        }
        self.out.write_all(&self.line)?;
        self.pending += length;
        Ok(Room::Written)
    }

    /// Writes a batch, and before it the identities that it needs and that have no slot yet.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn batch<'a>(
        &mut self,
        received: MonoNs,
        joined: impl Iterator<Item = &'a Joined>,
        payload: &[u8],
    ) -> io::Result<Room> {
        let joined: Vec<&Joined> = joined.collect();
        if self.identities.len() > MANY_IDENTITIES {
            // All slots are given anew.
            self.identities.clear();
        }
        let mut slots = Vec::with_capacity(joined.len());
        for joined in joined {
            let identity = match &joined.identity {
                None => None,
                Some(identity) => match self.slot(identity)? {
                    Some(slot) => Some(slot),
                    None => return Ok(Room::Full),
                },
            };
            slots.push(JoinedTo {
                identity,
                confidence: joined.confidence,
            });
        }
        self.entry(&Entry::Batch {
            received,
            joined: slots,
            payload: STANDARD.encode(payload),
        })
    }

    /// Where the identity is, `None` when there is no room to write it.
    fn slot(&mut self, identity: &Arc<Identity>) -> io::Result<Option<u32>> {
        let text = serde_json::to_string(identity)?;
        if let Some(slot) = self.identities.get(&text) {
            return Ok(Some(*slot));
        }
        let slot = self.identities.len() as u32;
        let written = self.entry(&Entry::Identity {
            slot,
            identity: Arc::clone(identity),
        })?;
        if written == Room::Full {
            return Ok(None);
        }
        self.identities.insert(text, slot);
        Ok(Some(slot))
    }

    /// Brings what was written to the file, so that it can be read up to here whatever happens
    /// to the agent.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()?;
        self.pending = 0;
        Ok(())
    }

    /// Writes the last line and gives the file its name. Returns its size in bytes.
    ///
    /// # Errors
    /// When the file cannot be written or renamed; the preliminary one is left.
    pub fn finish(self, reason: EndReason) -> io::Result<u64> {
        let path = self.path.clone();
        let bytes = self.finish_unnamed(reason)?;
        fs::rename(partial(&path), &path)?;
        Ok(bytes)
    }

    /// The same without the name.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn finish_unnamed(mut self, reason: EndReason) -> io::Result<u64> {
        serde_json::to_writer(&mut self.out, &Entry::End { reason })?;
        self.out.write_all(b"\n")?;
        let counted = self.out.finish()?;
        let bytes = counted.bytes;
        let file = counted
            .out
            .into_inner()
            .map_err(|error| error.into_error())?;
        file.sync_all()?;
        Ok(bytes)
    }
}

/// Counts what reaches the file.
#[derive(Debug)]
struct Counted {
    out: BufWriter<File>,
    bytes: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

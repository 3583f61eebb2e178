//! A file that is being written to: its new bytes, across rotation and truncation. It asks
//! the file system now and then, which works on every file system.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// First bytes of a file that tell it from a later one that got the same inode.
const HEAD_BYTES: usize = 256;
/// A file that was deleted is let go after so many looks, so that its space becomes free.
const LOOKS_AFTER_DELETION: u32 = 20;

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At the first byte.
    Start,
    /// After the last one.
    End,
    /// Where an earlier run stopped, if it is still that file; else at the first byte.
    At(Place),
}

/// A place in a certain file, to be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Place {
    /// Device of the file.
    pub device: u64,
    /// Inode of the file.
    pub inode: u64,
    /// Bytes read.
    pub position: u64,
    /// How many first bytes `head_hash` is of.
    pub head_bytes: u64,
    /// FNV-1a of the first bytes.
    pub head_hash: u64,
}

/// What a look at the file gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// So many bytes.
    Bytes(usize),
    /// Nothing new.
    Nothing,
    /// The file is not there (any more).
    Gone,
    /// Another file has its name now, or it was cut: the last line of the old one is
    /// complete, and the next look begins at the first byte.
    Restarted,
}

/// One followed file.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    file: Option<File>,
    position: u64,
    /// Where to begin in the next file of this name.
    begin: Begin,
    looks_after_deletion: u32,
}

impl Tail {
    /// Opens nothing yet.
    #[must_use]
    pub fn new(path: PathBuf, begin: Begin) -> Self {
        Self {
            path,
            file: None,
            position: 0,
            begin,
            looks_after_deletion: 0,
        }
    }

    /// The file's name.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Device and inode of the file that is read now.
    #[must_use]
    pub fn inode(&self) -> Option<(u64, u64)> {
        let meta = self.file.as_ref()?.metadata().ok()?;
        Some((meta.dev(), meta.ino()))
    }

    /// Reads what is new, at most as much as `buffer` holds.
    ///
    /// # Errors
    /// When the file is there but cannot be read, or is not a regular file.
    pub fn look(&mut self, buffer: &mut [u8]) -> io::Result<Look> {
        if self.file.is_none() && !self.open()? {
            return Ok(Look::Gone);
        }
        match self.read(buffer)? {
            0 => self.at_the_end(buffer),
            n => Ok(Look::Bytes(n)),
        }
    }

    /// Leaves out what is more than `most` bytes before the end; how much that was. What
    /// follows begins within a line.
    ///
    /// # Errors
    /// When the file cannot be asked for its size.
    pub fn catch_up(&mut self, most: u64) -> io::Result<u64> {
        let Some(file) = &mut self.file else {
            return Ok(0);
        };
        let left_out = file.metadata()?.len().saturating_sub(self.position + most);
        if left_out > 0 {
            self.position = file.seek(SeekFrom::Start(self.position + left_out))?;
        }
        Ok(left_out)
    }

    /// Where it is, to begin there another time; `unread` bytes of what it gave were not
    /// used. None while there is no file.
    #[must_use]
    pub fn place(&self, unread: usize) -> Option<Place> {
        let file = self.file.as_ref()?;
        let meta = file.metadata().ok()?;
        let head = meta.len().min(HEAD_BYTES as u64);
        Some(Place {
            device: meta.dev(),
            inode: meta.ino(),
            position: self.position.saturating_sub(unread as u64),
            head_bytes: head,
            head_hash: head_hash(file, head)?,
        })
    }

    /// False if there is no such file.
    fn open(&mut self) -> io::Result<bool> {
        // Without O_NONBLOCK a FIFO would stop the caller here.
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY)
            .open(&self.path);
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let meta = file.metadata()?;
        if meta.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        if !meta.is_file() {
            return Err(io::Error::other(
                "not a regular file, so it cannot be followed",
            ));
        }
        self.position = match std::mem::replace(&mut self.begin, Begin::Start) {
            Begin::Start => 0,
            Begin::End => meta.len(),
            Begin::At(place) if is_same(&file, &meta, place) => place.position,
            Begin::At(_) => 0,
        };
        file.seek(SeekFrom::Start(self.position))?;
        (self.file, self.looks_after_deletion) = (Some(file), 0);
        Ok(true)
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(file) = &mut self.file else {
            return Ok(0);
        };
        loop {
            match file.read(buffer) {
                Ok(n) => {
                    self.position += n as u64;
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn at_the_end(&mut self, buffer: &mut [u8]) -> io::Result<Look> {
        let Some(file) = &mut self.file else {
            return Ok(Look::Gone);
        };
        let ours = file.metadata()?;
        if ours.len() < self.position {
            self.position = file.seek(SeekFrom::Start(0))?;
            return Ok(Look::Restarted);
        }
        let named = match fs::metadata(&self.path) {
            Ok(named) => Some(named),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            // A name that cannot be looked at now may be looked at later.
            Err(_) => return Ok(Look::Nothing),
        };
        let replaced = named.map(|named| (named.dev(), named.ino()) != (ours.dev(), ours.ino()));
        if replaced == Some(false) {
            self.looks_after_deletion = 0;
            return Ok(Look::Nothing);
        }
        // The writer may have added something before it changed over.
        let n = self.read(buffer)?;
        if n > 0 {
            return Ok(Look::Bytes(n));
        }
        self.looks_after_deletion += 1;
        if replaced == Some(true) || self.looks_after_deletion > LOOKS_AFTER_DELETION {
            self.file = None;
            return Ok(Look::Restarted);
        }
        Ok(Look::Nothing)
    }
}

fn is_same(file: &File, meta: &fs::Metadata, place: Place) -> bool {
    (meta.dev(), meta.ino()) == (place.device, place.inode)
        && meta.len() >= place.position
        && place.head_bytes <= HEAD_BYTES as u64
        && head_hash(file, place.head_bytes) == Some(place.head_hash)
}

/// FNV-1a of the first `bytes` bytes.
fn head_hash(file: &File, bytes: u64) -> Option<u64> {
    let mut head = [0; HEAD_BYTES];
    let head = head.get_mut(..usize::try_from(bytes).ok()?)?;
    file.read_exact_at(head, 0).ok()?;
    Some(head.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    }))
}

#[cfg(test)]
mod tests;

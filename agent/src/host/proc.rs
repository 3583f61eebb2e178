//! Reads of `/proc/PID`: bounded, tolerant of a process that goes away meanwhile, and of
//! frozen trees (plain files and dangling symbolic links).
//!
//! Everything here was written by, or can be forged by, the process itself (`comm`,
//! `cmdline`, even the `exe` path): it is data, never to be trusted, escaped on output.

mod isolation;
mod mappings;
mod parse;
#[cfg(test)]
mod tests;

use std::{
    cell::RefCell,
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
};

pub use parse::{CgroupLine, Stat, Status};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, readlinkat, statat};

use crate::{host::roots::Roots, process::ProcessKey};

/// Most bytes read of any file below `/proc/PID` but the socket tables.
const FILE_LIMIT: u64 = 256 * 1024;
/// Most bytes read of a command line.
pub const CMDLINE_LIMIT: u64 = 4096;
/// Most descriptors of one process that are looked at.
pub const FD_LIMIT: usize = 1 << 17;

/// Why a process could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ProcError {
    /// There is no such process (any more).
    #[error("no process {pid} below {procfs}: give the pid as the host sees it")]
    Gone {
        /// The pid asked for.
        pid: u32,
        /// The root it was looked for in.
        procfs: String,
    },
    /// The kernel refused.
    #[error("reading {path}: {source}; run as root or give CAP_SYS_PTRACE")]
    Denied {
        /// The file.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Any other failure.
    #[error("reading {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file does not have the kernel's form.
    #[error("{path} does not have the form the kernel gives it: is this a proc file system?")]
    Malformed {
        /// The file.
        path: String,
    },
}

/// `/proc/PID` of one process.
#[derive(Clone, Debug)]
pub struct ProcDir {
    pid: u32,
    procfs: PathBuf,
    dir: PathBuf,
    /// The directory itself: of this process for ever, whoever gets its number.
    held: Option<Arc<OwnedFd>>,
}

impl ProcDir {
    /// The directory of `pid`; nothing is read yet.
    #[must_use]
    pub fn new(roots: &Roots, pid: u32) -> Self {
        Self {
            pid,
            procfs: roots.procfs.clone(),
            dir: roots.procfs.join(pid.to_string()),
            held: None,
        }
    }

    /// The directory of the process that has this pid now. What is read in it is that
    /// process's; once it is gone there is nothing to read.
    ///
    /// # Errors
    /// There is no such process.
    pub fn hold(roots: &Roots, pid: u32) -> Result<Self, ProcError> {
        let mut dir = Self::new(roots, pid);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let held = openat(CWD, &dir.dir, flags, Mode::empty());
        dir.held = Some(Arc::new(held.map_err(|errno| dir.error("", errno.into()))?));
        Ok(dir)
    }

    /// That the process is there still.
    ///
    /// # Errors
    /// It is not.
    pub fn is_there(&self) -> Result<(), ProcError> {
        let looked = match &self.held {
            Some(held) => statat(held, "stat", AtFlags::empty()),
            None => statat(CWD, self.dir.join("stat"), AtFlags::empty()),
        };
        looked.map_err(|errno| self.error("stat", errno.into()))?;
        Ok(())
    }

    /// `stat`: start time, parent.
    ///
    /// # Errors
    /// The process is gone, or the file is not readable or not of the kernel's form.
    pub fn stat(&self) -> Result<Stat, ProcError> {
        self.read_piece("stat", Stat::parse)?
            .ok_or_else(|| self.malformed("stat"))
    }

    /// The process's key, from `stat`.
    ///
    /// # Errors
    /// As [`ProcDir::stat`].
    pub fn key(&self) -> Result<ProcessKey, ProcError> {
        Ok(self.stat()?.key(self.pid))
    }

    /// `status`: pids in nested namespaces, seccomp mode, credentials.
    ///
    /// # Errors
    /// The process is gone or the file is not readable.
    pub fn status(&self) -> Result<Status, ProcError> {
        self.read_piece("status", Status::parse)
    }

    /// `cgroup`: one line per hierarchy.
    ///
    /// # Errors
    /// The process is gone or the file is not readable.
    pub fn cgroups(&self) -> Result<Vec<CgroupLine>, ProcError> {
        self.read_piece("cgroup", CgroupLine::parse_all)
    }

    /// `comm` without its newline, lossily decoded.
    ///
    /// # Errors
    /// The process is gone or the file is not readable.
    pub fn comm(&self) -> Result<String, ProcError> {
        let bytes = self.read("comm", 256)?;
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    /// The first [`CMDLINE_LIMIT`] bytes of the command line, split at NUL, lossily decoded;
    /// empty for kernel threads and processes that wiped it.
    ///
    /// # Errors
    /// The process is gone or the file is not readable.
    pub fn cmdline(&self) -> Result<Vec<String>, ProcError> {
        let bytes = self.read("cmdline", CMDLINE_LIMIT)?;
        let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
        if bytes.is_empty() {
            return Ok(Vec::new());
        }
        Ok(bytes
            .split(|b| *b == 0)
            .map(|arg| String::from_utf8_lossy(arg).into_owned())
            .collect())
    }

    /// Target of the `exe` link as the process's own mount namespace names it, without the
    /// kernel's ` (deleted)`; `None` for kernel threads and without permission.
    #[must_use]
    pub fn exe(&self) -> Option<String> {
        let target = self.link("exe")?;
        Some(match target.strip_suffix(" (deleted)") {
            Some(path) => path.to_owned(),
            None => target,
        })
    }

    /// Inode of the namespace of kind `name` (`net`, `pid`, `mnt`, ...), from its link.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<u64> {
        let target = self.link(&format!("ns/{name}"))?;
        let inode = target.split_once('[')?.1.strip_suffix(']')?;
        inode.parse().ok()
    }

    /// `mountinfo`, bounded.
    ///
    /// # Errors
    /// The process is gone or the file is not readable.
    pub fn mountinfo(&self) -> Result<String, ProcError> {
        let bytes = self.read("mountinfo", FILE_LIMIT)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The first line of `uid_map`: who its root is outside.
    #[must_use]
    pub fn uid_map(&self) -> String {
        let bytes = self.read("uid_map", 256).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let first = text.lines().next().unwrap_or_default();
        first.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Whether one of its descriptors is the socket with this inode.
    #[must_use]
    pub fn holds_socket(&self, inode: u64) -> bool {
        let wanted = format!("socket:[{inode}]");
        self.any_fd(|target| target == wanted)
    }

    /// Whether `matches` says yes to the target of one of its descriptors.
    pub fn any_fd(&self, mut matches: impl FnMut(&str) -> bool) -> bool {
        let Ok(entries) = std::fs::read_dir(self.dir.join("fd")) else {
            return false;
        };
        entries.take(FD_LIMIT).flatten().any(|entry| {
            std::fs::read_link(entry.path())
                .ok()
                .and_then(|target| target.to_str().map(&mut matches))
                .unwrap_or(false)
        })
    }

    /// Children of its main thread; `None` where the kernel was built without that file.
    #[must_use]
    pub fn children(&self) -> Option<Vec<u32>> {
        let name = format!("task/{}/children", self.pid);
        let bytes = self.read(&name, FILE_LIMIT).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        Some(text.split_whitespace().flat_map(str::parse).collect())
    }

    /// Path of a file below the directory, for readers with bounds of their own.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn link(&self, name: &str) -> Option<String> {
        let target = match &self.held {
            Some(held) => readlinkat(held, name, Vec::with_capacity(128)).ok()?,
            None => readlinkat(CWD, self.dir.join(name), Vec::new()).ok()?,
        };
        Some(target.to_string_lossy().into_owned())
    }

    fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, ProcError> {
        self.open(name)
            .and_then(|file| read_whole(file, limit))
            .map_err(|source| self.error(name, source))
    }

    /// A file that the kernel writes in one piece: what is shorter than asked for is all of it.
    fn read_piece<T>(&self, name: &str, parse: impl FnOnce(&[u8]) -> T) -> Result<T, ProcError> {
        self.open(name)
            .and_then(|file| read_piece(file, parse))
            .map_err(|source| self.error(name, source))
    }

    fn open(&self, name: &str) -> io::Result<File> {
        match &self.held {
            Some(held) => openat(held, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .map(File::from)
                .map_err(io::Error::from),
            None => File::open(self.dir.join(name)),
        }
    }

    fn error(&self, name: &str, source: io::Error) -> ProcError {
        let path = || self.dir.join(name).display().to_string();
        match source.raw_os_error() {
            Some(libc::ENOENT | libc::ESRCH) => ProcError::Gone {
                pid: self.pid,
                procfs: self.procfs.display().to_string(),
            },
            Some(libc::EACCES | libc::EPERM) => ProcError::Denied {
                path: path(),
                source,
            },
            _ => ProcError::Read {
                path: path(),
                source,
            },
        }
    }

    fn malformed(&self, name: &str) -> ProcError {
        ProcError::Malformed {
            path: self.dir.join(name).display().to_string(),
        }
    }
}

/// At most `limit` bytes of a file.
pub(crate) fn read_bounded(path: &std::path::Path, limit: u64) -> io::Result<Vec<u8>> {
    read_whole(File::open(path)?, limit)
}

/// Most files below `/proc` come whole by one call of this size.
const PIECE: usize = 32 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::default();
}

/// At most `limit` bytes, by as few calls as the kernel allows.
fn read_whole(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let mut file = file.take(limit);
    let mut buffer = BUFFER.take();
    buffer.resize(PIECE, 0);
    let mut bytes = Vec::new();
    while let n @ 1.. = read_some(&mut file, &mut buffer)? {
        bytes.extend_from_slice(&buffer[..n]);
    }
    BUFFER.set(buffer);
    Ok(bytes)
}

/// What one piece says; one that fills the buffer may go on.
fn read_piece<T>(mut file: File, parse: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
    let mut buffer = BUFFER.take();
    buffer.resize(PIECE, 0);
    let mut length = read_some(&mut file, &mut buffer)?;
    if length == PIECE {
        buffer.extend(read_whole(file, FILE_LIMIT - PIECE as u64)?);
        length = buffer.len();
    }
    let parsed = parse(&buffer[..length]);
    buffer.truncate(PIECE);
    BUFFER.set(buffer);
    Ok(parsed)
}

fn read_some(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Every process below the root, in no order.
#[must_use]
pub fn pids(roots: &Roots) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir(&roots.procfs) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// The agent's own pid as this proc file system sees it (another one than `getpid` when the
/// agent has a pid namespace of its own and reads the host's proc); `None` in a frozen tree.
#[must_use]
pub fn own_pid(roots: &Roots) -> Option<u32> {
    let target = std::fs::read_link(roots.procfs.join("self")).ok()?;
    target.to_str()?.parse().ok()
}

/// Whether the root is a real proc file system, not a frozen copy: only then do CPUID and
/// the agent's own sockets belong to the same machine.
#[must_use]
pub fn is_live(roots: &Roots) -> bool {
    rustix::fs::statfs(&roots.procfs)
        .is_ok_and(|fs| fs.f_type as u64 == libc::PROC_SUPER_MAGIC as u64)
}

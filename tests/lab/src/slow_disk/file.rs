//! One file as a file system, in the kernel's FUSE protocol (`include/uapi/linux/fuse.h`): its root
//! is no folder but the file itself. It lies in memory, and whoever writes or flushes waits.

use std::{
    ffi::CString,
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read as _, Write as _},
    os::fd::AsRawFd as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;
use rustix::mount::{MountFlags, mount};

/// Bytes of one write, and what a request may have before them.
const MAX_WRITE: u32 = 128 << 10;
const ROOM: usize = MAX_WRITE as usize + 4_096;
/// `struct fuse_in_header`, `struct fuse_out_header`.
const HEAD_IN: usize = 40;
const HEAD_OUT: usize = 16;
/// `struct fuse_write_in`, which the data comes after.
const WRITE_IN: usize = 40;
/// The version of the protocol that is spoken here; the kernel speaks it too, and later ones.
const VERSION: (u32, u32) = (7, 31);
/// A regular file that root may read and write.
const MODE: u32 = libc::S_IFREG | 0o600;
/// How long the kernel need not ask for the attributes again, in seconds.
const VALID_S: u64 = 3_600;

mod opcode {
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const BATCH_FORGET: u32 = 42;
}

/// Mounts such a file over `path`, and serves it in a thread of its own until it is unmounted;
/// writes and flushes take `delay_us` microseconds.
///
/// # Errors
/// When there is no FUSE here, or the kernel refuses.
pub fn serve(path: &Path, bytes: usize, delay_us: Arc<AtomicU64>) -> anyhow::Result<()> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
    let mut device = device.context("/dev/fuse")?;
    let options = format!(
        "fd={},rootmode={MODE:o},user_id=0,group_id=0",
        device.as_raw_fd()
    );
    let options = CString::new(options)?;
    mount(
        "isostack-lab",
        path,
        "fuse",
        MountFlags::empty(),
        options.as_c_str(),
    )
    .with_context(|| format!("cannot mount {}", path.display()))?;
    let mut disk = Disk {
        bytes: vec![0; bytes],
        delay_us,
    };
    thread::Builder::new()
        .name("slow disk".to_owned())
        .spawn(move || disk.answer_all(&mut device))?;
    // The kernel asks for the version first: nothing but a dead server could keep this waiting.
    fs::metadata(path).with_context(|| path.display().to_string())?;
    Ok(())
}

struct Disk {
    bytes: Vec<u8>,
    delay_us: Arc<AtomicU64>,
}

/// A request, as far as it is of interest here.
struct Request<'a> {
    opcode: u32,
    unique: u64,
    body: &'a [u8],
}

impl<'a> Request<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        Some(Self {
            opcode: u32_at(bytes, 4)?,
            unique: u64_at(bytes, 8)?,
            body: bytes.get(HEAD_IN..)?,
        })
    }
}

impl Disk {
    /// Until the file is unmounted.
    fn answer_all(&mut self, device: &mut File) {
        let mut room = vec![0; ROOM];
        loop {
            let length = match device.read(&mut room) {
                Ok(length) => length,
                // Interrupted, or taken back before it was read.
                Err(error)
                    if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::NotFound) =>
                {
                    continue;
                }
                Err(_) => return,
            };
            let Some(request) = Request::parse(&room[..length]) else {
                return;
            };
            let Some(answer) = self.answer(&request) else {
                continue;
            };
            let (error, body) = match answer {
                Ok(body) => (0, body),
                Err(error) => (-error, Vec::new()),
            };
            let mut whole = Bytes::default();
            whole.u32((HEAD_OUT + body.len()) as u32);
            whole.u32(error as u32);
            whole.u64(request.unique);
            whole.0.extend(body);
            // Fails when the asker was interrupted, who wants no answer.
            let _ = device.write(&whole.0);
        }
    }

    /// The body of the answer, or the number of the error; nothing where none is wanted.
    fn answer(&mut self, request: &Request<'_>) -> Option<Result<Vec<u8>, i32>> {
        let body = request.body;
        let range = || {
            let (offset, size) = (u64_at(body, 8)?, u32_at(body, 16)?);
            let start = usize::try_from(offset).ok()?.min(self.bytes.len());
            Some(start..(start + size as usize).min(self.bytes.len()))
        };
        Some(match request.opcode {
            opcode::FORGET | opcode::BATCH_FORGET | opcode::INTERRUPT => return None,
            opcode::INIT => Ok(init(body)),
            opcode::GETATTR | opcode::SETATTR => Ok(self.attributes()),
            // Its handle, and no flags: the page cache is used.
            opcode::OPEN => Ok(vec![0; 16]),
            opcode::READ => range().map_or(Err(libc::EIO), |range| Ok(self.bytes[range].to_vec())),
            opcode::WRITE => {
                let (range, data) = (range(), body.get(WRITE_IN..));
                self.wait();
                match (range, data) {
                    (Some(range), Some(data)) if data.len() >= range.len() => {
                        let length = range.len();
                        self.bytes[range].copy_from_slice(&data[..length]);
                        let mut written = Bytes::default();
                        written.u32(length as u32);
                        written.u32(0);
                        Ok(written.0)
                    }
                    _ => Err(libc::EIO),
                }
            }
            opcode::FSYNC => {
                self.wait();
                Ok(Vec::new())
            }
            opcode::FLUSH | opcode::RELEASE | opcode::DESTROY => Ok(Vec::new()),
            _ => Err(libc::ENOSYS),
        })
    }

    fn wait(&self) {
        thread::sleep(Duration::from_micros(self.delay_us.load(Ordering::Relaxed)));
    }

    /// `struct fuse_attr_out`.
    fn attributes(&self) -> Vec<u8> {
        let mut out = Bytes::default();
        out.u64(VALID_S);
        out.u64(0);
        // The inode's number, its size and its blocks; no times.
        out.u64(1);
        out.u64(self.bytes.len() as u64);
        out.u64(self.bytes.len() as u64 / 512);
        out.0.extend([0; 24 + 12]);
        out.u32(MODE);
        // One name; of root; no device.
        out.u32(1);
        out.0.extend([0; 12]);
        out.u32(4_096);
        out.u32(0);
        out.0
    }
}

/// `struct fuse_init_out`: none of the options, writes as large as there is room for.
fn init(body: &[u8]) -> Vec<u8> {
    let mut out = Bytes::default();
    out.u32(VERSION.0);
    out.u32(VERSION.1.min(u32_at(body, 4).unwrap_or(VERSION.1)));
    // As far ahead as the kernel wants to read; no flags; its own numbers of requests at once.
    out.u32(u32_at(body, 8).unwrap_or(0));
    out.u32(0);
    out.u32(0);
    out.u32(MAX_WRITE);
    // Times are exact to a nanosecond.
    out.u32(1);
    out.0.resize(64, 0);
    out.0
}

/// Numbers as this machine has them, as the kernel does.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn u32(&mut self, number: u32) {
        self.0.extend(number.to_ne_bytes());
    }

    fn u64(&mut self, number: u64) {
        self.0.extend(number.to_ne_bytes());
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + 8)?;
    Some(u64::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> Disk {
        Disk {
            bytes: vec![0; 8_192],
            delay_us: Arc::default(),
        }
    }

    fn ask(disk: &mut Disk, opcode: u32, body: &[u8]) -> Option<Result<Vec<u8>, i32>> {
        let request = Request {
            opcode,
            unique: 1,
            body,
        };
        disk.answer(&request)
    }

    fn place(offset: u64, size: u32, data: &[u8]) -> Vec<u8> {
        let mut body = Bytes::default();
        body.u64(0);
        body.u64(offset);
        body.u32(size);
        body.0.resize(WRITE_IN, 0);
        body.0.extend(data);
        body.0
    }

    #[test]
    fn what_is_written_is_read() {
        let mut disk = disk();
        let written = ask(&mut disk, opcode::WRITE, &place(4_096, 3, b"abc"));
        assert_eq!(written, Some(Ok([3_u32.to_ne_bytes(), [0; 4]].concat())));
        let read = ask(&mut disk, opcode::READ, &place(4_095, 5, b""));
        assert_eq!(read, Some(Ok(b"\0abc\0".to_vec())));
        // Beyond the end there is nothing.
        let read = ask(&mut disk, opcode::READ, &place(8_190, 100, b""));
        assert_eq!(read, Some(Ok(vec![0; 2])));
        assert_eq!(
            ask(&mut disk, opcode::WRITE, b"short"),
            Some(Err(libc::EIO))
        );
        assert_eq!(ask(&mut disk, opcode::INTERRUPT, &[]), None);
        assert_eq!(ask(&mut disk, 9_999, &[]), Some(Err(libc::ENOSYS)));
    }

    #[test]
    fn answers_have_the_kernels_lengths() {
        let length = |answer: Option<Result<Vec<u8>, i32>>| answer.map(|a| a.map(|a| a.len()));
        let mut disk = disk();
        assert_eq!(length(ask(&mut disk, opcode::INIT, &[0; 64])), Some(Ok(64)));
        assert_eq!(length(ask(&mut disk, opcode::GETATTR, &[])), Some(Ok(104)));
        assert_eq!(length(ask(&mut disk, opcode::OPEN, &[])), Some(Ok(16)));
    }
}

//! The loop that suffers most from a hook on block requests: small reads past the page cache.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    thread,
    time::Instant,
};

use rustix::fs::OFlags;

use super::pingpong::pin;

/// A file that is read past the page cache: the worst case for a hook on block requests.
pub struct DirectFile(tempfile::TempPath);

impl DirectFile {
    /// 4 MiB of real blocks.
    const BLOCKS: u64 = 1024;
    const BLOCK: usize = 4096;

    /// Below the build folder, which is on a disk where a temporary folder may not be.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn create() -> io::Result<Self> {
        let mut file = tempfile::NamedTempFile::new_in(harness::artifact::root().join("target"))?;
        for _ in 0..Self::BLOCKS {
            file.write_all(&[7; Self::BLOCK])?;
        }
        file.as_file().sync_all()?;
        Ok(Self(file.into_temp_path()))
    }

    /// Wall time of one read of 4 KiB, in nanoseconds: the median.
    ///
    /// # Errors
    ///
    /// If there is no such CPU or the file system has no direct I/O.
    pub fn read_ns(&self, cpu: usize, reads: u32) -> io::Result<f64> {
        let path = self.0.to_path_buf();
        thread::spawn(move || {
            pin(cpu)?;
            let file = OpenOptions::new()
                .read(true)
                .custom_flags(OFlags::DIRECT.bits() as i32)
                .open(path)?;
            let mut room = vec![0; 2 * Self::BLOCK];
            let start = room.as_ptr().align_offset(Self::BLOCK);
            let block = &mut room[start..start + Self::BLOCK];
            let mut times = Vec::new();
            for n in 0..u64::from(reads) {
                // A stride that visits every block.
                let at = n * 389 % Self::BLOCKS * Self::BLOCK as u64;
                let began = Instant::now();
                file.read_exact_at(block, at)?;
                times.push(began.elapsed().as_nanos() as f64);
            }
            Ok(super::median(times))
        })
        .join()
        .map_err(|_| io::Error::other("the reader panicked"))?
    }
}

//! Loops that suffer most from hooks. For one on context switches: two threads pinned to one
//! CPU that pass a byte back and forth, two switches and two wake-ups a round. For one on block
//! requests: small reads past the page cache.

use std::{
    fs::OpenOptions,
    io::{self, Read, Write, pipe},
    net::{TcpListener, TcpStream},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    thread,
    time::Instant,
};

use rustix::{
    fs::OFlags,
    thread::{CpuSet, sched_setaffinity},
    time::{ClockId, clock_gettime},
};

/// CPU time of both threads per round through two pipes, in nanoseconds.
///
/// CPU time, not wall time: a neighbour that gets the CPU in between does not count, while
/// a program on the switch does, as the kernel charges it to the thread switched in.
///
/// # Errors
///
/// If there is no such CPU or no pipe to be had.
pub fn pipe_ns(cpu: usize, rounds: u32) -> io::Result<f64> {
    let (near_reader, far_writer) = pipe()?;
    let (far_reader, near_writer) = pipe()?;
    ns_per_round(
        cpu,
        rounds,
        (near_reader, near_writer),
        (far_reader, far_writer),
    )
}

/// The same through a TCP connection on loopback.
///
/// # Errors
///
/// If there is no such CPU or no connection to be had.
pub fn tcp_ns(cpu: usize, rounds: u32) -> io::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    for end in [&near, &far] {
        end.set_nodelay(true)?;
    }
    ns_per_round(
        cpu,
        rounds,
        (near.try_clone()?, near),
        (far.try_clone()?, far),
    )
}

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

fn ns_per_round<R, W>(cpu: usize, rounds: u32, near: (R, W), far: (R, W)) -> io::Result<f64>
where
    R: Read + Send + 'static,
    W: Write + Send + 'static,
{
    let echo = thread::spawn(move || echo(cpu, rounds, far));
    let ours = thread::spawn(move || ask(cpu, rounds, near));
    let ours = ours
        .join()
        .map_err(|_| io::Error::other("ping panicked"))??;
    let theirs = echo
        .join()
        .map_err(|_| io::Error::other("pong panicked"))??;
    Ok((ours + theirs) as f64 / f64::from(rounds))
}

fn ask(
    cpu: usize,
    rounds: u32,
    (mut reader, mut writer): (impl Read, impl Write),
) -> io::Result<u64> {
    pin(cpu)?;
    let mut byte = [0];
    // The first exchange starts the other side.
    writer.write_all(&byte)?;
    reader.read_exact(&mut byte)?;
    let start = thread_cpu_ns();
    for _ in 0..rounds {
        writer.write_all(&byte)?;
        reader.read_exact(&mut byte)?;
    }
    Ok(thread_cpu_ns() - start)
}

fn echo(
    cpu: usize,
    rounds: u32,
    (mut reader, mut writer): (impl Read, impl Write),
) -> io::Result<u64> {
    pin(cpu)?;
    let mut byte = [0];
    reader.read_exact(&mut byte)?;
    writer.write_all(&byte)?;
    let start = thread_cpu_ns();
    for _ in 0..rounds {
        reader.read_exact(&mut byte)?;
        writer.write_all(&byte)?;
    }
    Ok(thread_cpu_ns() - start)
}

fn pin(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

fn thread_cpu_ns() -> u64 {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

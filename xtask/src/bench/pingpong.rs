//! The worst case for a hook on context switches: two threads pinned to one CPU that pass a
//! byte back and forth through pipes, two switches and two wake-ups a round.

use std::{
    io::{self, PipeReader, PipeWriter, Read as _, Write as _, pipe},
    thread,
};

use rustix::{
    thread::{CpuSet, sched_setaffinity},
    time::{ClockId, clock_gettime},
};

/// CPU time of both threads per round, in nanoseconds, over `rounds` rounds on CPU `cpu`.
///
/// CPU time, not wall time: a neighbour that gets the CPU in between does not count, while
/// a program on the switch does, as the kernel charges it to the thread switched in.
///
/// # Errors
///
/// If there is no such CPU or no pipe to be had.
pub fn ns_per_round(cpu: usize, rounds: u32) -> io::Result<f64> {
    let (mut a_reader, b_writer) = pipe()?;
    let (b_reader, mut a_writer) = pipe()?;
    let echo = thread::spawn(move || echo(cpu, rounds, b_reader, b_writer));
    let ours = thread::spawn(move || -> io::Result<u64> {
        pin(cpu)?;
        let mut byte = [0];
        // The first exchange starts the other side.
        a_writer.write_all(&byte)?;
        a_reader.read_exact(&mut byte)?;
        let start = thread_cpu_ns();
        for _ in 0..rounds {
            a_writer.write_all(&byte)?;
            a_reader.read_exact(&mut byte)?;
        }
        Ok(thread_cpu_ns() - start)
    });
    let ours = ours
        .join()
        .map_err(|_| io::Error::other("ping panicked"))??;
    let theirs = echo
        .join()
        .map_err(|_| io::Error::other("pong panicked"))??;
    Ok((ours + theirs) as f64 / f64::from(rounds))
}

fn echo(
    cpu: usize,
    rounds: u32,
    mut reader: PipeReader,
    mut writer: PipeWriter,
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

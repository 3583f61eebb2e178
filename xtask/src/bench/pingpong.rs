//! The loop that suffers most from a hook on context switches: two threads pinned to one CPU
//! that pass a byte back and forth, two switches and two wake-ups a round.

use std::{
    io::{self, Read, Write, pipe},
    net::{TcpListener, TcpStream},
    thread,
};

use rustix::{
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

pub fn pin(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

fn thread_cpu_ns() -> u64 {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

//! What a process has used, from the kernel's own books.

use std::{fs, time::Duration};

use anyhow::{Context as _, bail};

/// CPU time of all threads of a process, ended ones included.
///
/// # Errors
/// When the process is gone.
pub fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let pid = libc::pid_t::try_from(pid)?;
    let mut clock = 0;
    // SAFETY: `clock` is a valid place for the id; the call keeps no pointer to it.
    let error = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    if error != 0 {
        bail!(
            "process {pid} has no CPU clock: {}",
            std::io::Error::from_raw_os_error(error)
        );
    }
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid place for the answer; the call keeps no pointer to it.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(std::io::Error::last_os_error()).context("clock_gettime");
    }
    Ok(Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    ))
}

/// Resident memory in megabytes (10^6 bytes): now, and at its highest.
///
/// # Errors
/// When the process is gone.
pub fn memory_mb(pid: u32) -> anyhow::Result<(f64, f64)> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).context(path)?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: f64 = line
            .trim_start_matches(':')
            .trim()
            .split(' ')
            .next()?
            .parse()
            .ok()?;
        Some(kib * 1024.0 / 1e6)
    };
    field("VmRSS").zip(field("VmHWM")).context("no VmRSS")
}

/// CPU time of all children that have ended and were waited for.
///
/// # Errors
/// When the kernel refuses.
pub fn children() -> anyhow::Result<Duration> {
    // SAFETY: all-zero bytes are a valid `rusage`.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is a valid place for the answer; the call keeps no pointer to it.
    if unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) } != 0 {
        return Err(std::io::Error::last_os_error()).context("getrusage");
    }
    let time = |t: libc::timeval| {
        Duration::from_secs(t.tv_sec.unsigned_abs())
            + Duration::from_micros(t.tv_usec.unsigned_abs())
    };
    Ok(time(usage.ru_utime) + time(usage.ru_stime))
}

//! The kernel's own books, read many times a second beside the agent: how long each
//! service waited for a CPU, how long the disk was busy, what the hypervisor took.

use std::{
    collections::VecDeque,
    fs,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{service::Service, sink::unix_ns};

/// Between two samples.
const PERIOD: Duration = Duration::from_millis(25);
/// Samples kept: a minute and a half.
const KEPT: usize = 3_600;

/// Running totals at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Wall time before the first was read; of a difference, its length.
    pub at_ns: u64,
    /// Wall time after the last was read.
    pub done_ns: u64,
    /// Milliseconds that the threads of each service were runnable and did not run
    /// (`schedstat`; includes time held back by a quota), in the order of the chain.
    pub waited_ms: [f64; Service::COUNT],
    /// Milliseconds that the threads of each service ran.
    pub ran_ms: [f64; Service::COUNT],
    /// Milliseconds of I/O, summed over requests in flight (`/proc/diskstats`).
    pub disk_ms: f64,
    /// Milliseconds that the hypervisor took, of all CPUs (`/proc/stat`).
    pub stolen_ms: f64,
}

/// A thread that takes samples; ends with this value.
#[derive(Debug)]
pub struct Sampler {
    samples: Arc<Mutex<VecDeque<Sample>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    /// Starts it on the processes of each service and the disk `vda`-like `disk`.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(pids: Vec<Vec<u32>>, disk: String) -> anyhow::Result<Self> {
        let samples = Arc::new(Mutex::new(VecDeque::with_capacity(KEPT)));
        let stop = Arc::new(AtomicBool::new(false));
        let (kept, stopped) = (Arc::clone(&samples), Arc::clone(&stop));
        let thread = thread::Builder::new()
            .name("sampler".to_owned())
            .spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    let sample = sample(&pids, &disk);
                    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    if kept.len() == KEPT {
                        kept.pop_front();
                    }
                    kept.push_back(sample);
                    drop(kept);
                    thread::sleep(PERIOD);
                }
            })?;
        Ok(Self {
            samples,
            stop,
            thread: Some(thread),
        })
    }

    /// What the totals grew by from the last sample before `start_ns` to the first after
    /// `end_ns`; nothing where these are not there (any more).
    #[must_use]
    pub fn between(&self, start_ns: u64, end_ns: u64) -> Option<Sample> {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let before = samples.iter().rev().find(|s| s.done_ns <= start_ns)?;
        let after = samples.iter().find(|s| s.at_ns >= end_ns)?;
        let since = |after: [f64; Service::COUNT], before: [f64; Service::COUNT]| {
            let mut grown = after;
            for (grown, before) in grown.iter_mut().zip(before) {
                // Of gVisor's processes one may have ended.
                *grown = (*grown - before).max(0.0);
            }
            grown
        };
        Some(Sample {
            at_ns: after.at_ns - before.at_ns,
            done_ns: after.done_ns,
            waited_ms: since(after.waited_ms, before.waited_ms),
            ran_ms: since(after.ran_ms, before.ran_ms),
            disk_ms: after.disk_ms - before.disk_ms,
            stolen_ms: after.stolen_ms - before.stolen_ms,
        })
    }

    /// Of one service.
    #[must_use]
    pub fn waited_ms(&self, service: Service, start_ns: u64, end_ns: u64) -> f64 {
        self.between(start_ns, end_ns)
            .map_or(0.0, |sample| sample.waited_ms[service as usize])
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It cannot have panicked: it only reads files and counts.
            let _ = thread.join();
        }
    }
}

fn sample(pids: &[Vec<u32>], disk: &str) -> Sample {
    let at_ns = unix_ns();
    let mut of_each = [(0.0, 0.0); Service::COUNT];
    for (sum, pids) in of_each.iter_mut().zip(pids) {
        for (ran, waited) in pids.iter().copied().map(scheduled_ms) {
            *sum = (sum.0 + ran, sum.1 + waited);
        }
    }
    let stolen_ms = stolen_ms(&fs::read_to_string("/proc/stat").unwrap_or_default());
    Sample {
        at_ns,
        waited_ms: of_each.map(|(_, waited)| waited),
        ran_ms: of_each.map(|(ran, _)| ran),
        disk_ms: disk_ms(disk),
        stolen_ms,
        done_ns: unix_ns(),
    }
}

/// How long the threads of a process ran, and how long they waited for a CPU.
fn scheduled_ms(pid: u32) -> (f64, f64) {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let (mut ran, mut waited) = (0.0, 0.0);
    for task in tasks.into_iter().flatten().flatten() {
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let mut numbers = text.split(' ').map(|n| n.trim().parse().unwrap_or(0.0));
        ran += numbers.next().unwrap_or(0.0) / 1e6;
        waited += numbers.next().unwrap_or(0.0) / 1e6;
    }
    (ran, waited)
}

/// Milliseconds of I/O of a disk so far, summed over requests in flight.
#[must_use]
pub fn disk_ms(disk: &str) -> f64 {
    weighted_ms(
        &fs::read_to_string("/proc/diskstats").unwrap_or_default(),
        disk,
    )
}

/// The weighted time of a disk: its 11th number.
fn weighted_ms(diskstats: &str, disk: &str) -> f64 {
    let line = diskstats
        .lines()
        .map(str::split_whitespace)
        .find(|words| words.clone().nth(2) == Some(disk));
    line.and_then(|mut words| words.nth(13)?.parse().ok())
        .unwrap_or(0.0)
}

/// Counted in ticks of 10 ms.
fn stolen_ms(stat: &str) -> f64 {
    let ticks = stat
        .lines()
        .next()
        .and_then(|line| line.split_whitespace().nth(8)?.parse::<f64>().ok());
    ticks.unwrap_or(0.0) * 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_files() {
        let stats = " 254       0 vda 100 1 2 3 50 5 6 7 0 40 1234 0 0 0 0 9 8\n";
        assert_eq!(weighted_ms(stats, "vda"), 1234.0);
        assert_eq!(weighted_ms(stats, "sda"), 0.0);
        assert_eq!(stolen_ms("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1\n"), 80.0);
    }
}

//! Log lines that speak of a layer, while they are written: the kernel's own, those of files
//! that the user names, and those that pass through as OTLP.
//!
//! A thread of its own, of low priority and with a share of one processor, reads and
//! classifies; what it finds goes to the [`Board`], which counts, thins and remembers.
//! Nothing here waits for the span path or makes it wait.

pub mod board;
mod envelope;
mod files;
mod origin;
pub mod share;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

pub use self::board::{Board, LogMatch};
use self::{files::Files, share::Share};
use crate::{
    classify::{Classifier, Hit, Only},
    host::{
        identify::Identifier,
        kmsg::{Kmsg, Next},
    },
    metrics::{AgentMetrics, Reason},
    time::UnixNs,
    workload::Workload,
};

/// Between looks while there is nothing new.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Files that came or went are noticed after this long.
const DISCOVER_EVERY: Duration = Duration::from_secs(3);
/// Positions are written this often.
const REMEMBER_EVERY: Duration = Duration::from_secs(10);
/// Records of the kernel's log read at once, so that files get their turn.
const RECORDS_AT_ONCE: usize = 1000;
/// Of the thread; the applications go first.
const NICE: i32 = 10;
/// What reading may use of one processor, and as much again classifying what passes through.
pub const PROCESSOR_SHARE: f64 = 0.25;
/// The longest pause at once: within it the kernel's log has room for what comes.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What to read.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// The kernel's log.
    pub kmsg: PathBuf,
    /// Names of files, with `*`, `?` and `[...]`.
    pub globs: Vec<String>,
    /// Where positions are kept over a restart.
    pub state_dir: Option<PathBuf>,
}

/// The running thread; stops with [`Logs::stop`] or when dropped.
#[derive(Debug)]
pub struct Logs {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Logs {
    /// Starts to read.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(
        settings: LogSettings,
        identifier: Arc<Identifier>,
        board: Arc<Board>,
        metrics: AgentMetrics,
    ) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut reader = Reader {
            kmsg: open_kmsg(&settings.kmsg),
            files: Files::new(settings.globs, settings.state_dir.as_deref()),
            identifier,
            board,
            metrics,
            stop: Arc::clone(&stop),
        };
        let thread = thread::Builder::new()
            .name("isostack-logs".to_owned())
            .spawn(move || reader.run())?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Reads what is there, remembers where it is, and ends.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("The log reader did not end well");
            }
        }
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        self.stop();
    }
}

fn open_kmsg(path: &Path) -> Option<Kmsg> {
    Kmsg::open(path)
        .inspect_err(|error| {
            // In a container nobody can mend it; the sensor's state says what is lost.
            tracing::info!(path = %path.display(), %error, "The kernel's log is not read");
        })
        .ok()
}

struct Reader {
    kmsg: Option<Kmsg>,
    files: Files,
    identifier: Arc<Identifier>,
    board: Arc<Board>,
    metrics: AgentMetrics,
    stop: Arc<AtomicBool>,
}

impl Reader {
    fn run(&mut self) {
        if let Err(error) = rustix::process::setpriority_process(None, NICE) {
            tracing::debug!(%error, "The log reader keeps its ordinary priority");
        }
        let (mut discovered, mut remembered) = (None::<Instant>, Instant::now());
        let (mut share, mut used) = (Share::new(PROCESSOR_SHARE, remembered), processor_time());
        loop {
            let last = self.stop.load(Ordering::Acquire);
            let now = Instant::now();
            if discovered.is_none_or(|at| now.duration_since(at) >= DISCOVER_EVERY) {
                self.files.discover(&self.metrics);
                discovered = Some(now);
            }
            let busy = self.read_kernel() | self.files.read(&self.board, &self.metrics);
            if last || now.duration_since(remembered) >= REMEMBER_EVERY {
                self.files.remember();
                remembered = now;
            }
            if last {
                return;
            }
            let before = std::mem::replace(&mut used, processor_time());
            let now = Instant::now();
            share.pay(used.saturating_sub(before), now);
            let owed = share.wait(now).min(LONGEST_PAUSE);
            let pause = if busy { owed } else { owed.max(LOOK_EVERY) };
            if !pause.is_zero() {
                thread::park_timeout(pause);
            }
        }
    }

    /// Whether there may be more at once.
    fn read_kernel(&mut self) -> bool {
        let Some(kmsg) = &mut self.kmsg else {
            return false;
        };
        for _ in 0..RECORDS_AT_ONCE {
            match kmsg.read() {
                Ok(Next::Text(line)) => {
                    let Some(hit) = Classifier::get().classify(line, Only::default()) else {
                        continue;
                    };
                    let victim = victim(&self.identifier, hit, line);
                    self.board.take(hit, &victim, "kmsg", line, UnixNs::now());
                }
                Ok(Next::Lost) => {
                    let reason = "kernel_log_overwritten";
                    self.metrics
                        .log_lines_lost
                        .get_or_create(&Reason { reason })
                        .inc();
                }
                Ok(Next::Nothing) => return false,
                Err(error) => {
                    tracing::warn!(%error, "The kernel's log is not read any more");
                    self.kmsg = None;
                    return false;
                }
            }
        }
        true
    }
}

/// What this thread has used.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Whom a line of the kernel is about: the process or cgroup that it names; else nobody.
fn victim(identifier: &Identifier, hit: Hit, line: &[u8]) -> Workload {
    let classifier = Classifier::get();
    let text = |name| {
        let bytes = classifier.group(hit, line, name)?;
        std::str::from_utf8(bytes).ok()
    };
    let by_group = || {
        let id = identifier.cgroups().id_of(text("cgroup")?);
        (id != 0).then(|| identifier.workload_of_cgroup(id))
    };
    let by_pid = || {
        let identity = identifier.identify(text("pid")?.parse().ok()?)?;
        Some(identity.workload.clone())
    };
    by_group().or_else(by_pid).unwrap_or_default()
}

#[cfg(test)]
mod tests;

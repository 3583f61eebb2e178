//! What a flush to the store's disk costs before and while it is disturbed: the lab's own, a few a
//! second, of a file that grows, so that the file system's journal is flushed as the store's are.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Context as _;

/// Between two flushes: so few that they disturb nobody.
const PERIOD: Duration = Duration::from_millis(150);
/// Flushes before the disturbance.
const BEFORE: usize = 9;

/// Flushes beside the store's, until it is taken out.
pub struct Flushes {
    before: Duration,
    file: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Duration>>>,
}

impl Flushes {
    /// Measures a few in `dir`, which nobody disturbs yet, and goes on beside what comes.
    ///
    /// # Errors
    /// When there is no file to be written.
    pub fn start(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join("flushes");
        let mut file = File::create(&path).with_context(|| path.display().to_string())?;
        let before: std::io::Result<Vec<Duration>> =
            (0..BEFORE).map(|_| flush(&mut file)).collect();
        let before = median(before.with_context(|| path.display().to_string())?);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("flushes".to_owned())
            .spawn(move || {
                let mut took = Vec::new();
                while !stopped.load(Ordering::Relaxed) {
                    let Ok(one) = flush(&mut file) else {
                        break;
                    };
                    took.push(one);
                    thread::sleep(PERIOD);
                }
                took
            })?;
        Ok(Self {
            before,
            file: path,
            stop,
            thread: Some(thread),
        })
    }

    /// The median before, and the median since, in milliseconds.
    #[must_use]
    pub fn end(mut self) -> (f64, f64) {
        let since = median(self.join());
        (self.before.as_secs_f64() * 1e3, since.as_secs_f64() * 1e3)
    }

    fn join(&mut self) -> Vec<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take();
        // It cannot have panicked: it only writes and counts.
        thread.map_or_else(Vec::new, |thread| thread.join().unwrap_or_default())
    }
}

impl Drop for Flushes {
    fn drop(&mut self) {
        self.join();
        // The folder goes with the stage.
        let _ = fs::remove_file(&self.file);
    }
}

fn flush(file: &mut File) -> std::io::Result<Duration> {
    let began = Instant::now();
    file.write_all(&[0; 4096])?;
    file.sync_all()?;
    Ok(began.elapsed())
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or_default()
}

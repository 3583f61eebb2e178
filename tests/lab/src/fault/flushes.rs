//! What a flush to the store's disk costs while it is disturbed: the lab's own, a few a second.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::FileExt as _,
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
/// What a verdict on a wait for a disk needs at least (`docs/verdict.md`).
const NOTICEABLE: Duration = Duration::from_millis(10);

/// Flushes beside the store's, until it is taken out.
pub struct Flushes {
    file: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Duration>>>,
}

impl Flushes {
    /// Begins to write to a file in `dir`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn start(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join("flushes");
        let mut file = File::create(&path).with_context(|| path.display().to_string())?;
        file.write_all(&[0; 4096])?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("flushes".to_owned())
            .spawn(move || {
                let mut took = Vec::new();
                while !stopped.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let data = [took.len() as u8; 4096];
                    if file.write_all_at(&data, 0).is_err() || file.sync_data().is_err() {
                        break;
                    }
                    took.push(began.elapsed());
                    thread::sleep(PERIOD);
                }
                took
            })?;
        Ok(Self {
            file: path,
            stop,
            thread: Some(thread),
        })
    }

    /// How many flushes there were, and how many of them took so long that a request which waits
    /// for one is told so.
    #[must_use]
    pub fn end(mut self) -> (usize, usize) {
        let took = self.join();
        let long = took.iter().filter(|took| **took >= NOTICEABLE).count();
        (took.len(), long)
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

//! A second disk for the store, which can be made slow: a loop device on a file that the lab itself
//! serves (FUSE), from its memory, as late as it is told to. Nobody else uses it, and no limit holds
//! its I/O back: the device takes its time.

mod file;

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use harness::{guardian::Guardian, peers};

use crate::network::output;

/// Where it is mounted, below the store's folder.
pub const ARCHIVE: &str = "archive";
/// Size of the disk.
const BYTES: usize = 32 << 20;

/// Lazily: what of it is mounted in a container that is just ending goes with that.
const REMOVE: &str = r#"
umount -l "$1"
umount -l "$2"
rm -f "$2"
"#;

/// The disk; unmounted on drop and when the lab is killed.
#[derive(Debug)]
pub struct SlowDisk {
    /// Its name, e.g. `loop0`.
    pub name: String,
    delay_us: Arc<AtomicU64>,
    _guardian: Guardian,
}

/// What the kernel counted of it so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Writes and flushes.
    pub requests: u64,
    /// Milliseconds that these took, summed.
    pub ms: u64,
}

impl SlowDisk {
    /// Makes it in `dir`, and mounts it below `data`.
    ///
    /// # Errors
    /// When the kernel has no FUSE or no loop devices, or a program is missing.
    pub fn start(dir: &Path, data: &Path) -> anyhow::Result<Self> {
        for program in ["losetup", "mkfs.ext4"] {
            peers::need(program)?;
        }
        let (file, mount) = (dir.join("slow"), data.join(ARCHIVE));
        fs::create_dir_all(&mount)?;
        File::create(&file)?;
        let guardian = Guardian::new(REMOVE, &[&mount, &file]).context("cannot start sh")?;
        let delay_us = Arc::new(AtomicU64::new(0));
        file::serve(&file, BYTES, Arc::clone(&delay_us))?;
        let shown = file.display().to_string();
        let device = output(&["losetup", "--find", "--show", &shown])?;
        let device = device.trim();
        // Still open, so this only asks for it to be detached at the last close: the mount's.
        let open = File::open(device).with_context(|| device.to_owned())?;
        output(&["losetup", "-d", device])?;
        // Without a journal whoever flushes writes everything itself.
        let mut mkfs = Command::new("mkfs.ext4");
        mkfs.args(["-q", "-F", "-O", "^has_journal", "-E"]);
        mkfs.args(["nodiscard,lazy_itable_init=0", device]);
        peers::run(&mut mkfs)?;
        let place = mount.display().to_string();
        output(&["mount", "-t", "ext4", "-o", "noatime", device, &place])?;
        drop(open);
        Ok(Self {
            name: device.trim_start_matches("/dev/").to_owned(),
            delay_us,
            _guardian: guardian,
        })
    }

    /// What sets how long each write and each flush takes beside its own time, from now on.
    #[must_use]
    pub fn delay(&self) -> Delay {
        Delay(Arc::clone(&self.delay_us))
    }

    /// `/sys/block/NAME/stat`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn books(&self) -> anyhow::Result<Books> {
        let path = format!("/sys/block/{}/stat", self.name);
        let text = fs::read_to_string(&path).context(path)?;
        books(&text).with_context(|| format!("{text:?} is no account of a disk"))
    }
}

/// See [`SlowDisk::delay`].
pub struct Delay(Arc<AtomicU64>);

impl Delay {
    /// From now on so long.
    pub fn set(&self, delay: Duration) {
        let us = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.0.store(us, Ordering::Relaxed);
    }
}

/// Writes and flushes are the fifth and the sixteenth number, their milliseconds the eighth and the
/// seventeenth (Documentation/block/stat.rst).
fn books(stat: &str) -> Option<Books> {
    let numbers: Vec<u64> = stat.split_whitespace().flat_map(str::parse).collect();
    let sum = |write: usize, flush: usize| Some(numbers.get(write)? + numbers.get(flush)?);
    Some(Books {
        requests: sum(4, 15)?,
        ms: sum(7, 16)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_account() {
        let stat = "  1 2 3 4 50 6 7 800 9 10 11 0 0 0 0 6 40\n";
        let expected = Books {
            requests: 56,
            ms: 840,
        };
        assert_eq!(books(stat), Some(expected));
        assert_eq!(books("1 2 3"), None);
    }

    #[test]
    fn is_as_slow_as_it_is_told_to_be() -> anyhow::Result<()> {
        use std::io::Write as _;

        let dir = tempfile::tempdir()?;
        let disk = SlowDisk::start(dir.path(), dir.path())?;
        let mut file = File::create(dir.path().join(ARCHIVE).join("file"))?;
        let mut flush = || -> anyhow::Result<Books> {
            let before = disk.books()?;
            file.write_all(&[7; 4096])?;
            file.sync_all()?;
            let after = disk.books()?;
            Ok(Books {
                requests: after.requests - before.requests,
                ms: after.ms - before.ms,
            })
        };
        assert!(flush()?.requests > 0);
        disk.delay().set(Duration::from_millis(40));
        let slow = flush()?;
        disk.delay().set(Duration::ZERO);
        // A sleep never ends early.
        assert!(slow.ms >= 40 * slow.requests.min(2), "{slow:?}");
        drop(file);
        drop(disk);
        assert_eq!(fs::read_dir(dir.path().join(ARCHIVE))?.count(), 0);
        assert!(!dir.path().join("slow").exists());
        Ok(())
    }
}

//! Requests that the kernel's own books of a disk have and the `block` sensor has not: what
//! keeps a program from running is not always told (found on a kernel that runs none while
//! threads of process 1 are interrupted), and what is missing must be said.
//!
//! A lower bound at any moment, and exact for a disk at rest: the books are read first, and
//! the kernel enters a request in them after it has called the program.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use parking_lot::Mutex;

use crate::{
    host::roots::Roots,
    metrics::{AgentMetrics, Sensor as SensorLabel},
};

/// A request's way from the program into the books, generously.
const ENTERED: Duration = Duration::from_millis(10);
/// Disks looked at; on a host with more the rest is not checked.
const MAX_DISKS: usize = 1024;

/// Requests completed since some moment, by disk: major number * 2^20 + minor.
pub type Completions = HashMap<u32, u64>;

/// Compares both accounts.
pub struct Unseen {
    /// `/sys/block`
    disks: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    disks: BTreeMap<u32, Account>,
    /// What was missing of disks that are gone.
    gone: u64,
}

/// What one disk began with, and the most that was missing since.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Account {
    books: u64,
    seen: u64,
    missing: u64,
}

impl Account {
    /// Takes both accounts of now, the books the older ones; false if they have begun anew.
    fn settle(&mut self, books: u64, seen: u64) -> bool {
        let (Some(entered), Some(counted)) =
            (books.checked_sub(self.books), seen.checked_sub(self.seen))
        else {
            return false;
        };
        self.missing = self.missing.max(entered.saturating_sub(counted));
        true
    }
}

impl Unseen {
    /// Reads `block` under sysfs.
    pub fn new(roots: &Roots) -> Self {
        Self {
            disks: roots.sysfs.join("block"),
            inner: Mutex::default(),
        }
    }

    /// Adds what neither `seen` nor the losses counted so far account for to the lost events
    /// of the sensor. A disk that is new is looked at from now on.
    pub fn count(&self, seen: impl Fn() -> Completions, metrics: &AgentMetrics) {
        let inner = &mut *self.inner.lock();
        let books = self.books();
        let now = seen();
        let of = |seen: &Completions, disk| seen.get(&disk).copied().unwrap_or(0);
        inner.disks.retain(|disk, account| {
            let entered = books.get(disk);
            let kept = entered.is_some_and(|&entered| account.settle(entered, of(&now, *disk)));
            inner.gone += if kept { 0 } else { account.missing };
            kept
        });
        if books.keys().any(|disk| !inner.disks.contains_key(disk)) {
            // The other way round: what is only in the books by now is in the beginning.
            thread::sleep(ENTERED);
            for (disk, books) in self.books() {
                let seen = of(&now, disk);
                inner.disks.entry(disk).or_insert(Account {
                    books,
                    seen,
                    missing: 0,
                });
            }
        }
        let missing = inner.disks.values().map(|account| account.missing);
        let missing = inner.gone + missing.sum::<u64>();
        let label = SensorLabel { sensor: "block" };
        let lost = metrics.events_lost.get_or_create(&label);
        lost.inc_by(missing.saturating_sub(lost.get()));
    }

    /// Of the disks that are made of requests: the others' I/O meets no program.
    fn books(&self) -> Completions {
        let entries = fs::read_dir(&self.disks).into_iter().flatten().flatten();
        entries
            .take(MAX_DISKS)
            .map(|entry| entry.path())
            .filter(|disk| disk.join("mq").is_dir())
            .filter_map(|disk| Some((number(&disk)?, completed(&disk)?)))
            .collect()
    }
}

/// `dev`: `254:0`
fn number(disk: &Path) -> Option<u32> {
    let text = fs::read_to_string(disk.join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some(major.parse::<u32>().ok()? << 20 | minor.parse::<u32>().ok()? & 0xf_ffff)
}

/// kernel: Documentation/block/stat.rst: reads, writes and discards; a flush that somebody
/// asked for is a write, and the disk's own is not the sensor's.
fn completed(disk: &Path) -> Option<u64> {
    let text = fs::read_to_string(disk.join("stat")).ok()?;
    let numbers: Vec<u64> = text.split_whitespace().flat_map(str::parse).collect();
    let discards = numbers.get(11).copied().unwrap_or(0);
    Some(numbers.first()? + numbers.get(4)? + discards)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with its books.
    fn disk(root: &Path, name: &str, dev: &str, [reads, writes, discards]: [u64; 3]) {
        let dir = root.join("block").join(name);
        fs::create_dir_all(dir.join("mq/0")).unwrap();
        fs::write(dir.join("dev"), format!("{dev}\n")).unwrap();
        let stat = format!("  {reads} 0 9 9 {writes} 9 9 9 0 9 9 {discards} 0 9 9 77 9\n");
        fs::write(dir.join("stat"), stat).unwrap();
    }

    #[test]
    fn what_only_the_books_have_is_lost_once() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots {
            sysfs: dir.path().to_owned(),
            ..Roots::default()
        };
        let (unseen, metrics) = (Unseen::new(&roots), AgentMetrics::default());
        let lost = || {
            let label = SensorLabel { sensor: "block" };
            metrics.events_lost.get_or_create(&label).get()
        };
        let look = |seen: u64| unseen.count(|| [(254 << 20, seen)].into(), &metrics);

        disk(dir.path(), "vda", "254:0", [100, 50, 5]);
        look(7); // what came before is nobody's loss
        assert_eq!(lost(), 0);
        disk(dir.path(), "vda", "254:0", [110, 60, 10]);
        look(32);
        assert_eq!(lost(), 0, "25 in the books, 25 seen");
        disk(dir.path(), "vda", "254:0", [120, 60, 10]);
        look(39);
        look(39);
        assert_eq!(lost(), 3, "35 in the books, 32 seen");
        // What the kernel or the program itself counted by then is not counted again.
        let label = SensorLabel { sensor: "block" };
        metrics.events_lost.get_or_create(&label).inc_by(2);
        disk(dir.path(), "vda", "254:0", [122, 60, 10]);
        look(39);
        assert_eq!(lost(), 5);
        // Another disk under the same number.
        disk(dir.path(), "vda", "254:0", [1, 0, 0]);
        look(39);
        disk(dir.path(), "vda", "254:0", [2, 0, 0]);
        look(40);
        assert_eq!(lost(), 5);
    }

    #[test]
    fn a_disk_that_is_not_made_of_requests_is_not_compared() {
        let dir = tempfile::tempdir().unwrap();
        disk(dir.path(), "dm-0", "253:0", [100, 50, 5]);
        fs::remove_dir_all(dir.path().join("block/dm-0/mq")).unwrap();
        let roots = Roots {
            sysfs: dir.path().to_owned(),
            ..Roots::default()
        };
        assert!(Unseen::new(&roots).books().is_empty());
    }
}

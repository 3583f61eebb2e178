//! Cgroup id to path: what a walk of the hierarchy found, and what is remembered of groups
//! that went away.

mod walk;

use std::{
    collections::HashMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;

use self::walk::Found;

/// Groups found by one walk, at most.
const MAX_GROUPS: usize = 65_536;
/// Groups remembered after a walk that did not find them, at most.
const MAX_GONE: usize = MAX_GROUPS / 2;
/// Groups known at any time, at most: between two walks some come by themselves.
const MAX_KNOWN: usize = 2 * MAX_GROUPS;
/// A miss walks the hierarchy at most this often.
const WALK_INTERVAL: Duration = Duration::from_secs(1);
/// Walks take at most one part in so many of the time.
const WALK_SHARE: u32 = 20;
/// A group that is gone is remembered for this long after it was last seen.
const GRACE: Duration = Duration::from_secs(600);

#[derive(Debug, Default)]
pub(super) struct Index {
    known: Mutex<HashMap<u64, (Arc<str>, Instant)>>,
    /// Held during a walk: who asks for what is known does not wait for it.
    walks: Mutex<Walks>,
    /// Groups that were not kept.
    pub left_out: Counter,
}

#[derive(Debug, Default)]
struct Walks {
    last: Option<Instant>,
    /// How long it took.
    took: Duration,
}

impl Index {
    pub fn insert(&self, id: u64, path: &str, now: Instant) {
        let mut known = self.known.lock();
        if known.len() >= MAX_KNOWN && !known.contains_key(&id) {
            self.left_out.inc();
            return;
        }
        see(&mut known, id, path, now);
    }

    /// The path, if it was seen; nothing is looked for.
    pub fn known(&self, id: u64) -> Option<Arc<str>> {
        let known = self.known.lock();
        known.get(&id).map(|(path, _)| path.clone())
    }

    pub fn remove(&self, id: u64) {
        self.known.lock().remove(&id);
    }

    pub fn path(&self, id: u64, mount: &Path, now: Instant) -> Option<Arc<str>> {
        self.known(id).or_else(|| {
            self.walk_if_due(mount, now);
            self.known(id)
        })
    }

    pub fn all(&self, mount: &Path, now: Instant) -> Vec<(u64, Arc<str>)> {
        self.walk_if_due(mount, now);
        let known = self.known.lock();
        let groups = known.iter();
        groups.map(|(id, (path, _))| (*id, path.clone())).collect()
    }

    fn walk_if_due(&self, mount: &Path, now: Instant) {
        let mut walks = self.walks.lock();
        if !walks.are_due(now) {
            return;
        }
        let began = Instant::now();
        let found = walk::walk(mount, MAX_GROUPS);
        walks.last = Some(now);
        walks.took = began.elapsed();
        self.left_out.inc_by(found.left_out as u64);
        self.take(found, now);
    }

    fn take(&self, found: Found, now: Instant) {
        let mut known = self.known.lock();
        for (id, path) in found.groups {
            see(&mut known, id, &path, now);
        }
        known.retain(|_, (_, seen)| now.saturating_duration_since(*seen) < GRACE);
        let mut gone: Vec<(Instant, u64)> = known
            .iter()
            .filter(|(_, (_, seen))| *seen < now)
            .map(|(id, (_, seen))| (*seen, *id))
            .collect();
        if gone.len() > MAX_GONE {
            gone.sort_unstable();
            gone.truncate(gone.len() - MAX_GONE);
            for (_, id) in &gone {
                known.remove(id);
            }
            self.left_out.inc_by(gone.len() as u64);
        }
    }
}

impl Walks {
    fn are_due(&self, now: Instant) -> bool {
        let pause = WALK_INTERVAL.max(self.took * WALK_SHARE);
        self.last
            .is_none_or(|last| now.saturating_duration_since(last) >= pause)
    }
}

fn see(known: &mut HashMap<u64, (Arc<str>, Instant)>, id: u64, path: &str, now: Instant) {
    match known.get_mut(&id) {
        Some((kept, seen)) => {
            *seen = now;
            if **kept != *path {
                *kept = path.into();
            }
        }
        None => {
            known.insert(id, (path.into(), now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_lives_fill_no_memory_and_push_out_nobody_who_lives() {
        let index = Index::default();
        let start = Instant::now();
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("lives")).unwrap();
        let lives = super::super::inode(&dir.path().join("lives")).unwrap();
        for id in 1..=3 * MAX_GROUPS as u64 {
            index.insert(u64::MAX - id, "/brief", start);
        }
        assert_eq!(index.known.lock().len(), MAX_KNOWN);
        assert_eq!(index.left_out.get(), MAX_GROUPS as u64);
        let later = start + WALK_INTERVAL;
        let path = index.path(lives, dir.path(), later);
        assert_eq!(path.as_deref(), Some("/lives"));
        assert!(index.known.lock().len() <= MAX_GONE + 2);
        assert_eq!(index.left_out.get(), (3 * MAX_GROUPS - MAX_GONE) as u64);
        index.insert(7, "/new", later);
        assert!(index.known(7).is_some(), "there is room");
    }

    #[test]
    fn a_slow_walk_is_not_made_each_second() {
        let now = Instant::now();
        let walks = |took| Walks {
            last: Some(now),
            took,
        };
        let after = |seconds| now + Duration::from_secs(seconds);
        let quick = walks(Duration::from_millis(5));
        assert!(!quick.are_due(now) && quick.are_due(after(1)));
        let slow = walks(Duration::from_millis(500));
        assert!(!slow.are_due(after(9)) && slow.are_due(after(10)));
        assert!(Walks::default().are_due(now));
    }
}

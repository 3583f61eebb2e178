//! Cgroup id to path: what a walk of the hierarchy found, and what is remembered of groups
//! that went away.

use std::{
    collections::HashMap,
    os::unix::fs::DirEntryExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Directories visited by one walk, and ids kept, at most.
const MAX_GROUPS: usize = 65_536;
/// Deepest directory visited.
const MAX_DEPTH: usize = 64;
/// A miss walks the hierarchy at most this often.
const WALK_INTERVAL: Duration = Duration::from_secs(1);
/// A group that is gone is remembered for this long after it was last seen.
const GRACE: Duration = Duration::from_secs(600);

#[derive(Debug, Default)]
pub(super) struct Index {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    groups: HashMap<u64, (Arc<str>, Instant)>,
    walked: Option<Instant>,
}

impl Index {
    pub fn insert(&self, id: u64, path: &str, now: Instant) {
        self.inner.lock().insert(id, path, now);
    }

    /// The path, if it was seen; nothing is looked for.
    pub fn known(&self, id: u64) -> Option<Arc<str>> {
        let inner = self.inner.lock();
        inner.groups.get(&id).map(|(path, _)| path.clone())
    }

    pub fn remove(&self, id: u64) {
        self.inner.lock().groups.remove(&id);
    }

    pub fn path(&self, id: u64, mount: &Path, now: Instant) -> Option<Arc<str>> {
        let mut inner = self.inner.lock();
        if let Some((path, _)) = inner.groups.get(&id) {
            return Some(path.clone());
        }
        inner.walk_if_due(mount, now);
        inner.groups.get(&id).map(|(path, _)| path.clone())
    }

    pub fn all(&self, mount: &Path, now: Instant) -> Vec<(u64, Arc<str>)> {
        let mut inner = self.inner.lock();
        inner.walk_if_due(mount, now);
        let groups = inner.groups.iter();
        groups.map(|(id, (path, _))| (*id, path.clone())).collect()
    }
}

impl Inner {
    fn insert(&mut self, id: u64, path: &str, now: Instant) {
        if let Some((known, seen)) = self.groups.get_mut(&id) {
            *seen = now;
            if **known != *path {
                *known = path.into();
            }
        } else if self.groups.len() < MAX_GROUPS {
            self.groups.insert(id, (path.into(), now));
        }
    }

    fn walk_if_due(&mut self, mount: &Path, now: Instant) {
        let due = self
            .walked
            .is_none_or(|walked| now.saturating_duration_since(walked) >= WALK_INTERVAL);
        if !due {
            return;
        }
        self.walked = Some(now);
        self.groups
            .retain(|_, (_, seen)| now.saturating_duration_since(*seen) < GRACE);
        if let Some(root) = super::inode(mount) {
            self.insert(root, "/", now);
        }
        let mut budget = MAX_GROUPS;
        self.walk(mount, "", 0, &mut budget, now);
    }

    fn walk(&mut self, dir: &Path, path: &str, depth: usize, budget: &mut usize, now: Instant) {
        let Ok(entries) = std::fs::read_dir(dir) else {
            return;
        };
        for entry in entries.flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if *budget == 0 || depth == MAX_DEPTH {
                return;
            }
            *budget -= 1;
            let path = format!("{path}/{}", entry.file_name().to_string_lossy());
            self.insert(entry.ino(), &path, now);
            self.walk(&entry.path(), &path, depth + 1, budget, now);
        }
    }
}

//! Cgroups as the CPU controller has them: a process's path and id, an id's path, and the
//! quota that holds a group back.
//!
//! The id of a cgroup is the inode of its directory in the hierarchy that the CPU controller
//! is on (v1 `cpu`, else v2): the number that the kernel side reads from `kernfs_node.id`.

mod index;
mod layout;
mod memory;
mod quota;
#[cfg(test)]
mod tests;
mod twins;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Instant,
};

use prometheus_client::metrics::counter::Counter;

pub use self::{
    layout::{Layout, Version},
    twins::Twins,
};

use self::{
    index::Index,
    memory::{MemoryLimits, Nearest},
    quota::Quotas,
};
use crate::{
    event::{Limiter, MemoryLimit},
    host::{
        proc::{CgroupLine, ProcDir, own_pid, read_bounded},
        roots::Roots,
    },
};

/// Part of a memory limit from which on it presses.
const PRESSING: f64 = 0.9;

/// The cgroups of this host. Thread-safe; every look-up is bounded and cached.
#[derive(Debug)]
pub struct Cgroups {
    roots: Roots,
    layout: Option<Layout>,
    /// Root of the agent's cgroup namespace as a path of the hierarchy; found when needed.
    namespace_root: OnceLock<String>,
    index: Index,
    quotas: Quotas,
    memory: Option<MemoryLimits>,
}

impl Cgroups {
    /// Looks at the mounts; nothing else is read yet.
    #[must_use]
    pub fn new(roots: &Roots) -> Self {
        let layout = Layout::detect(&roots.cgroupfs);
        let memory = layout.as_ref();
        Self {
            memory: memory.and_then(|layout| MemoryLimits::new(roots, layout)),
            layout,
            roots: roots.clone(),
            namespace_root: OnceLock::new(),
            index: Index::default(),
            quotas: Quotas::default(),
        }
    }

    /// The same; groups that are too many to be known are counted here.
    #[must_use]
    pub fn counting(mut self, left_out: Counter) -> Self {
        self.index.left_out = left_out;
        self
    }

    /// Where the CPU controller is; `None` when no cgroup file system is mounted at the root.
    #[must_use]
    pub fn layout(&self) -> Option<&Layout> {
        self.layout.as_ref()
    }

    /// The path, in the CPU controller's hierarchy and from its real root, of the process
    /// that these lines of `/proc/PID/cgroup` belong to; `/` when none applies.
    #[must_use]
    pub fn path_of(&self, lines: &[CgroupLine]) -> String {
        let line = match self.layout.as_ref().map(|layout| layout.version) {
            Some(Version::V2) => lines.iter().find(|l| l.hierarchy == 0),
            // Without a mount, the busiest hierarchy of a frozen tree is the best there is.
            Some(Version::V1) | None => lines
                .iter()
                .find(|l| l.has_controller("cpu"))
                .or_else(|| lines.iter().find(|l| l.hierarchy == 0)),
        };
        line.map_or_else(|| "/".to_owned(), |line| self.absolute(&line.path))
    }

    /// Inode of the directory of a path; 0 when it is gone or not visible from here.
    #[must_use]
    pub fn id_of(&self, path: &str) -> u64 {
        let id = self
            .directory(path)
            .and_then(|dir| inode(&dir))
            .unwrap_or(0);
        if id != 0 {
            self.index.insert(id, path, Instant::now());
        }
        id
    }

    /// Owner of the directory of a path: who may make groups in it.
    #[must_use]
    pub fn owner_of(&self, path: &str) -> Option<u32> {
        use std::os::unix::fs::MetadataExt;
        let directory = self.directory(path)?;
        Some(std::fs::metadata(directory).ok()?.uid())
    }

    /// What a look at the process of a group that was given a gone one's id finds.
    #[cfg(test)]
    pub(in crate::host) fn remember(&self, id: u64, path: &str) {
        self.index.insert(id, path, Instant::now());
    }

    /// Path of a cgroup by id. A miss walks the hierarchy, at most once a second and seldomer where
    /// that takes long; a removed cgroup is remembered for a while, as events of it may still be
    /// under way.
    #[must_use]
    pub fn path_by_id(&self, id: u64) -> Option<Arc<str>> {
        let layout = self.layout.as_ref()?;
        self.index.path(id, &layout.cpu, Instant::now())
    }

    /// Whether a cgroup of this id was seen.
    #[must_use]
    pub fn knows(&self, id: u64) -> bool {
        self.index.known(id).is_some()
    }

    /// Forgets a cgroup, unless it is there (again). Returns whether it is not.
    pub fn forget_if_gone(&self, id: u64) -> bool {
        let path = self.index.known(id);
        let there = path.as_deref().and_then(|path| self.directory(path));
        let gone = there.and_then(|dir| inode(&dir)) != Some(id);
        if gone {
            self.index.remove(id);
        }
        gone
    }

    /// Every cgroup known, as `(id, path)`, after a walk if the last is older than a second.
    #[must_use]
    pub fn all(&self) -> Vec<(u64, Arc<str>)> {
        self.layout.as_ref().map_or_else(Vec::new, |layout| {
            self.index.all(&layout.cpu, Instant::now())
        })
    }

    /// Processes directly in the cgroup, as the agent's pid namespace numbers them; at most
    /// about 20 000.
    #[must_use]
    pub fn processes(&self, path: &str) -> Vec<u32> {
        self.directory(path)
            .and_then(|dir| read_bounded(&dir.join("cgroup.procs"), 128 * 1024).ok())
            .map(|bytes| {
                let text = String::from_utf8_lossy(&bytes);
                text.lines()
                    .flat_map(str::parse)
                    .filter(|pid| *pid != 0)
                    .collect()
            })
            .unwrap_or_default()
    }

    /// The group whose quota holds `cgroup_id` back: the one that the kernel named
    /// (`hint != 0`), else the only limited one among it and its ancestors, else the one
    /// whose throttled time grew last.
    #[must_use]
    pub fn limiter(&self, cgroup_id: u64, hint: u64) -> Option<Arc<Limiter>> {
        self.limiter_at(cgroup_id, hint, Instant::now())
    }

    /// [`Cgroups::limiter`] at a given time.
    #[must_use]
    pub fn limiter_at(&self, cgroup_id: u64, hint: u64, now: Instant) -> Option<Arc<Limiter>> {
        let layout = self.layout.as_ref()?;
        let path = self.index.path(cgroup_id, &layout.cpu, now)?;
        let hinted = match hint {
            0 => None,
            hint if hint == cgroup_id => Some(path.clone()),
            hint => self.index.path(hint, &layout.cpu, now),
        };
        self.quotas.limiter(layout, &path, hinted.as_deref(), now)
    }

    /// The memory limit that `cgroup_id` is nearest to: its own or an ancestor's.
    #[must_use]
    pub fn memory_limit(&self, cgroup_id: u64) -> Option<Arc<MemoryLimit>> {
        Some(self.nearest_memory_limit(cgroup_id)?.limit)
    }

    /// The same, if it is all but used up: then what a process had in memory may have been pushed
    /// out for it.
    #[must_use]
    pub fn pressing_memory_limit(&self, cgroup_id: u64) -> Option<Arc<MemoryLimit>> {
        let nearest = self.nearest_memory_limit(cgroup_id)?;
        (nearest.fill >= PRESSING).then_some(nearest.limit)
    }

    fn nearest_memory_limit(&self, cgroup_id: u64) -> Option<Nearest> {
        let layout = self.layout.as_ref()?;
        let now = Instant::now();
        let path = self.index.path(cgroup_id, &layout.cpu, now)?;
        self.memory.as_ref()?.nearest(&path, now)
    }

    fn directory(&self, path: &str) -> Option<PathBuf> {
        Some(self.layout.as_ref()?.directory(path))
    }

    /// A path that the reader's cgroup namespace made relative (`/../../kubepods/...`), from
    /// the hierarchy's root.
    fn absolute(&self, path: &str) -> String {
        let root = if path.starts_with("/..") {
            self.namespace_root
                .get_or_init(|| self.find_namespace_root())
        } else {
            // Below the namespace's root, or no namespace: known only once it was needed.
            match self.namespace_root.get() {
                Some(root) => root,
                None if self.in_namespace() => self
                    .namespace_root
                    .get_or_init(|| self.find_namespace_root()),
                None => return path.to_owned(),
            }
        };
        resolve(root, path)
    }

    /// Whether the agent has a cgroup namespace of its own: then pid 1, in another branch,
    /// shows up as `/../..`.
    fn in_namespace(&self) -> bool {
        let mut outside = ProcDir::new(&self.roots, 1)
            .cgroups()
            .is_ok_and(|lines| lines.iter().any(|line| line.path.starts_with("/..")));
        outside &= self.layout.is_some();
        if !outside {
            let _ = self.namespace_root.set("/".to_owned());
        }
        outside
    }

    /// The agent's own absolute path, by finding its pid in a `cgroup.procs`, minus what
    /// its namespace shows of it. `/` when it cannot be found: leading `..` are then dropped.
    fn find_namespace_root(&self) -> String {
        let root = "/".to_owned();
        let (Some(layout), Some(pid)) = (&self.layout, own_pid(&self.roots)) else {
            return root;
        };
        let Ok(lines) = ProcDir::new(&self.roots, pid).cgroups() else {
            return root;
        };
        let shown = match layout.version {
            Version::V1 => lines.iter().find(|l| l.has_controller("cpu")),
            Version::V2 => lines.iter().find(|l| l.hierarchy == 0),
        };
        let shown = shown.map_or("/", |line| &line.path);
        // cgroup.procs numbers processes as the reader's pid namespace does, not as procfs.
        let me = std::process::id();
        self.all()
            .into_iter()
            .find(|(_, path)| self.processes(path).contains(&me))
            .and_then(|(_, path)| {
                path.strip_suffix(shown.trim_end_matches('/'))
                    .map(str::to_owned)
            })
            .filter(|path| !path.is_empty())
            .unwrap_or(root)
    }
}

/// Joins a namespace's root and a path seen in it, taking `..` away textually.
fn resolve(root: &str, path: &str) -> String {
    let mut parts: Vec<&str> = root.split('/').filter(|p| !p.is_empty()).collect();
    for part in path.split('/').filter(|p| !p.is_empty()) {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    format!("/{}", parts.join("/"))
}

fn inode(dir: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(dir).ok()?;
    metadata.is_dir().then(|| metadata.ino())
}

//! Whose memory limit a cgroup runs into.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{Layout, Version, layout::mount_of};
use crate::{
    event::MemoryLimit,
    host::{proc::read_bounded, roots::Roots},
};

/// What was found is looked up again after this long: reclaim comes in bursts.
const LIFETIME: Duration = Duration::from_millis(100);
/// Groups remembered; when full, everything is forgotten and read anew.
const MAX_GROUPS: usize = 4096;

/// The memory limits of this host's cgroups.
#[derive(Debug)]
pub(super) struct MemoryLimits {
    /// Where the memory controller is, and of which version.
    mount: PathBuf,
    version: Version,
    known: Mutex<HashMap<String, Known>>,
}

/// What was found, and when.
type Known = (Option<Nearest>, Instant);

/// The limit that a group is nearest to.
#[derive(Clone, Debug)]
pub(super) struct Nearest {
    pub limit: Arc<MemoryLimit>,
    /// Use over limit.
    pub fill: f64,
}

/// One limit of one group.
struct Candidate {
    file: &'static str,
    bytes: u64,
    /// Use over limit.
    fill: f64,
}

impl MemoryLimits {
    /// Looks at the mounts; `None` where no memory controller is to be found.
    pub fn new(roots: &Roots, layout: &Layout) -> Option<Self> {
        let (mount, version) = match mount_of(&roots.cgroupfs, "memory") {
            Some(mount) => (mount, Version::V1),
            None if layout.version == Version::V2 => (layout.cpu.clone(), Version::V2),
            None => (roots.cgroupfs.join("unified"), Version::V2),
        };
        mount.is_dir().then(|| Self {
            mount,
            version,
            known: Mutex::default(),
        })
    }

    /// The limit that the group of this path is nearest to: its own or an ancestor's.
    pub fn nearest(&self, path: &str, now: Instant) -> Option<Nearest> {
        let mut known = self.known.lock();
        if let Some((limit, read_at)) = known.get(path)
            && now.saturating_duration_since(*read_at) < LIFETIME
        {
            return limit.clone();
        }
        let limit = self.read(path);
        if known.len() >= MAX_GROUPS {
            known.clear();
        }
        known.insert(path.to_owned(), (limit.clone(), now));
        limit
    }

    fn read(&self, path: &str) -> Option<Nearest> {
        let ancestors = Path::new(path).ancestors().filter_map(Path::to_str);
        let mut best: Option<(Candidate, &str)> = None;
        for ancestor in ancestors.filter(|ancestor| *ancestor != "/") {
            let mut directory = self.mount.clone();
            directory.extend(ancestor.split('/').filter(|part| !part.is_empty()));
            for candidate in self.limits(&directory) {
                // Of equals the innermost: it comes first.
                let better = best
                    .as_ref()
                    .is_none_or(|(best, _)| candidate.fill > best.fill);
                if better {
                    best = Some((candidate, ancestor));
                }
            }
        }
        best.map(|(limit, at)| Nearest {
            limit: Arc::new(MemoryLimit {
                cgroup_path: at.to_owned(),
                bytes: limit.bytes,
                file: limit.file,
                is_ancestor: at != path,
            }),
            fill: limit.fill,
        })
    }

    fn limits(&self, directory: &Path) -> Vec<Candidate> {
        let number = |file: &str| -> Option<u64> {
            let bytes = read_bounded(&directory.join(file), 64).ok()?;
            std::str::from_utf8(&bytes).ok()?.trim().parse().ok()
        };
        let (usage, limits): (_, &[&str]) = match self.version {
            Version::V1 => ("memory.usage_in_bytes", &["memory.limit_in_bytes"]),
            Version::V2 => ("memory.current", &["memory.max", "memory.high"]),
        };
        let Some(used) = number(usage) else {
            return Vec::new();
        };
        let limits = limits.iter().filter_map(|file| {
            // `max` is no number; version 1 writes the largest number of pages instead.
            let bytes = number(file).filter(|bytes| *bytes < u64::MAX / 4)?;
            Some(Candidate {
                file,
                bytes,
                fill: used as f64 / bytes.max(1) as f64,
            })
        });
        limits.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn limits(root: &Path) -> MemoryLimits {
        let roots = Roots {
            cgroupfs: root.to_owned(),
            ..Roots::default()
        };
        MemoryLimits::new(&roots, &Layout::detect(root).unwrap()).unwrap()
    }

    fn write(dir: PathBuf, files: &[(&str, &str)]) {
        fs::create_dir_all(&dir).unwrap();
        for (file, text) in files {
            fs::write(dir.join(file), format!("{text}\n")).unwrap();
        }
    }

    #[test]
    fn the_fullest_limit_on_the_way_up_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cgroup.controllers"), "cpu memory\n").unwrap();
        let pod = dir.path().join("pod");
        write(
            pod.clone(),
            &[
                ("memory.current", "990"),
                ("memory.max", "1000"),
                ("memory.high", "max"),
            ],
        );
        let own = [
            ("memory.current", "500"),
            ("memory.max", "2000"),
            ("memory.high", "800"),
        ];
        write(pod.join("c1"), &own);
        let limits = limits(dir.path());
        let start = Instant::now();
        let Nearest { limit, fill } = limits.nearest("/pod/c1", start).unwrap();
        assert!((0.98..1.0).contains(&fill), "{fill}");
        let expected = MemoryLimit {
            cgroup_path: "/pod".to_owned(),
            bytes: 1000,
            file: "memory.max",
            is_ancestor: true,
        };
        assert_eq!(*limit, expected);
        write(pod.join("c1"), &[("memory.current", "801")]);
        assert_eq!(
            *limits.nearest("/pod/c1", start).unwrap().limit,
            expected,
            "fresh"
        );
        let own = limits.nearest("/pod/c1", start + LIFETIME).unwrap().limit;
        assert_eq!(
            (own.file, own.bytes, own.is_ancestor),
            ("memory.high", 800, false)
        );
        assert!(limits.nearest("/no/such", start).is_none());
    }

    #[test]
    fn the_largest_number_of_version_1_is_no_limit() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("cpu")).unwrap();
        let group = dir.path().join("memory/a/b");
        let files = [
            ("memory.usage_in_bytes", "4096"),
            ("memory.limit_in_bytes", "9223372036854771712"),
        ];
        write(group, &files);
        let limits = limits(dir.path());
        assert!(limits.nearest("/a/b", Instant::now()).is_none());
    }
}

//! A cgroup of another hierarchy as the CPU controller's hierarchy has it: with version 1
//! each controller may have a hierarchy of its own, and a container has the same path in all.

use std::{
    collections::HashMap,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Instant,
};

use parking_lot::Mutex;

use super::{Layout, index::Index, inode, layout::mount_of};
use crate::host::roots::Roots;

/// Pairs remembered; when full, all are looked up again.
const MAX_PAIRS: usize = 16_384;

/// From ids of one controller's hierarchy to ids of the CPU controller's.
pub struct Twins {
    mount: PathBuf,
    index: Index,
    cpu: Layout,
    /// Kept while a group's last events are under way.
    pairs: Mutex<HashMap<u64, u64>>,
}

impl Twins {
    /// Of a controller by its name in version 1; `None` where it shares the CPU controller's
    /// hierarchy, or there is none.
    #[must_use]
    pub fn of_controller(roots: &Roots, controller: &str) -> Option<Self> {
        let cpu = Layout::detect(&roots.cgroupfs)?;
        let unified = || Some(roots.cgroupfs.join("unified")).filter(|path| path.is_dir());
        let mount = mount_of(&roots.cgroupfs, controller).or_else(unified)?;
        // A mount may have several names.
        let identity = |path: &Path| std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
        (identity(&mount) != identity(&cpu.cpu)).then(|| Self {
            mount,
            index: Index::default(),
            cpu,
            pairs: Mutex::default(),
        })
    }

    /// The id of the same path, or of the nearest part of it that exists, in the CPU
    /// controller's hierarchy; `None` where the group is not known.
    #[must_use]
    pub fn cpu_id(&self, id: u64) -> Option<u64> {
        let mut pairs = self.pairs.lock();
        if let Some(pair) = pairs.get(&id) {
            return Some(*pair);
        }
        let path = self.index.path(id, &self.mount, Instant::now())?;
        let ancestors = Path::new(&*path).ancestors();
        let cpu_id = ancestors
            .filter_map(Path::to_str)
            .find_map(|path| inode(&self.cpu.directory(path)))?;
        if pairs.len() >= MAX_PAIRS {
            pairs.clear();
        }
        pairs.insert(id, cpu_id);
        Some(cpu_id)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn roots(cgroupfs: &Path) -> Roots {
        Roots {
            cgroupfs: cgroupfs.to_owned(),
            ..Roots::default()
        }
    }

    #[test]
    fn the_same_path_in_the_other_hierarchy() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["cpu,cpuacct/pod/c1", "blkio/pod/c1", "blkio/pod/only-here"] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        let twins = Twins::of_controller(&roots(dir.path()), "blkio").unwrap();
        let id = |path: &str| inode(&dir.path().join(path)).unwrap();
        assert_eq!(
            twins.cpu_id(id("blkio/pod/c1")),
            Some(id("cpu,cpuacct/pod/c1"))
        );
        let nearest = twins.cpu_id(id("blkio/pod/only-here"));
        assert_eq!(nearest, Some(id("cpu,cpuacct/pod")));
        assert_eq!(twins.cpu_id(id("blkio")), Some(id("cpu,cpuacct")));
        assert_eq!(twins.cpu_id(u64::MAX), None);
        let gone = id("blkio/pod/c1");
        let known = twins.cpu_id(gone);
        fs::remove_dir_all(dir.path().join("blkio/pod/c1")).unwrap();
        assert_eq!(twins.cpu_id(gone), known, "its last events are under way");
    }

    #[test]
    fn one_hierarchy_needs_no_translation() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cgroup.controllers"), "cpu io\n").unwrap();
        assert!(Twins::of_controller(&roots(dir.path()), "blkio").is_none());
        let shared = tempfile::tempdir().unwrap();
        fs::create_dir_all(shared.path().join("blkio,cpu")).unwrap();
        assert!(Twins::of_controller(&roots(shared.path()), "blkio").is_none());
    }
}

//! Where the CPU controller is: v1, v2 or both mounted ("hybrid").

use std::path::{Path, PathBuf};

/// Generation of the hierarchy that the CPU controller is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A v1 hierarchy, `cpu` or `cpu,cpuacct`.
    V1,
    /// The unified hierarchy.
    V2,
}

/// The hierarchy with the CPU controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Its generation.
    pub version: Version,
    /// Where it is mounted.
    pub cpu: PathBuf,
}

impl Layout {
    /// Looks below `cgroupfs` by names alone, so that a frozen tree works too.
    #[must_use]
    pub fn detect(cgroupfs: &Path) -> Option<Self> {
        if cgroupfs.join("cgroup.controllers").exists() {
            return Some(Self {
                version: Version::V2,
                cpu: cgroupfs.to_owned(),
            });
        }
        if let Some(cpu) = mount_of(cgroupfs, "cpu") {
            return Some(Self {
                version: Version::V1,
                cpu,
            });
        }
        let unified = cgroupfs.join("unified");
        unified.join("cgroup.controllers").exists().then_some(Self {
            version: Version::V2,
            cpu: unified,
        })
    }

    /// The directory of a path of this hierarchy; `..` in it is not followed.
    #[must_use]
    pub fn directory(&self, path: &str) -> PathBuf {
        let mut dir = self.cpu.clone();
        dir.extend(
            path.split('/')
                .filter(|part| !matches!(*part, "" | "." | "..")),
        );
        dir
    }
}

/// The version 1 mount of a controller, which may share it with others.
pub fn mount_of(cgroupfs: &Path, controller: &str) -> Option<PathBuf> {
    let mut mounts: Vec<PathBuf> = std::fs::read_dir(cgroupfs)
        .ok()?
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.split(',').any(|word| word == controller)
        })
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    // `cpu` may be a symbolic link to `cpu,cpuacct`; either will do, the same each time.
    mounts.sort();
    mounts.into_iter().next()
}

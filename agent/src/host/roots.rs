//! Where `/proc`, `/sys` and the cgroup file system are: a container sees the host's
//! through mounts, and a test gives frozen ones.

use std::path::{Path, PathBuf};

/// The three roots; see `--procfs`, `--sysfs`, `--cgroupfs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// Default `/proc`.
    pub procfs: PathBuf,
    /// Default `/sys`.
    pub sysfs: PathBuf,
    /// Default `/sys/fs/cgroup`.
    pub cgroupfs: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self {
            procfs: "/proc".into(),
            sysfs: "/sys".into(),
            cgroupfs: "/sys/fs/cgroup".into(),
        }
    }
}

impl Roots {
    /// The first that was given (is not the usual one) and is no folder, with its key: a mount that
    /// was forgotten. What is usual may be missing on a host.
    #[must_use]
    pub fn missing(&self) -> Option<(&'static str, &Path)> {
        let usual = Self::default();
        [
            ("procfs", &self.procfs, usual.procfs),
            ("sysfs", &self.sysfs, usual.sysfs),
            ("cgroupfs", &self.cgroupfs, usual.cgroupfs),
        ]
        .into_iter()
        .find(|(_, path, usual)| *path != usual && !path.is_dir())
        .map(|(key, path, _)| (key, path.as_path()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_that_was_forgotten_is_found() {
        let mut roots = Roots::default();
        assert_eq!(roots.missing(), None);
        roots.sysfs = "/proc".into();
        assert_eq!(roots.missing(), None, "a folder");
        roots.procfs = "/nonexistent/proc".into();
        assert_eq!(
            roots.missing(),
            Some(("procfs", Path::new("/nonexistent/proc")))
        );
    }
}

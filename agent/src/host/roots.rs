//! Where `/proc`, `/sys` and the cgroup file system are: a container sees the host's
//! through mounts, and a test gives frozen ones.

use std::path::PathBuf;

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

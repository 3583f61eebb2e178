//! A cgroup of our own with a CPU quota, on v1, v2 and hybrid hosts, gone when its owner
//! is gone.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    time::Duration,
};

use anyhow::{Context as _, bail};

use crate::guardian::Guardian;

/// The period the quota counts in; the kernel's own default.
const PERIOD_US: u64 = 100_000;

/// Kills what is still inside and removes the directories, deepest first; then those of the
/// same name that container runtimes made in the other v1 hierarchies.
const REMOVE: &str = r#"
n=0
while [ -d "$1" ] && [ $n -lt 200 ]; do
  find "$1" -name cgroup.procs -exec cat {} + | while read -r p; do kill -9 "$p"; done
  find "$1" -depth -type d -exec rmdir {} +
  n=$((n + 1))
  [ -d "$1" ] && sleep 0.05
done
for other in "${1%/*}"/../*/"${1##*/}"; do
  [ -d "$other" ] && find "$other" -depth -type d -exec rmdir {} +
done
"#;

/// Where the host has its CPU controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A v1 hierarchy (also on hybrid hosts).
    V1,
    /// The unified hierarchy.
    V2,
}

/// A directory in the hierarchy of the CPU controller.
#[derive(Debug)]
pub struct Cgroup {
    dir: PathBuf,
    version: Version,
    _guardian: Guardian,
}

/// `cpu.stat`, in one form for both versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuStat {
    /// Periods in which something ran.
    pub periods: u64,
    /// Periods in which the quota ran out.
    pub throttled_periods: u64,
    /// Time held back, summed over CPUs.
    pub throttled: Duration,
}

impl Cgroup {
    /// Makes the cgroup `NAME-PID` below the root of the hierarchy with the CPU controller.
    ///
    /// # Errors
    /// When no hierarchy has the controller or the directory cannot be made (no root, or
    /// the hierarchy is read-only).
    pub fn create(name: &str) -> anyhow::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
        let (root, version) = find_cpu_controller(&mounts).context(
            "no cgroup hierarchy with the cpu controller is mounted: \
             mount cgroup2 at /sys/fs/cgroup or the v1 cpu controller",
        )?;
        if version == Version::V2 {
            let control = root.join("cgroup.subtree_control");
            if !words(&control)?.iter().any(|word| word == "cpu") {
                write(&control, "+cpu")?;
            }
        }
        let dir = root.join(format!("{name}-{}", process::id()));
        // The guardian first: from here on nothing can be left behind.
        let guardian = Guardian::new(REMOVE, &[&dir]).context("cannot start sh")?;
        fs::create_dir(&dir)
            .with_context(|| format!("cannot make the cgroup {}", dir.display()))?;
        Ok(Self {
            dir,
            version,
            _guardian: guardian,
        })
    }

    /// Allows `percent` of one CPU.
    ///
    /// # Errors
    /// When the kernel refuses the value.
    pub fn limit_cpu(&self, percent: u64) -> anyhow::Result<()> {
        let quota_us = PERIOD_US * percent / 100;
        match self.version {
            Version::V1 => {
                write(&self.dir.join("cpu.cfs_period_us"), &PERIOD_US.to_string())?;
                write(&self.dir.join("cpu.cfs_quota_us"), &quota_us.to_string())
            }
            Version::V2 => write(
                &self.dir.join("cpu.max"),
                &format!("{quota_us} {PERIOD_US}"),
            ),
        }
    }

    /// The file a process writes its id into to enter.
    #[must_use]
    pub fn procs(&self) -> PathBuf {
        self.dir.join("cgroup.procs")
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The kernel's own account of the quota.
    ///
    /// # Errors
    /// When `cpu.stat` cannot be read.
    pub fn cpu_stat(&self) -> anyhow::Result<CpuStat> {
        let path = self.dir.join("cpu.stat");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(parse_cpu_stat(&text))
    }
}

fn parse_cpu_stat(text: &str) -> CpuStat {
    let mut stat = CpuStat::default();
    for (name, value) in text.lines().filter_map(|line| line.split_once(' ')) {
        let Ok(value) = value.trim().parse() else {
            continue;
        };
        match name {
            "nr_periods" => stat.periods = value,
            "nr_throttled" => stat.throttled_periods = value,
            "throttled_time" => stat.throttled = Duration::from_nanos(value),
            "throttled_usec" => stat.throttled = Duration::from_micros(value),
            _ => {}
        }
    }
    stat
}

/// The first mount that has the CPU controller: the mount point and its version.
fn find_cpu_controller(mountinfo: &str) -> Option<(PathBuf, Version)> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let point = PathBuf::from(left.split(' ').nth(4)?);
        let mut right = right.split(' ');
        let (kind, _source, options) = (right.next()?, right.next()?, right.next()?);
        match kind {
            "cgroup" if options.split(',').any(|option| option == "cpu") => {
                Some((point, Version::V1))
            }
            "cgroup2"
                if words(&point.join("cgroup.controllers"))
                    .ok()?
                    .contains(&"cpu".into()) =>
            {
                Some((point, Version::V2))
            }
            _ => None,
        }
    })
}

fn words(path: &Path) -> anyhow::Result<Vec<String>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

fn write(path: &Path, value: &str) -> anyhow::Result<()> {
    if let Err(error) = fs::write(path, value) {
        bail!("cannot write {value:?} to {}: {error}", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::{process::Process, wait};

    #[test]
    fn finds_the_controller_of_a_hybrid_host() {
        let mounts = "30 24 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";
        assert_eq!(
            find_cpu_controller(mounts),
            Some(("/sys/fs/cgroup/cpu,cpuacct".into(), Version::V1))
        );
        let mounts = "30 24 0:26 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n";
        assert_eq!(find_cpu_controller(mounts), None);
    }

    #[test]
    fn reads_both_versions_of_cpu_stat() {
        let v1 = "nr_periods 7\nnr_throttled 3\nthrottled_time 1500000\n";
        let v2 = "usage_usec 9\nnr_periods 7\nnr_throttled 3\nthrottled_usec 1500\n";
        let expected = CpuStat {
            periods: 7,
            throttled_periods: 3,
            throttled: Duration::from_micros(1500),
        };
        assert_eq!(parse_cpu_stat(v1), expected);
        assert_eq!(parse_cpu_stat(v2), expected);
    }

    #[test]
    fn a_busy_process_is_throttled_and_nothing_stays_behind() -> anyhow::Result<()> {
        let cgroup = Cgroup::create("isostack-test-quota")?;
        cgroup.limit_cpu(10)?;
        let mut busy = Command::new("sh");
        busy.args(["-c", "while :; do :; done"]);
        let busy = Process::start("busy", &mut busy, Some(&cgroup))?;
        wait::until("a throttled period", wait::PATIENCE, || {
            cgroup
                .cpu_stat()
                .ok()
                .filter(|stat| stat.throttled_periods > 2)
        })?;
        let dir = cgroup.dir().to_owned();
        drop(cgroup); // with the process still inside
        assert!(!dir.exists());
        drop(busy);
        Ok(())
    }
}

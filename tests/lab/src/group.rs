//! The lab's cgroups: one tree, in one hierarchy or (version 1) in that of each controller.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context as _, ensure};
use harness::guardian::Guardian;

/// Kills what is inside and removes the directories, deepest first; then those that the
/// container runtime made in hierarchies of no interest here.
const REMOVE: &str = r#"
for dir in "$@"; do
  n=0
  while [ -d "$dir" ] && [ $n -lt 200 ]; do
    find "$dir" -name cgroup.procs -exec cat {} + | while read -r p; do kill -9 "$p"; done
    find "$dir" -depth -type d -exec rmdir {} +
    n=$((n + 1))
    [ -d "$dir" ] && sleep 0.05
  done
done
for other in "${1%/*}"/../*/"${1##*/}"; do
  [ -d "$other" ] && find "$other" -depth -type d -exec rmdir {} +
done
"#;

/// Weight of the whole lab against the rest of the machine (1024 or 100 is one program's):
/// what else runs here shall disturb it little.
const SHARES: (u64, u64) = (8192, 800);

/// What the lab limits or reads.
const CONTROLLERS: [&str; 4] = ["cpu", "cpuacct", "memory", "blkio"];

/// The tree of groups `isostack-lab-PID`.
#[derive(Debug)]
pub struct Groups {
    name: String,
    /// Version 1: the mount of each controller; version 2: all the same one.
    mounts: Vec<(&'static str, PathBuf)>,
    unified: bool,
    _guardian: Guardian,
}

/// A CPU quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// CPU time in each period, in microseconds.
    pub quota_us: u64,
    /// The period in microseconds.
    pub period_us: u64,
}

impl Groups {
    /// Makes the tree.
    ///
    /// # Errors
    /// When a controller is mounted nowhere or a directory cannot be made.
    pub fn create() -> anyhow::Result<Self> {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo")?;
        let unified = mount_of(&mountinfo, None).filter(|mount| {
            let has = fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
            ["cpu", "memory", "io"]
                .iter()
                .all(|wanted| has.split_whitespace().any(|word| word == *wanted))
        });
        let mounts = CONTROLLERS.map(|controller| {
            let mount = unified
                .clone()
                .or_else(|| mount_of(&mountinfo, Some(controller)));
            Ok((
                controller,
                mount.with_context(|| format!("the controller {controller} is not mounted"))?,
            ))
        });
        let mounts: Vec<_> = mounts.into_iter().collect::<anyhow::Result<_>>()?;
        let name = format!("isostack-lab-{}", process::id());
        let mut dirs: Vec<PathBuf> = mounts.iter().map(|(_, mount)| mount.join(&name)).collect();
        dirs.dedup();
        let groups = Self {
            _guardian: Guardian::new(REMOVE, &dirs).context("cannot start sh")?,
            name,
            mounts,
            unified: unified.is_some(),
        };
        if groups.unified {
            groups.delegate(&groups.mounts[0].1)?;
        }
        groups.make_parent("")?;
        let (file, shares) = match groups.unified {
            false => ("cpu.shares", SHARES.0),
            true => ("cpu.weight", SHARES.1),
        };
        groups.write("cpu", "", file, &shares.to_string())?;
        Ok(groups)
    }

    /// Makes a group below the tree's root.
    ///
    /// # Errors
    /// When a directory cannot be made.
    pub fn make(&self, group: &str) -> anyhow::Result<()> {
        for (controller, _) in &self.mounts {
            let dir = self.dir(controller, group);
            fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        }
        Ok(())
    }

    /// Lets the groups below `group` have limits of their own; it cannot hold processes then.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn make_parent(&self, group: &str) -> anyhow::Result<()> {
        self.make(group)?;
        if self.unified {
            self.delegate(&self.dir("cpu", group))?;
        }
        Ok(())
    }

    fn delegate(&self, dir: &Path) -> anyhow::Result<()> {
        let file = dir.join("cgroup.subtree_control");
        fs::write(&file, "+cpu +memory +io").with_context(|| file.display().to_string())
    }

    /// Its path as container runtimes want it.
    #[must_use]
    pub fn path(&self, group: &str) -> String {
        format!("/{}/{group}", self.name)
    }

    /// The files a process writes itself into to enter.
    #[must_use]
    pub fn procs(&self, group: &str) -> Vec<PathBuf> {
        let files = self
            .mounts
            .iter()
            .map(|(controller, _)| self.dir(controller, group).join("cgroup.procs"));
        let mut files: Vec<PathBuf> = files.collect();
        files.dedup();
        files
    }

    fn dir(&self, controller: &str, group: &str) -> PathBuf {
        let mount = self.mounts.iter().find(|(name, _)| *name == controller);
        mount
            .map_or_else(PathBuf::new, |(_, mount)| mount.join(&self.name))
            .join(group)
    }

    fn write(&self, controller: &str, group: &str, file: &str, value: &str) -> anyhow::Result<()> {
        let path = self.dir(controller, group).join(file);
        fs::write(&path, value).with_context(|| format!("{value:?} to {}", path.display()))
    }

    fn read(&self, controller: &str, group: &str, file: &str) -> anyhow::Result<String> {
        let path = self.dir(controller, group).join(file);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    /// The number after `key` in a file of lines `key number`; of a file with one number: it.
    fn number(&self, controller: &str, group: &str, file: &str, key: &str) -> anyhow::Result<u64> {
        let text = self.read(controller, group, file)?;
        let mut words = text
            .lines()
            .filter_map(|line| line.rsplit_once(' ').or(Some(("", line))));
        let found = words.find(|(name, _)| *name == key);
        let (_, value) = found.with_context(|| format!("{file} has no {key:?}"))?;
        Ok(value.trim().parse()?)
    }

    /// Sets or lifts the CPU quota.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn limit_cpu(&self, group: &str, quota: Option<Quota>) -> anyhow::Result<()> {
        match (self.unified, quota) {
            (false, None) => self.write("cpu", group, "cpu.cfs_quota_us", "-1"),
            (true, None) => self.write("cpu", group, "cpu.max", "max 100000"),
            (false, Some(q)) => {
                let period = q.period_us.to_string();
                self.write("cpu", group, "cpu.cfs_period_us", &period)?;
                self.write("cpu", group, "cpu.cfs_quota_us", &q.quota_us.to_string())
            }
            (true, Some(q)) => {
                let both = format!("{} {}", q.quota_us, q.period_us);
                self.write("cpu", group, "cpu.max", &both)
            }
        }
    }

    /// Milliseconds that the quota of a group held it back, summed over CPUs.
    ///
    /// # Errors
    /// When `cpu.stat` cannot be read.
    pub fn throttled_ms(&self, group: &str) -> anyhow::Result<f64> {
        Ok(match self.unified {
            false => self.number("cpu", group, "cpu.stat", "throttled_time")? as f64 / 1e6,
            true => self.number("cpu", group, "cpu.stat", "throttled_usec")? as f64 / 1e3,
        })
    }

    /// Milliseconds of CPU time that a group has used.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn cpu_ms(&self, group: &str) -> anyhow::Result<f64> {
        Ok(match self.unified {
            false => self.number("cpuacct", group, "cpuacct.usage", "")? as f64 / 1e6,
            true => self.number("cpu", group, "cpu.stat", "usage_usec")? as f64 / 1e3,
        })
    }

    /// Sets or lifts the memory limit, in bytes.
    ///
    /// # Errors
    /// When the kernel refuses, e.g. because it cannot free enough.
    pub fn limit_memory(&self, group: &str, bytes: Option<u64>) -> anyhow::Result<()> {
        let file = match self.unified {
            false => "memory.limit_in_bytes",
            true => "memory.max",
        };
        let lifted = if self.unified { "max" } else { "-1" };
        let value = bytes.map_or_else(|| lifted.to_owned(), |bytes| bytes.to_string());
        self.write("memory", group, file, &value)
    }

    /// Bytes of memory that a group has.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn memory_bytes(&self, group: &str) -> anyhow::Result<u64> {
        match self.unified {
            false => self.number("memory", group, "memory.usage_in_bytes", ""),
            true => self.number("memory", group, "memory.current", ""),
        }
    }

    /// Times that a group ran into its memory limit.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn memory_hits(&self, group: &str) -> anyhow::Result<u64> {
        match self.unified {
            false => self.number("memory", group, "memory.failcnt", ""),
            true => self.number("memory", group, "memory.events", "max"),
        }
    }

    /// Processes of a group that were killed for lack of memory.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn memory_kills(&self, group: &str) -> anyhow::Result<u64> {
        match self.unified {
            false => self.number("memory", group, "memory.oom_control", "oom_kill"),
            true => self.number("memory", group, "memory.events", "oom_kill"),
        }
    }

    /// Sets or lifts (`None`) the limit on writes a second to the device `MAJOR:MINOR`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn limit_writes(&self, group: &str, device: &str, iops: Option<u64>) -> anyhow::Result<()> {
        match self.unified {
            false => {
                let value = format!("{device} {}", iops.unwrap_or(0));
                self.write("blkio", group, "blkio.throttle.write_iops_device", &value)
            }
            true => {
                let limit = iops.map_or_else(|| "max".to_owned(), |iops| iops.to_string());
                self.write("blkio", group, "io.max", &format!("{device} wiops={limit}"))
            }
        }
    }

    /// Writes that a group has sent to the device `MAJOR:MINOR`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn writes(&self, group: &str, device: &str) -> anyhow::Result<u64> {
        if self.unified {
            let text = self.read("blkio", group, "io.stat")?;
            let line = text.lines().find_map(|line| line.strip_prefix(device));
            let mut words = line.unwrap_or_default().split_whitespace();
            let writes = words.find_map(|word| word.strip_prefix("wios="));
            return Ok(writes.unwrap_or("0").parse()?);
        }
        let file = "blkio.throttle.io_serviced";
        let key = format!("{device} Write");
        Ok(self.number("blkio", group, file, &key).unwrap_or(0))
    }

    /// Every process of a group.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn pids(&self, group: &str) -> anyhow::Result<Vec<u32>> {
        let text = self.read("cpu", group, "cgroup.procs")?;
        let pids: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
        ensure!(!pids.is_empty(), "{group} has no process");
        Ok(pids)
    }
}

/// The mount point of a version 1 controller, or of the unified hierarchy.
fn mount_of(mountinfo: &str, controller: Option<&str>) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        let (kind, _source, options) = (right.next()?, right.next()?, right.next()?);
        let is_it = match controller {
            Some(name) => kind == "cgroup" && options.split(',').any(|option| option == name),
            None => kind == "cgroup2",
        };
        is_it.then(|| left.split(' ').nth(4).map(PathBuf::from))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_both_versions() {
        let mounts = "31 24 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let cpu = Some(PathBuf::from("/sys/fs/cgroup/cpu"));
        assert_eq!(mount_of(mounts, Some("cpuacct")), cpu);
        assert_eq!(mount_of(mounts, Some("memory")), None);
        let unified = Some(PathBuf::from("/sys/fs/cgroup/unified"));
        assert_eq!(mount_of(mounts, None), unified);
    }
}

//! A cgroup with the CPU controller, on either version of cgroups, gone when dropped.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

/// See the module.
pub struct Group {
    pub path: PathBuf,
    v1: bool,
}

impl Group {
    /// A new group at the top of the hierarchy that the CPU controller is on.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (root, v1) = hierarchy_of("cpu");
        if !v1 {
            fs::write(root.join("cgroup.subtree_control"), "+cpu").unwrap();
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self::at(
            root.join(format!("isostack-test-{}-{number}", std::process::id())),
            v1,
        )
    }

    /// A new group below this one; no process may then be in this one itself.
    pub fn child(&self) -> Self {
        if !self.v1 {
            fs::write(self.path.join("cgroup.subtree_control"), "+cpu").unwrap();
        }
        Self::at(self.path.join("child"), self.v1)
    }

    /// A new group at `path`; `v1`: of a version 1 hierarchy.
    pub fn at(path: PathBuf, v1: bool) -> Self {
        fs::create_dir(&path).unwrap();
        Self { path, v1 }
    }

    /// Limits it to `quota_us` of CPU time in every 100 ms.
    pub fn limit(&self, quota_us: u32) {
        let (file, text) = if self.v1 {
            ("cpu.cfs_quota_us", quota_us.to_string())
        } else {
            ("cpu.max", format!("{quota_us} 100000"))
        };
        fs::write(self.path.join(file), text).unwrap();
    }

    /// Puts it in front of the others on the CPU, so that it uses up its quota, or gets to its
    /// disk, also where the machine is busy.
    pub fn favour(&self) {
        for (file, most) in [("cpu.shares", "262144"), ("cpu.weight", "10000")] {
            let path = self.path.join(file);
            if path.exists() {
                fs::write(path, most).unwrap();
            }
        }
    }

    /// Lets it save up to `burst_us` of unused quota; false where the kernel cannot (5.14).
    pub fn burst(&self, burst_us: u32) -> bool {
        let file = if self.v1 {
            "cpu.cfs_burst_us"
        } else {
            "cpu.max.burst"
        };
        let path = self.path.join(file);
        path.exists() && fs::write(path, burst_us.to_string()).is_ok()
    }

    /// Whether a group may be given more than the one above it, which then limits it.
    pub fn may_exceed_its_parent(&self) -> bool {
        !self.v1
    }

    /// What `cpu.stat` says, summed over CPUs.
    pub fn throttled_ns(&self) -> u64 {
        if self.v1 {
            self.cpu_stat("throttled_time ")
        } else {
            self.cpu_stat("throttled_usec ") * 1_000
        }
    }

    /// Periods at whose end it was throttled somewhere.
    pub fn periods_throttled(&self) -> u64 {
        self.cpu_stat("nr_throttled ")
    }

    fn cpu_stat(&self, key: &str) -> u64 {
        let stat = fs::read_to_string(self.path.join("cpu.stat")).unwrap();
        let value = stat.lines().find_map(|line| line.strip_prefix(key));
        value.unwrap().parse().unwrap()
    }

    /// Moves a process into it.
    pub fn enter(&self, pid: u32) {
        fs::write(self.path.join("cgroup.procs"), pid.to_string()).unwrap();
    }

    /// What the kernel side names it by.
    pub fn id(&self) -> u64 {
        fs::metadata(&self.path).unwrap().ino()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A process that was killed takes a moment to leave, longer under a quota.
        for _ in 0..200 {
            for pid in fs::read_to_string(self.path.join("cgroup.procs"))
                .unwrap_or_default()
                .lines()
                .filter_map(|line| line.parse().ok())
                .filter_map(rustix::process::Pid::from_raw)
            {
                // Gone already is as good.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Mount point of the hierarchy that a controller is on, and whether it is of version 1. One
/// that has no hierarchy of its own is on the unified one, also beside others of version 1.
pub fn hierarchy_of(controller: &str) -> (PathBuf, bool) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mut unified = None;
    for line in mounts.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, at, kind, options, ..] = words[..] else {
            continue;
        };
        match kind {
            "cgroup" if options.split(',').any(|option| option == controller) => {
                return (at.into(), true);
            }
            "cgroup2" => unified = Some(Path::new(at).to_owned()),
            _ => {}
        }
    }
    (unified.expect("no cgroup hierarchy is mounted"), false)
}

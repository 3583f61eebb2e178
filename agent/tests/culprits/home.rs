//! Workloads of a test: each in a cgroup of the same name in every hierarchy that matters.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use super::cgroup::Group;

/// See the module; gone when dropped, with all that lives in it.
pub struct Home {
    pub cpu: Group,
    /// Of the I/O and the memory controller, where they have hierarchies of their own.
    others: Vec<Group>,
}

/// A process that is killed when dropped.
pub struct Running(Child);

impl Home {
    pub fn new() -> Self {
        let cpu = Group::new();
        let name = cpu.path.file_name().unwrap().to_owned();
        let mounts = ["blkio", "memory"].into_iter().filter_map(v1_mount_of);
        let others = mounts
            .filter(|mount| !cpu.path.starts_with(mount))
            .map(|mount| Group::at(mount.join(&name), true))
            .collect();
        Self { cpu, others }
    }

    /// Limits its memory, and its path.
    pub fn memory_limit(&self, bytes: u64) -> String {
        let all = std::iter::once(&self.cpu).chain(&self.others);
        let files = all.flat_map(|group| {
            ["memory.limit_in_bytes", "memory.max"].map(|file| group.path.join(file))
        });
        let file = files.into_iter().find(|file| file.exists());
        fs::write(file.expect("no memory controller"), bytes.to_string()).unwrap();
        format!("/{}", self.cpu.path.file_name().unwrap().display())
    }

    /// Runs a script of bash that begins when it is let: a line to its input.
    pub fn spawn(&self, script: &str) -> Running {
        let groups = std::iter::once(&self.cpu).chain(&self.others);
        let enter: String = groups
            .map(|group| format!("echo $$ > {}/cgroup.procs && ", group.path.display()))
            .collect();
        let script = format!("{enter} read -r _ && {script}");
        let child = Command::new("bash")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Running(child)
    }
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Lets it begin.
    pub fn begin(&mut self) {
        use std::io::Write as _;
        self.0.stdin.take().unwrap().write_all(b"\n").unwrap();
    }

    /// Waits for its end.
    pub fn end(mut self) {
        let status = self.0.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Where a version 1 controller is mounted.
fn v1_mount_of(controller: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    mounts.lines().find_map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, at, "cgroup", options, ..] = words[..] else {
            return None;
        };
        let has = options.split(',').any(|option| option == controller);
        has.then(|| at.into())
    })
}

//! fio, and what it says of its own I/O.

use std::{
    io::Write as _,
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use super::place::IoGroup;

/// What to do.
#[derive(Clone)]
pub struct Job {
    flags: Vec<String>,
    /// `read` or `write`: the part of fio's report.
    direction: &'static str,
}

impl Job {
    /// Reads of random blocks, each one once, past no cache.
    pub fn reads(block: &str, number: u32) -> Self {
        Self::new("read", &["--rw=randread".to_owned()], block, number)
    }

    /// Buffered writes of random blocks with an fsync after every tenth.
    pub fn synced_writes(block: &str, number: u32) -> Self {
        let flags = ["--rw=randwrite".to_owned(), "--fsync=10".to_owned()];
        Self::new("write", &flags, block, number)
    }

    /// Past the page cache.
    pub fn direct(mut self) -> Self {
        self.flags.push("--direct=1".to_owned());
        self
    }

    /// The label of the operation.
    pub fn op(&self) -> &'static str {
        self.direction
    }

    fn new(direction: &'static str, flags: &[String], block: &str, number: u32) -> Self {
        let mut flags = flags.to_vec();
        flags.push(format!("--bs={block}"));
        flags.push(format!("--number_ios={number}"));
        Self { flags, direction }
    }
}

/// fio's own account.
pub struct Fio {
    pub pid: u32,
    /// I/Os done.
    pub ios: u64,
    /// Median time from submission to completion.
    pub p50_ns: u64,
}

/// A process in its cgroup that is about to become fio; killed if the test fails before.
pub struct Waiting {
    child: Option<Child>,
    direction: &'static str,
}

impl Waiting {
    /// Enters its cgroups and waits for a line.
    pub fn new(group: &IoGroup, disk: &Path, job: &Job) -> Self {
        let enter: String = group
            .directories()
            .map(|dir| format!("echo $$ > {}/cgroup.procs && ", dir.display()))
            .collect();
        let script = format!(
            "{enter} read -r _ && exec fio --name=test --thread --ioengine=psync \
             --filename={} --invalidate=1 --randrepeat=1 --output-format=json {}",
            disk.display(),
            job.flags.join(" ")
        );
        let child = Command::new("bash")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            child: Some(child),
            direction: job.direction,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Lets it begin.
    pub fn spawn(mut self) -> Self {
        let stdin = self.child.as_mut().unwrap().stdin.take();
        stdin.unwrap().write_all(b"\n").unwrap();
        self
    }

    /// Lets it begin if it has not, and waits for its end.
    pub fn finish(mut self) -> Fio {
        if self.child.as_ref().unwrap().stdin.is_some() {
            self = self.spawn();
        }
        let pid = self.pid();
        let output = self.child.take().unwrap().wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let start = text.find('{').expect("fio says JSON; is it installed?");
        let report: Value = serde_json::from_str(&text[start..]).unwrap();
        let part = &report["jobs"][0][self.direction];
        let ios = part["total_ios"].as_u64().unwrap();
        assert!(ios > 0, "{report:#}");
        Fio {
            pid,
            ios,
            p50_ns: part["clat_ns"]["percentile"]["50.000000"].as_u64().unwrap(),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

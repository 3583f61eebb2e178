//! A lab that is killed in the middle of a run leaves nothing behind.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use harness::{process::Process, wait};
use rustix::process::Signal;

/// The stage takes a while, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);
/// From the end of one run into the middle of the next.
const INTO_A_RUN: Duration = Duration::from_millis(1_500);
/// The fault that has most that is not in a namespace or in a cgroup.
const KIND: &str = "slow_device";

#[test]
fn a_killed_lab_leaves_nothing() -> anyhow::Result<()> {
    let mut lab = Command::new(env!("CARGO_BIN_EXE_isostack-lab"));
    lab.args(["--seed", "1", "--runs", "100", "--kind", KIND]);
    let mut lab = Process::start("isostack-lab", &mut lab, None)?;
    let ran = wait::until("a run of the lab", PATIENCE, || {
        let said = lab.output();
        let is_run = |line: &str| line.ends_with(&format!(" {KIND}"));
        (said.lines().any(is_run) || !lab.is_running()).then_some(said)
    })?;
    assert!(lab.is_running(), "it ended:\n{ran}");
    thread::sleep(INTO_A_RUN);
    let there = Traces::of(lab.pid());
    let processes = there.processes();
    let found = there.left(&processes);
    // Else this would not see what is left either.
    for what in [
        "process",
        "cgroup",
        "device",
        "namespace",
        "mount",
        "folder",
    ] {
        let is_it = |line: &String| line.starts_with(what);
        assert!(found.iter().any(is_it), "no {what}: {found:?}");
    }
    assert_eq!(
        ran.contains("Not here: a slow device"),
        !found.iter().any(|line| line.starts_with("loop device")),
        "{found:?}"
    );

    lab.signal(Signal::KILL)?;
    lab.wait(wait::PATIENCE)?;
    let gone = wait::until("the end of everything", wait::PATIENCE, || {
        there.left(&processes).is_empty().then_some(())
    });
    assert!(gone.is_ok(), "left: {:#?}", there.left(&processes));
    Ok(())
}

/// What a lab of this process id is known by.
struct Traces {
    pid: u32,
    /// Its cgroups, its namespaces and its folder begin so.
    name: String,
}

impl Traces {
    fn of(pid: u32) -> Self {
        Self {
            pid,
            name: format!("isostack-lab-{pid}"),
        }
    }

    fn cgroups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for hierarchy in [
            vec![PathBuf::from("/sys/fs/cgroup")],
            entries("/sys/fs/cgroup"),
        ]
        .concat()
        {
            let dir = hierarchy.join(&self.name);
            if dir.is_dir() {
                found.push(dir);
            }
        }
        found
    }

    /// Those in its cgroups, and its children: ids with what tells them from later ones.
    fn processes(&self) -> Vec<(u32, String)> {
        let all = entries("/proc").into_iter().filter_map(|dir| {
            let pid: u32 = dir.file_name()?.to_str()?.parse().ok()?;
            let cgroups = fs::read_to_string(dir.join("cgroup")).ok()?;
            let (parent, start) = stat(pid)?;
            let is_its = cgroups.contains(&format!("/{}/", self.name)) || parent == self.pid;
            is_its.then_some((pid, start))
        });
        all.collect()
    }

    /// Everything that is there of it, and of these processes.
    fn left(&self, processes: &[(u32, String)]) -> Vec<String> {
        let mut left = Vec::new();
        for (pid, start) in processes {
            if stat(*pid).is_some_and(|(_, now)| now == *start) {
                let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                left.push(format!("process {pid} {}", comm.trim()));
            }
        }
        let cgroups = self.cgroups();
        left.extend(
            cgroups
                .iter()
                .map(|dir| format!("cgroup {}", dir.display())),
        );
        for (what, dir, is_it) in [
            ("namespace", "/run/netns", named(self.name.clone())),
            ("folder", "/var/tmp", named(self.name.clone())),
            ("device", "/sys/class/net", of_network(self.pid)),
        ] {
            let found = entries(dir).into_iter().filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                is_it(&name)
            });
            left.extend(found.map(|path| format!("{what} {}", path.display())));
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mounts = mounts.lines().filter(|line| line.contains(&self.name));
        left.extend(mounts.map(|line| format!("mount {line}")));
        for disk in entries("/sys/block") {
            let file = fs::read_to_string(disk.join("loop/backing_file")).unwrap_or_default();
            if file.contains(&self.name) {
                left.push(format!("loop device on {}", file.trim()));
            }
        }
        left
    }
}

type Test = Box<dyn Fn(&str) -> bool>;

fn named(name: String) -> Test {
    Box::new(move |entry| entry == name || entry.starts_with(&format!("{name}-")))
}

/// Its bridge and its veths: see `lab::network`.
fn of_network(pid: u32) -> Test {
    Box::new(move |entry| {
        entry == format!("islb{pid}")
            || entry.starts_with("isl") && entry.ends_with(&format!("v{pid}"))
    })
}

/// None where there is no such folder.
fn entries(dir: impl AsRef<Path>) -> Vec<PathBuf> {
    let all = fs::read_dir(dir).into_iter().flatten().flatten();
    all.map(|entry| entry.path()).collect()
}

/// Parent and time of the start of a process that has not ended.
fn stat(pid: u32) -> Option<(u32, String)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    if *words.first()? == "Z" {
        return None;
    }
    Some((words.get(1)?.parse().ok()?, (*words.get(19)?).to_owned()))
}

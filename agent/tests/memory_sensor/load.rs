//! Cgroups with a memory limit, programs that run into it, and somebody else who counts.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use super::cgroup::Group;

/// Allocates in several threads, all of it touched; `stay` keeps it until it is killed.
const HOG: &str = r#"
import mmap, sys, threading, time
threads, size, stay = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "stay"
kept = []
def hog():
    part = mmap.mmap(-1, size // threads)
    kept.append(part)
    for at in range(0, len(part), 4096):
        part[at] = 1
all = [threading.Thread(target=hog) for _ in range(threads)]
[t.start() for t in all]
[t.join() for t in all]
print("done", flush=True)
if stay:
    time.sleep(60)
"#;

/// A cgroup of the CPU controller and the same in the memory controller's hierarchy.
pub struct MemoryGroup {
    pub cpu: Group,
    memory: Option<Group>,
}

impl MemoryGroup {
    /// One that may use `bytes`, and no swap.
    pub fn new(bytes: u64) -> Self {
        let cpu = Group::new();
        let mount = v1_mount_of("memory").filter(|mount| !cpu.path.starts_with(mount));
        let memory = mount.map(|mount| Group::at(mount.join(cpu.path.file_name().unwrap()), true));
        if memory.is_none() {
            let control = cpu.path.parent().unwrap().join("cgroup.subtree_control");
            fs::write(control, "+memory").unwrap();
        }
        let group = Self { cpu, memory };
        let limit = if group.memory.is_some() {
            "memory.limit_in_bytes"
        } else {
            "memory.max"
        };
        fs::write(group.memory().join(limit), bytes.to_string()).unwrap();
        group
    }

    /// Its directory in the memory controller's hierarchy.
    pub fn memory(&self) -> &Path {
        &self.memory.as_ref().unwrap_or(&self.cpu).path
    }

    /// `oom_kill` of `memory.oom_control` or `memory.events`.
    pub fn oom_kills(&self) -> u64 {
        let files = ["memory.oom_control", "memory.events"];
        let text = files
            .iter()
            .find_map(|file| fs::read_to_string(self.memory().join(file)).ok())
            .unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.unwrap().parse().unwrap()
    }

    /// A process that touches `bytes` in so many threads and ends.
    pub fn hog(&self, threads: u32, bytes: u64) -> Hog {
        self.start(threads, bytes, "end")
    }

    /// One that keeps what it got; returns when it has.
    pub fn hog_and_stay(&self, bytes: u64) -> Hog {
        let mut hog = self.start(1, bytes, "stay");
        let mut line = String::new();
        let out = hog.0.stdout.take().unwrap();
        io::BufRead::read_line(&mut io::BufReader::new(out), &mut line).unwrap();
        assert_eq!(line, "done\n");
        hog
    }

    fn start(&self, threads: u32, bytes: u64, then: &str) -> Hog {
        let mut command = Command::new("python3");
        command.args(["-c", HOG, &threads.to_string(), &bytes.to_string(), then]);
        Hog(self.inside(command).spawn().unwrap())
    }

    /// Fills the page cache with `bytes` of a file in the group. Returns how often perf saw
    /// reclaim for a memory cgroup begin meanwhile, or why it could not count.
    pub fn read_file(&self, bytes: u64) -> Result<u64, String> {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (data, counts) = (dir.path().join("data"), dir.path().join("counts"));
        let mut file = File::create(&data).unwrap();
        let block = vec![7; 1 << 20];
        for _ in 0..bytes >> 20 {
            file.write_all(&block).unwrap();
        }
        file.sync_all().unwrap();
        // Out of the cache, so that it is charged to the reader.
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let enter: String = self
            .files()
            .map(|file| format!("echo $$ > {} && ", file.display()))
            .collect();
        let read = format!("{enter} exec cat {} > /dev/null", data.display());
        let counted = count(&read, &counts);
        if counted.is_err() {
            let status = Command::new("sh").args(["-c", &read]).status().unwrap();
            assert!(status.success(), "{status}");
        }
        counted
    }

    fn files(&self) -> impl Iterator<Item = PathBuf> {
        [Some(&self.cpu), self.memory.as_ref()]
            .into_iter()
            .flatten()
            .map(|group| group.path.join("cgroup.procs"))
    }

    /// The command enters the groups before it becomes the program.
    fn inside(&self, mut command: Command) -> Command {
        let files: Vec<PathBuf> = self.files().collect();
        let enter = move || files.iter().try_for_each(|file| fs::write(file, "0"));
        // SAFETY: opens and writes files, which a fork of a process with threads may do;
        // the allocation of the path's copy is the C library's, made safe for forks.
        unsafe { command.pre_exec(enter) };
        command.stdout(Stdio::piped());
        command
    }
}

/// A process that uses memory; killed if the test fails before it has ended.
pub struct Hog(Child);

impl Hog {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn wait(mut self) -> ExitStatus {
        self.0.wait().unwrap()
    }

    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Runs a script under perf, which counts in it and its children alone. tracefs is mounted
/// for perf only, and gone with it.
fn count(script: &str, counts: &Path) -> Result<u64, String> {
    const EVENT: &str = "vmscan:mm_vmscan_memcg_reclaim_begin";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c"])
        .arg(
            "mount -t tracefs nodev /sys/kernel/tracing && \
             exec perf stat -x, -o \"$1\" -e \"$2\" -- sh -c \"$3\"",
        )
        .args(["sh", counts.to_str().unwrap(), EVENT, script])
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = fs::read_to_string(counts).map_err(|error| error.to_string())?;
    let line = text.lines().find(|line| line.contains(EVENT));
    let count = line.and_then(|line| line.split(',').next()?.parse().ok());
    count.ok_or(text)
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

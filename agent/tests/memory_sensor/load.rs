//! Cgroups with a memory limit, programs that run into it, and somebody else who counts.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};

use super::cgroup::{Group, hierarchy_of};

/// How long a process keeps what it got, if nobody ends it.
const STAY: Duration = Duration::from_secs(60);

/// A cgroup of the CPU controller and the same in the memory controller's hierarchy.
pub struct MemoryGroup {
    pub cpu: Group,
    memory: Option<Group>,
}

impl MemoryGroup {
    /// One that may use `bytes`, and no swap.
    pub fn new(bytes: u64) -> Self {
        let cpu = Group::new();
        let (root, v1) = hierarchy_of("memory");
        if !v1 {
            fs::write(root.join("cgroup.subtree_control"), "+memory").unwrap();
        }
        let elsewhere = !cpu.path.starts_with(&root);
        let memory = elsewhere.then(|| Group::at(root.join(cpu.path.file_name().unwrap()), v1));
        let group = Self { cpu, memory };
        let limit = if v1 {
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

    /// Lets its threads sleep above `bytes`; why not, where that cannot be had.
    pub fn set_high(&self, bytes: u64) -> Result<(), String> {
        let file = self.memory().join("memory.high");
        fs::write(&file, bytes.to_string()).map_err(|error| format!("{}: {error}", file.display()))
    }

    /// What it has now, in bytes.
    pub fn bytes(&self) -> u64 {
        let text = fs::read_to_string(self.memory().join("memory.current")).unwrap();
        text.trim().parse().unwrap()
    }

    /// How long some thread of it was stalled for want of memory: `some .. total=` of
    /// `memory.pressure`, which counts microseconds. None where the kernel does not.
    pub fn stalled_ns(&self) -> Option<u64> {
        let text = fs::read_to_string(self.memory().join("memory.pressure")).ok()?;
        let some = text.lines().find(|line| line.starts_with("some "))?;
        let (_, us) = some.rsplit_once("total=")?;
        Some(us.parse::<u64>().unwrap() * 1_000)
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
        Hog::start(&self.procs().collect::<Vec<_>>(), move || {
            touch(threads, bytes)
        })
    }

    /// One that keeps what it got; returns when it has.
    pub fn hog_and_stay(&self, bytes: u64) -> Hog {
        let (mut told, mut tell) = io::pipe().unwrap();
        let hog = Hog::start(&self.procs().collect::<Vec<_>>(), move || {
            touch(1, bytes);
            let _ = tell.write_all(b"!");
            thread::sleep(STAY);
        });
        told.read_exact(&mut [0]).unwrap();
        hog
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
            .procs()
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

    /// The files by which it is entered.
    pub fn procs(&self) -> impl Iterator<Item = PathBuf> {
        [Some(&self.cpu), self.memory.as_ref()]
            .into_iter()
            .flatten()
            .map(|group| group.path.join("cgroup.procs"))
    }
}

/// Allocates in several threads, and writes to every page of it.
fn touch(threads: u32, bytes: u64) {
    let part = usize::try_from(bytes).unwrap() / threads as usize;
    let hog = move || {
        let mut memory = vec![0_u8; part];
        memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        std::hint::black_box(&memory);
    };
    let hogs: Vec<_> = (0..threads).map(|_| thread::spawn(hog)).collect();
    for hog in hogs {
        hog.join().unwrap();
    }
}

/// A process that uses memory; killed if the test fails before it has ended.
pub struct Hog(Option<Pid>);

impl Hog {
    /// Forks a child that enters the groups before it does anything else.
    fn start(groups: &[PathBuf], work: impl FnOnce()) -> Self {
        // SAFETY: the child allocates and starts threads, which the C library makes possible
        // after a fork, and ends without returning.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "{}", io::Error::last_os_error());
        if pid == 0 {
            let entered = groups.iter().all(|file| fs::write(file, "0").is_ok());
            if entered {
                work();
            }
            // SAFETY: ends this process.
            unsafe { libc::_exit(i32::from(!entered)) };
        }
        Self(Pid::from_raw(pid))
    }

    pub fn pid(&self) -> u32 {
        self.0.unwrap().as_raw_nonzero().get().unsigned_abs()
    }

    pub fn wait(mut self) -> WaitStatus {
        let pid = self.0.take();
        let ended = waitpid(pid, WaitOptions::empty()).unwrap();
        ended.unwrap().1
    }

    pub fn kill(self) {
        kill_process(self.0.unwrap(), Signal::KILL).unwrap();
        self.wait();
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        if let Some(pid) = self.0.take() {
            let _ = kill_process(pid, Signal::KILL);
            let _ = waitpid(Some(pid), WaitOptions::empty());
        }
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

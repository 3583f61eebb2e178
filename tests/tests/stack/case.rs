//! What every case has: an agent, a group under a quota, and the two questions.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use harness::{agent::Agent, artifact, cgroup::Cgroup, http, process::Process, wait};
use serde_json::Value;

/// A loop that needs nothing but a shell.
pub const BUSY: &str = "while :; do :; done";

/// Share of one CPU that a case gets, in percent: it is throttled at once.
const QUOTA_PERCENT: u64 = 5;

pub struct Case {
    pub agent: Agent,
    pub cgroup: Cgroup,
}

impl Case {
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let cgroup = Cgroup::create(&format!("isostack-test-stack-{name}"))?;
        cgroup.limit_cpu(QUOTA_PERCENT)?;
        Ok(Self {
            agent: Agent::start(&[])?,
            cgroup,
        })
    }

    /// The group's path as runtimes want it.
    pub fn path(&self) -> String {
        let name = self.cgroup.dir().file_name().unwrap_or_default();
        format!("/{}", name.to_string_lossy())
    }

    /// Starts a program in the group.
    pub fn start(&self, program: &str, args: &[&str]) -> anyhow::Result<Process> {
        Process::start(
            program,
            Command::new(program).args(args),
            Some(&self.cgroup),
        )
    }

    /// Starts a program in a group below, made for it.
    pub fn start_below(
        &self,
        group: &str,
        program: &str,
        args: &[&str],
    ) -> anyhow::Result<Process> {
        let dir = self.cgroup.dir().join(group);
        fs::create_dir_all(&dir)?;
        let enter = "echo $$ > \"$0\" && exec \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", enter]).arg(dir.join("cgroup.procs"));
        let started = Process::start(program, command.arg(program).args(args), None)?;
        wait::until("it is in its group", wait::PATIENCE, || {
            let procs = fs::read_to_string(dir.join("cgroup.procs")).ok()?;
            let pid = started.pid().to_string();
            procs.lines().any(|line| line == pid).then_some(())
        })?;
        Ok(started)
    }

    /// Both questions: what `stack PID` shows above the host's layers, and the layer of the
    /// throttled time of the workload called `label`.
    pub fn check(&self, pid: u32, above: &str, label: &str) -> anyhow::Result<Value> {
        let report = stack(pid)?;
        let host = stack_of(&shown(&[])?, "host");
        let whole = stack_of(&report, "stack");
        let shown_above = whole
            .strip_suffix(&host)
            .with_context(|| format!("{whole} does not end with the host's {host}"))?
            .trim_end_matches('/');
        ensure!(
            shown_above == above,
            "{shown_above}, not {above}: {report:#}"
        );
        let evidence = report["stack"].as_array().is_some_and(|entries| {
            let has = |e: &Value| e["evidence"].as_str().is_some_and(|text| !text.is_empty());
            entries.iter().all(has)
        });
        ensure!(evidence, "an entry without evidence: {report:#}");
        let layer = report["layer"].as_str().unwrap_or_default();
        throttled(&self.agent, layer, label)?;
        self.listed(&report)?;
        Ok(report)
    }

    /// Waits for the process's group in `/api/v1/workloads`, with the same stack: the agent may
    /// have seen the process before it was what it is.
    fn listed(&self, report: &Value) -> anyhow::Result<()> {
        let row = || {
            let rows = self.agent.api("/api/v1/workloads?limit=1000").ok()?;
            let group = &report["workload"]["cgroup_id"];
            let mut rows = rows["workloads"].as_array()?.iter();
            rows.find(|row| row["workload"]["cgroup_id"] == *group)
                .cloned()
        };
        let same = |row: &Value| {
            stack_of(row, "stack") == stack_of(report, "stack") && row["layer"] == report["layer"]
        };
        wait::until("the same stack among the workloads", wait::PATIENCE, || {
            row().filter(same).map(drop)
        })
        .with_context(|| format!("{:#?}, not {report:#}", row()))
    }
}

/// Waits for throttled time of this layer and workload.
pub fn throttled(agent: &Agent, layer: &str, label: &str) -> anyhow::Result<()> {
    let (layer, label) = (
        format!("layer=\"{layer}\""),
        format!("container=\"{label}\""),
    );
    wait::until("throttled time in /metrics", wait::PATIENCE, || {
        let page = http::get(&agent.url("/metrics")).ok()?.body;
        page.lines()
            .filter(|line| line.starts_with("isostack_cpu_throttled_seconds_total{"))
            .filter(|line| line.contains(&layer) && line.contains(&label))
            .any(|line| value(line) > 0.0)
            .then_some(())
    })
    .with_context(|| {
        let page = http::get(&agent.url("/metrics")).map(|answer| answer.body);
        let lines = page.unwrap_or_default();
        let lines: Vec<&str> = lines
            .lines()
            .filter(|line| line.starts_with("isostack_cpu_throttled_seconds_total{"))
            .collect();
        format!("{layer} {label} among\n{}", lines.join("\n"))
    })
}

fn value(line: &str) -> f64 {
    let text = line.rsplit_once("} ").map_or("", |(_, rest)| rest);
    text.split(' ')
        .next()
        .and_then(|v| v.parse().ok())
        .unwrap_or(0.0)
}

/// The document of `stack ARGS --output json`.
pub fn shown(args: &[&str]) -> anyhow::Result<Value> {
    let output = Command::new(artifact::program("isostack-agent")?)
        .arg("stack")
        .args(args)
        .args(["--output", "json"])
        .output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "stack {args:?}: {error}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

pub fn stack(pid: u32) -> anyhow::Result<Value> {
    shown(&[&pid.to_string()])
}

pub fn stack_of(report: &Value, key: &str) -> String {
    let entries = report[key].as_array().map_or(&[][..], |list| list);
    let entries = entries.iter().map(|entry| {
        let text = |key: &str| entry[key].as_str().unwrap_or_default();
        format!("{}:{}", text("layer"), text("technology"))
    });
    entries.collect::<Vec<_>>().join("/")
}

/// Waits for a process below `pid` (or itself) whose `comm` is this.
pub fn descendant(pid: u32, comm: &str) -> anyhow::Result<u32> {
    wait::until(comm, wait::PATIENCE, || find(pid, comm))
}

fn find(pid: u32, comm: &str) -> Option<u32> {
    let own = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    let mut children = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        children.extend(text.split_whitespace().flat_map(str::parse::<u32>));
    }
    // The deepest first: a launcher may have the same name as what it launches.
    children
        .into_iter()
        .find_map(|child| find(child, comm))
        .or_else(|| (own.trim_end() == comm).then_some(pid))
}

/// A root file system with a static busybox, and whatever else a case copies into it.
pub struct Root {
    pub dir: tempfile::TempDir,
}

impl Root {
    pub fn new() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        for name in ["bin", "proc", "dev", "sys", "tmp", "usr/bin"] {
            fs::create_dir_all(dir.path().join("rootfs").join(name))?;
        }
        let root = Self { dir };
        root.copy(Path::new("/bin/busybox"))
            .context("needs /bin/busybox: install busybox-static")?;
        Ok(root)
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    /// Copies a file of this machine to the same place in it.
    pub fn copy(&self, file: &Path) -> anyhow::Result<()> {
        let to = self.path().join(file.strip_prefix("/")?);
        fs::create_dir_all(to.parent().context("a file has a folder")?)?;
        fs::copy(file, to)?;
        Ok(())
    }

    /// Copies a program and the libraries that it needs.
    pub fn copy_program(&self, file: &Path) -> anyhow::Result<()> {
        self.copy(file)?;
        let output = Command::new("ldd").arg(file).output()?;
        for word in String::from_utf8_lossy(&output.stdout).split_whitespace() {
            if word.starts_with('/') {
                self.copy(Path::new(word))?;
            }
        }
        Ok(())
    }
}

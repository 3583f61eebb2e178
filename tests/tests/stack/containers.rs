//! Containers and the sandboxes that speak their language: runc, crun, Podman, bubblewrap in
//! runc, gVisor.

use std::{
    fs,
    path::Path,
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, ensure};
use harness::{debian, guardian::Guardian, peers, process::Process, wait};
use serde_json::{Value, json};

use crate::case::{BUSY, Case, Root, descendant};

/// A bundle for any OCI runtime, in a group below the case's; the container goes with it.
struct Bundle {
    id: String,
    runtime: String,
    flags: Vec<String>,
    root: Root,
    _guardian: Guardian,
}

impl Bundle {
    fn new(
        case: &Case,
        runtime: &str,
        flags: &[&str],
        root: Root,
        args: &[&str],
    ) -> anyhow::Result<Self> {
        let name = Path::new(runtime)
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        // Tests of one program run at once: a second container of one name is refused, and the
        // first one's guardian would take it away.
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let nth = STARTED.fetch_add(1, Ordering::Relaxed);
        let id = format!("{name}-{}-{nth}", process::id());
        let mut remove = vec![runtime.to_owned()];
        remove.extend(flags.iter().map(|flag| (*flag).to_owned()));
        remove.extend(["delete".to_owned(), "--force".to_owned(), id.clone()]);
        let guardian = Guardian::new("\"$@\"", &remove)?;
        let config = config(&format!("{}/{id}", case.path()), args);
        fs::write(root.dir.path().join("config.json"), config.to_string())?;
        Ok(Self {
            id,
            runtime: runtime.to_owned(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            root,
            _guardian: guardian,
        })
    }

    fn run(&self) -> anyhow::Result<Process> {
        let mut command = Command::new(&self.runtime);
        self.run_by(&mut command)
    }

    /// `run` of the runtime, behind whatever `command` has so far.
    fn run_by(&self, command: &mut Command) -> anyhow::Result<Process> {
        command.args(&self.flags).args(["run", "--bundle"]);
        command.arg(self.root.dir.path()).arg(&self.id);
        Process::start(&self.runtime, command, None)
    }
}

pub fn config(cgroup: &str, args: &[&str]) -> Value {
    let capabilities = [
        "CAP_SYS_ADMIN",
        "CAP_SETUID",
        "CAP_SETGID",
        "CAP_NET_ADMIN",
        "CAP_SYS_CHROOT",
        "CAP_SETPCAP",
        "CAP_DAC_OVERRIDE",
        "CAP_SYS_PTRACE",
    ];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/bin:/usr/bin"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities
            },
        },
        "root": {"path": "rootfs", "readonly": false},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": [
                {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                {"type": "network"},
            ],
        },
    })
}

const BUSYBOX: [&str; 4] = ["/bin/busybox", "sh", "-c", BUSY];

/// As `container_label` shortens an id that is a hash.
pub fn label(id: &str) -> &str {
    let is_hash = id.len() >= 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    if is_hash { &id[..12] } else { id }
}

#[test]
fn runc_inside_a_group_with_a_quota() -> anyhow::Result<()> {
    peers::need("runc")?;
    let case = Case::new("runc")?;
    let bundle = Bundle::new(&case, "runc", &[], Root::new()?, &BUSYBOX)?;
    let run = bundle.run()?;
    let init = descendant(run.pid(), "busybox")?;
    let report = case.check(init, "L-3:runc", label(&bundle.id))?;
    assert_eq!(report["workload"]["container_id"], bundle.id.as_str());
    assert_eq!(report["workload"]["runtime"], "runc");
    Ok(())
}

#[test]
fn bubblewrap_inside_runc() -> anyhow::Result<()> {
    peers::need("runc")?;
    peers::need("bwrap")?;
    let case = Case::new("nested")?;
    let root = Root::new()?;
    root.copy_program(Path::new("/usr/bin/bwrap"))?;
    let wrap = [
        "/usr/bin/bwrap",
        "--bind",
        "/",
        "/",
        "--unshare-pid",
        "--unshare-ipc",
    ];
    let bundle = Bundle::new(&case, "runc", &[], root, &[&wrap[..], &BUSYBOX].concat())?;
    let run = bundle.run()?;
    let inner = descendant(run.pid(), "busybox")?;
    case.check(inner, "L-4:bubblewrap/L-3:runc", label(&bundle.id))?;
    Ok(())
}

#[test]
fn crun() -> anyhow::Result<()> {
    peers::need("crun")?;
    let case = Case::new("crun")?;
    let bundle = Bundle::new(&case, "crun", &[], Root::new()?, &BUSYBOX)?;
    // It refuses hosts with both generations of cgroups: in mounts of its own, one is gone.
    let hide = "mountpoint -q /sys/fs/cgroup/unified && umount /sys/fs/cgroup/unified; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", hide, "sh", "crun"]);
    let mut run = bundle.run_by(&mut command)?;
    let init = match descendant(run.pid(), "busybox") {
        Err(_) if !run.is_running() => {
            println!("not run: crun cannot run here: {}", run.output());
            return Ok(());
        }
        init => init?,
    };
    case.check(init, "L-3:crun", label(&bundle.id))?;
    Ok(())
}

/// Podman with all that it keeps below one folder.
pub struct Podman(Vec<String>);

impl Podman {
    pub fn in_folder(folder: &Path) -> Self {
        let at = |name: &str| folder.join(name).display().to_string();
        let flags = [
            "--root",
            &at("root"),
            "--runroot",
            &at("run"),
            "--tmpdir",
            &at("tmp"),
            "--storage-driver",
            "vfs",
            "--cgroup-manager",
            "cgroupfs",
            "--runtime",
            "runc",
        ];
        Self(flags.map(str::to_owned).into())
    }

    /// Removes its containers at the end.
    pub fn guardian(&self) -> anyhow::Result<Guardian> {
        let mut remove = vec!["podman".to_owned()];
        remove.extend_from_slice(&self.0);
        remove.extend(["rm", "-f", "-a", "-t", "0"].map(str::to_owned));
        Ok(Guardian::new("\"$@\"", &remove)?)
    }

    pub fn command(&self) -> Command {
        // Limits above the caller's own would need a right that not every machine gives.
        let lowered = "ulimit -n 1024; ulimit -u 4096; exec podman \"$@\"";
        let mut command = Command::new("bash");
        command.args(["-c", lowered, "bash"]).args(&self.0);
        command
    }
}

#[test]
fn podman() -> anyhow::Result<()> {
    peers::need("podman")?;
    let case = Case::new("podman")?;
    let root = Root::new()?;
    let store = tempfile::tempdir()?;
    let podman = Podman::in_folder(store.path());
    let guardian = podman.guardian()?;
    let output = podman
        .command()
        .args([
            "run",
            "--detach",
            "--network=none",
            "--cgroup-parent",
            &case.path(),
        ])
        .arg("--rootfs")
        .arg(root.path())
        .args(BUSYBOX)
        .output()?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "podman run: {error}");
    let id = String::from_utf8(output.stdout)?.trim().to_owned();
    let pid = wait::until("the container's pid", wait::PATIENCE, || {
        let mut inspect = podman.command();
        inspect.args(["inspect", "--format", "{{.State.Pid}}", &id]);
        let text = String::from_utf8(inspect.output().ok()?.stdout).ok()?;
        text.trim().parse().ok().filter(|pid: &u32| *pid != 0)
    })?;
    let report = case.check(pid, "L-3:runc/L-3:podman/L-3:seccomp", label(&id))?;
    assert_eq!(report["workload"]["container_id"], id.as_str());
    assert_eq!(report["workload"]["runtime"], "podman");
    drop(guardian);
    Ok(())
}

/// gVisor on a platform: the sentry, the gofer, and the busy program itself.
fn gvisor(platform: &str) -> anyhow::Result<()> {
    let runsc = match debian::runsc() {
        Ok(runsc) => runsc.display().to_string(),
        Err(error) => {
            println!("not run: gVisor cannot be had here: {error:#}");
            return Ok(());
        }
    };
    let case = Case::new(platform)?;
    let state = tempfile::tempdir()?;
    let state_dir = state.path().display().to_string();
    let on = format!("--platform={platform}");
    let flags = ["--root", &state_dir, &on, "--network=none"];
    let bundle = Bundle::new(&case, &runsc, &flags, Root::new()?, &BUSYBOX)?;
    let mut run = bundle.run()?;
    let sentry = wait::until("a sentry that stays", wait::PATIENCE, || {
        if !run.is_running() {
            return Some(None);
        }
        let state = Command::new(&runsc)
            .args(flags)
            .args(["state", &bundle.id])
            .output()
            .ok()?;
        let state: Value = serde_json::from_slice(&state.stdout).ok()?;
        (state["status"] == "running").then(|| state["pid"].as_u64())
    })?;
    std::thread::sleep(std::time::Duration::from_millis(500));
    if sentry.is_none() || !run.is_running() {
        println!(
            "not run: gVisor's {platform} does not run on this machine: {}",
            run.output()
        );
        return Ok(());
    }
    let sentry = u32::try_from(sentry.context("its pid")?)?;
    let report = case.check(sentry, "L-4:gvisor", label(&bundle.id))?;
    assert_eq!(report["workload"]["container_id"], bundle.id.as_str());
    let evidence = report["stack"][0]["evidence"].as_str().unwrap_or_default();
    assert!(evidence.contains("sentry"), "{evidence}");
    assert!(
        evidence.contains(&format!("platform {platform}")),
        "{evidence}"
    );
    // What runs the program's own code is a child of the sentry.
    let children = fs::read_dir(format!("/proc/{sentry}/task"))?.flatten();
    let program = children
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| {
            text.split_whitespace()
                .flat_map(str::parse::<u32>)
                .collect::<Vec<_>>()
        })
        .next()
        .context("the sentry has no children")?;
    case.check(program, "L-4:gvisor", label(&bundle.id))?;
    Ok(())
}

#[test]
fn gvisor_systrap() -> anyhow::Result<()> {
    gvisor("systrap")
}

#[test]
fn gvisor_ptrace() -> anyhow::Result<()> {
    gvisor("ptrace")
}

//! The services that run in containers: by runc, and in gVisor.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use harness::{artifact, debian, guardian::Guardian, peers, process::Process, wait};
use serde_json::{Value, json};

use super::{REFUSED, Running, Service, Site, address, found};

/// A container of one of the Python services.
struct Container<'a> {
    service: Service,
    site: &'a Site<'a>,
    /// What the program is told beside its address.
    arguments: Vec<String>,
    /// Beside the host's folders.
    mounts: Vec<Value>,
    /// The runtime and its flags.
    runtime: Vec<String>,
}

pub(super) fn store(site: &Site<'_>) -> anyhow::Result<Running> {
    peers::need("runc")?;
    let data = site.dir.join("data");
    fs::create_dir_all(&data)?;
    let mut arguments = vec!["/data".to_owned()];
    if site.has_rates {
        arguments.push(address(site, Service::Rates));
    }
    let container = Container {
        service: Service::Store,
        site,
        arguments,
        mounts: vec![
            // With the disk that is mounted below it.
            json!({"destination": "/data", "type": "bind", "source": data,
            "options": ["rbind", "rw"]}),
        ],
        runtime: vec!["runc".to_owned(), "--root".to_owned(), state(site, "runc")],
    };
    let filter = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": REFUSED, "action": "SCMP_ACT_ERRNO", "errnoRet": libc::EPERM}]});
    let (process, guardian) = container.run(Some(filter))?;
    found(process, "python", Some(guardian))
}

/// With the sockets of its network namespace: gVisor's own network would want more of the lab's.
pub(super) fn rates(site: &Site<'_>) -> anyhow::Result<Running> {
    let runtime = vec![
        debian::runsc()?.display().to_string(),
        "--root".to_owned(),
        state(site, "runsc"),
        "--platform=systrap".to_owned(),
        "--network=host".to_owned(),
    ];
    let container = Container {
        service: Service::Rates,
        site,
        arguments: Vec::new(),
        mounts: Vec::new(),
        runtime: runtime.clone(),
    };
    let (process, guardian) = container.run(None)?;
    let pid = wait::until("the sentry", wait::PATIENCE, || {
        let mut runsc = Command::new(&runtime[0]);
        runsc
            .args(&runtime[1..])
            .args(["state", Service::Rates.name()]);
        let state: Value = serde_json::from_slice(&runsc.output().ok()?.stdout).ok()?;
        u32::try_from(state["pid"].as_u64()?)
            .ok()
            .filter(|pid| *pid > 0)
    })?;
    Ok(Running {
        pid,
        process,
        _guardian: Some(guardian),
    })
}

/// A runtime's state of our own: all names are free.
fn state(site: &Site<'_>, runtime: &str) -> String {
    site.dir.join(runtime).display().to_string()
}

impl Container<'_> {
    fn run(&self, seccomp: Option<Value>) -> anyhow::Result<(Process, Guardian)> {
        let Self { service, site, .. } = *self;
        let name = service.name();
        let bundle: PathBuf = site.dir.join(name);
        let mut mounts = bind_mounts(&bundle.join("rootfs"))?;
        mounts.extend(self.mounts.iter().cloned());
        let program = format!("tests/services/python/{name}.py");
        let mut args = vec![
            peers::python()?.display().to_string(),
            artifact::root().join(program).display().to_string(),
            address(site, service),
        ];
        args.extend(self.arguments.iter().cloned());
        let env = [
            "PATH=/usr/local/bin:/usr/bin:/bin".to_owned(),
            "PYTHONUNBUFFERED=1".to_owned(),
            "PYTHONDONTWRITEBYTECODE=1".to_owned(),
            format!("OTEL_SERVICE_NAME={name}"),
            format!("OTEL_EXPORTER_OTLP_ENDPOINT=http://{}", site.otlp_grpc),
        ];
        let netns = &site.network.place(name).netns;
        let mut config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false, "user": {"uid": 0, "gid": 0}, "args": args, "env": env,
                "cwd": "/",
                "capabilities": {"bounding": ["CAP_DAC_OVERRIDE"],
                    "effective": ["CAP_DAC_OVERRIDE"], "permitted": ["CAP_DAC_OVERRIDE"]},
            },
            "root": {"path": "rootfs", "readonly": false},
            "mounts": mounts,
            "linux": {
                "cgroupsPath": site.groups.path(service.group()),
                "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"},
                    {"type": "mount"},
                    {"type": "network", "path": format!("/var/run/netns/{netns}")}],
            },
        });
        if let Some(filter) = seccomp {
            config["linux"]["seccomp"] = filter;
        }
        let file = bundle.join("config.json");
        fs::write(&file, config.to_string()).with_context(|| file.display().to_string())?;
        let gone = "id=\"$1\"; shift; \"$@\" delete --force \"$id\"";
        let runtime = self.runtime.iter().map(OsStr::new);
        let known: Vec<&OsStr> = std::iter::once(OsStr::new(name)).chain(runtime).collect();
        let guardian = Guardian::new(gone, &known)?;
        let mut run = Command::new(&self.runtime[0]);
        run.args(&self.runtime[1..]).args(["run", "--bundle"]);
        let mut process = Process::start(name, run.arg(&bundle).arg(name), None)?;
        process.wait_for_line("listening ")?;
        Ok((process, guardian))
    }
}

/// Every folder of the host's root, read-only, in the container's; the kernel's own anew.
fn bind_mounts(root: &Path) -> anyhow::Result<Vec<Value>> {
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc"}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}),
    ];
    for name in ["proc", "dev", "sys", "run", "data"] {
        fs::create_dir_all(root.join(name))?;
    }
    for entry in fs::read_dir("/")?.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if root.join(&name).exists() {
            continue;
        }
        if let Ok(target) = fs::read_link(&path) {
            symlink(target, root.join(&name))?;
        } else if path.is_dir() {
            fs::create_dir(root.join(&name))?;
            mounts.push(json!({"destination": path, "type": "bind", "source": path,
                "options": ["rbind", "ro"]}));
        }
    }
    Ok(mounts)
}

//! One table: a real service with its upstream SDK inside of each runtime (or, where none can be,
//! a [`Relay`]), under a CPU quota. `stack PID`, the throttled time in `/metrics` and the span in
//! Jaeger say the same.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{self, Command},
};

use anyhow::{Context as _, ensure};
use harness::{
    artifact,
    cgroup::Cgroup,
    debian,
    guardian::Guardian,
    peers,
    service::{Language, Service},
    wait,
};
use serde_json::{Value, json};

use crate::{
    case::{stack, stack_of},
    containers::{Podman, config, label},
    relay::Relay,
    spans::Spans,
};

/// Share of one CPU under the quota, in percent.
const QUOTA_PERCENT: u64 = 10;
/// CPU time of the request that is held back: six periods of the quota.
const WORK_MS: u64 = 60;

/// One way to run something.
struct Row {
    name: &'static str,
    /// What `stack` shows above the host's layers.
    above: &'static str,
    /// An error that begins with [`NOT_RUN`] is a reason not to.
    start: fn(&Place<'_>) -> anyhow::Result<Started>,
}

/// What a machine cannot run is said, and no failure.
const NOT_RUN: &str = "not run:";

/// Where a service goes.
struct Place<'a> {
    cgroup: &'a Cgroup,
    /// Where it sends its spans, over gRPC.
    endpoint: String,
    /// The same over HTTP, as `HOST:PORT`.
    http: &'a str,
    dir: tempfile::TempDir,
}

/// A running sender of spans, and what takes its runtime away after it.
struct Started {
    sender: Sender,
    _guardian: Option<Guardian>,
}

enum Sender {
    Service(Service),
    Relay(Relay),
}

impl Sender {
    /// The trace of a request that takes this much CPU time.
    fn trace(&mut self, cpu_ms: u64) -> anyhow::Result<String> {
        match self {
            Self::Service(service) => service.trace_of_request(cpu_ms),
            Self::Relay(relay) => relay.trace(),
        }
    }
}

const TABLE: &[Row] = &[
    Row {
        name: "plain",
        above: "",
        start: |place| place.start(&[]),
    },
    Row {
        name: "unit",
        above: "",
        start: unit,
    },
    Row {
        name: "seccomp",
        above: "L-4:seccomp",
        start: |place| place.start(&["python3", "-c", FILTER]),
    },
    Row {
        name: "bubblewrap",
        above: "L-4:bubblewrap",
        start: |place| {
            peers::need("bwrap")?;
            place.start(BUBBLEWRAP)
        },
    },
    Row {
        name: "wasmtime",
        above: "L-4:wasm/L-4:wasmtime",
        start: wasmtime,
    },
    Row {
        name: "runc",
        above: "L-3:runc",
        start: |place| {
            peers::need("runc")?;
            place.run(&["runc"], &[], &[])
        },
    },
    Row {
        name: "runc-bubblewrap",
        above: "L-4:bubblewrap/L-3:runc",
        start: |place| {
            peers::need("runc")?;
            peers::need("bwrap")?;
            place.run(&["runc"], &[], BUBBLEWRAP)
        },
    },
    Row {
        name: "crun",
        above: "L-3:crun",
        start: crun,
    },
    Row {
        name: "podman",
        above: "L-3:runc/L-3:podman/L-3:seccomp",
        start: podman,
    },
    Row {
        name: "qemu",
        above: "L-1:qemu",
        start: |place| {
            peers::need("qemu-system-x86_64")?;
            let relay = Relay::qemu(&place.cgroup.procs(), place.http, place.dir.path());
            Ok(relay?.into())
        },
    },
    Row {
        name: "wasmedge",
        above: "L-4:wasm/L-4:wasmedge",
        start: |place| Ok(Relay::wasmedge(&place.cgroup.procs(), place.http)?.into()),
    },
    Row {
        name: "gvisor-systrap",
        above: "L-4:gvisor",
        start: |place| gvisor(place, "systrap"),
    },
    Row {
        name: "gvisor-ptrace",
        above: "L-4:gvisor",
        start: |place| gvisor(place, "ptrace"),
    },
];

/// prctl(PR_SET_NO_NEW_PRIVS), then PR_SET_SECCOMP with one instruction: allow.
const FILTER: &str = "
import ctypes, os, struct, sys
libc = ctypes.CDLL(None)
code = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0x7fff0000))
program = ctypes.create_string_buffer(struct.pack('HP', 1, ctypes.addressof(code)))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, program, 0, 0) == 0
os.execvp(sys.argv[1], sys.argv[1:])";

const BUBBLEWRAP: &[&str] = &[
    "bwrap",
    "--bind",
    "/",
    "/",
    "--dev",
    "/dev",
    "--unshare-pid",
    "--unshare-ipc",
    "--die-with-parent",
];

/// A group of a name that systemd gives.
fn unit(place: &Place<'_>) -> anyhow::Result<Started> {
    let group = place.cgroup.dir().join("web.slice/shop.service");
    fs::create_dir_all(&group)?;
    let procs = group.join("cgroup.procs").display().to_string();
    place.start(&["sh", "-c", "echo $$ > \"$0\" && exec \"$@\"", &procs])
}

/// The engine as a library of the service.
fn wasmtime(place: &Place<'_>) -> anyhow::Result<Started> {
    let requirements = artifact::root().join("tests/wasm/requirements.txt");
    let python = peers::python_env("wasm", &requirements)?;
    let library = python.parent().and_then(Path::parent).context("bin")?;
    let script = "
import glob, os, runpy, sys
sys.path.append(glob.glob(sys.argv.pop(1) + '/lib/python3*/site-packages')[0])
import wasmtime
wasmtime.Store()
del sys.argv[0]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name='__main__')";
    let inner = Language::Python.command()?;
    let mut command = Command::new(inner.get_program());
    command.args(["-c", script]).arg(library);
    command.args(inner.get_args());
    place.start_command(command, Some(place.cgroup), None)
}

/// It refuses hosts with both generations of cgroups: in mounts of its own, one is gone.
fn crun(place: &Place<'_>) -> anyhow::Result<Started> {
    peers::need("crun")?;
    let hide = "mountpoint -q /sys/fs/cgroup/unified && umount /sys/fs/cgroup/unified; exec \"$@\"";
    let hidden = ["unshare", "--mount", "sh", "-c", hide, "sh", "crun"];
    place
        .run(&hidden, &[], &[])
        .with_context(|| format!("{NOT_RUN} crun cannot run here"))
}

fn gvisor(place: &Place<'_>, platform: &str) -> anyhow::Result<Started> {
    let runsc = debian::runsc().with_context(|| format!("{NOT_RUN} gVisor cannot be had here"))?;
    let runsc = runsc.display().to_string();
    let state = place.dir.path().join("state").display().to_string();
    let on = format!("--platform={platform}");
    place
        .run(&[&runsc], &["--root", &state, &on, "--network=host"], &[])
        .with_context(|| format!("{NOT_RUN} gVisor's {platform} does not run on this machine"))
}

fn podman(place: &Place<'_>) -> anyhow::Result<Started> {
    peers::need("podman")?;
    let podman = Podman::in_folder(place.dir.path());
    let guardian = podman.guardian()?;
    let rootfs = place.dir.path().join("rootfs");
    fs::create_dir_all(rootfs.join("proc"))?;
    let mut command = podman.command();
    command.args(["run", "--network=host", "--cgroup-parent", &place.path()]);
    for folder in host_folders()? {
        let folder = folder.display();
        command.args(["--volume", &format!("{folder}:{folder}:ro,rbind")]);
    }
    for variable in place.environment() {
        command.args(["--env", &variable]);
    }
    command.arg("--rootfs").arg(&rootfs);
    let inner = Language::Python.command()?;
    command.arg(inner.get_program()).args(inner.get_args());
    place.start_command(command, None, Some(guardian))
}

/// The machine's own files, so that a service and its interpreter are there.
fn host_folders() -> anyhow::Result<Vec<PathBuf>> {
    let own = ["proc", "dev", "sys"].map(|name| Path::new("/").join(name));
    let entries = fs::read_dir("/")?.flatten().map(|entry| entry.path());
    Ok(entries
        .filter(|path| path.is_dir() && !own.contains(path))
        .collect())
}

impl From<Relay> for Started {
    fn from(relay: Relay) -> Self {
        Self {
            sender: Sender::Relay(relay),
            _guardian: None,
        }
    }
}

impl Place<'_> {
    /// The group's path as runtimes want it.
    fn path(&self) -> String {
        let name = self.cgroup.dir().file_name().unwrap_or_default();
        format!("/{}", name.to_string_lossy())
    }

    fn environment(&self) -> [String; 4] {
        [
            "PYTHONUNBUFFERED=1".to_owned(),
            "PYTHONDONTWRITEBYTECODE=1".to_owned(),
            "OTEL_SERVICE_NAME=svc".to_owned(),
            format!("OTEL_EXPORTER_OTLP_ENDPOINT={}", self.endpoint),
        ]
    }

    /// The service behind a command, in the group.
    fn start(&self, wrapper: &[&str]) -> anyhow::Result<Started> {
        let command = harness::service::wrap(wrapper, Language::Python.command()?);
        self.start_command(command, Some(self.cgroup), None)
    }

    fn start_command(
        &self,
        command: Command,
        cgroup: Option<&Cgroup>,
        guardian: Option<Guardian>,
    ) -> anyhow::Result<Started> {
        let python = Language::Python;
        let service = Service::start_command(command, python, "svc", &self.endpoint, cgroup)?;
        Ok(Started {
            sender: Sender::Service(service),
            _guardian: guardian,
        })
    }

    /// The service, behind a command, as a container of an OCI runtime in a group below.
    fn run(&self, runtime: &[&str], flags: &[&str], wrapper: &[&str]) -> anyhow::Result<Started> {
        let program = runtime.last().context("a runtime")?;
        let id = format!("inside-{}", self.path().trim_start_matches('/'));
        let remove = [&[*program], flags, &["delete", "--force", &id]].concat();
        let guardian = Guardian::new("\"$@\"", &remove)?;
        let inner = harness::service::wrap(wrapper, Language::Python.command()?);
        let words: Vec<String> = std::iter::once(inner.get_program())
            .chain(inner.get_args())
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut config = config(&format!("{}/{id}", self.path()), &words);
        let mounts = config["mounts"].as_array_mut().context("mounts")?;
        for path in host_folders()? {
            mounts.push(json!({
                "destination": path, "source": path, "type": "bind", "options": ["rbind", "ro"],
            }));
        }
        let mut environment = vec!["PATH=/bin:/usr/bin".to_owned()];
        environment.extend(self.environment());
        config["process"]["env"] = json!(environment);
        config["linux"]["namespaces"] = json!([{"type": "pid"}, {"type": "mount"}]);
        fs::create_dir_all(self.dir.path().join("rootfs"))?;
        fs::write(self.dir.path().join("config.json"), config.to_string())?;
        let mut command = Command::new(runtime[0]);
        command.args(&runtime[1..]).args(flags);
        command
            .args(["run", "--bundle"])
            .arg(self.dir.path())
            .arg(&id);
        self.start_command(command, None, Some(guardian))
    }

    /// The process that a span of the service is from: its interpreter, or the sentry that
    /// stands in for the kernel.
    fn sender(&self) -> anyhow::Result<u32> {
        wait::until("the service's process", wait::PATIENCE, || {
            let mut found = Vec::new();
            processes(self.cgroup.dir(), &mut found);
            found.sort_unstable();
            found.into_iter().find(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let first = line.split(|byte| *byte == 0).next().unwrap_or_default();
                let first = String::from_utf8_lossy(first).into_owned();
                let name = first.rsplit('/').next().unwrap_or_default();
                let others = ["runsc-sandbox", "qemu-system-x86_64", "wasmedge"];
                name.starts_with("python") || others.contains(&name)
            })
        })
    }
}

fn processes(group: &Path, found: &mut Vec<u32>) {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    found.extend(text.lines().flat_map(str::parse::<u32>));
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            processes(&entry.path(), found);
        }
    }
}

/// What the workload is called in metrics, as `stack PID` names it.
fn workload_label(report: &Value) -> String {
    let text = |key: &str| report["workload"][key].as_str().unwrap_or_default();
    let id = text("container_id");
    let id = label(id);
    let names = [text("container"), id, text("unit")];
    let first = names.into_iter().find(|name| !name.is_empty());
    first.unwrap_or_default().to_owned()
}

impl Row {
    fn check(&self, spans: &Spans) -> anyhow::Result<()> {
        let cgroup = Cgroup::create(&format!("isostack-test-inside-{}", self.name))?;
        let place = Place {
            cgroup: &cgroup,
            endpoint: spans.endpoint(),
            http: spans.otlp_http(),
            dir: tempfile::tempdir()?,
        };
        let mut started = (self.start)(&place)?;
        let report = stack(place.sender()?)?;
        let whole = stack_of(&report, "stack");
        let expected = [self.above, &spans.host].join("/");
        let expected = expected.trim_start_matches('/');
        ensure!(whole == expected, "stack PID: {whole}: {report:#}");

        for _ in 0..3 {
            let trace = started.sender.trace(5)?;
            spans.jaeger.wait_for_trace(&trace, 1)?;
        }
        let layer = report["layer"].as_str().unwrap_or_default();
        let mut said = String::new();
        // What else the machine does may now and then cost the request more.
        for _ in 0..6 {
            cgroup.limit_cpu(QUOTA_PERCENT)?;
            let trace = started.sender.trace(WORK_MS)?;
            cgroup.limit_cpu(100)?;
            let span = wait::until("its server span", wait::PATIENCE, || {
                let spans = spans.jaeger.wait_for_trace(&trace, 1).ok()?;
                spans.into_iter().find(|span| span.operation == "GET /work")
            })?;
            said = format!("{:#?}", span.tags);
            let words = ["isostack.layer", "isostack.stack"].map(|key| span.text(key));
            ensure!(words == [layer, expected], "span: {said}");
            if span.text("isostack.cause") == "cpu_throttle" {
                return spans.throttled(layer, &workload_label(&report));
            }
        }
        anyhow::bail!("no span says cpu_throttle: {said}")
    }
}

#[test]
fn each_runtime_says_the_same_everywhere() -> anyhow::Result<()> {
    let spans = Spans::new()?;
    let wanted = std::env::var("ISOSTACK_TEST_ROW").unwrap_or_default();
    let mut failed = Vec::new();
    for row in TABLE.iter().filter(|row| row.name.contains(&*wanted)) {
        match row.check(&spans) {
            Ok(()) => println!("{}: {}", row.name, row.above),
            Err(error) if error.to_string().starts_with(NOT_RUN) => println!("{error:#}"),
            Err(error) => failed.push(format!("{} ({}): {error:#}", row.name, process::id())),
        }
    }
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

//! Installs what a fresh machine lacks, saying what and why; changes nothing that is there.

use std::{
    fmt, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use harness::{browser, debian, peers};

/// What the machine is to be made ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Purpose {
    /// Build and run the agent.
    Build,
    /// Build, and compare with other programs.
    Bench,
    /// Build, and put faults into services.
    Lab,
    /// Build, and boot virtual machines.
    Vm,
    /// All of these, and run every test.
    Test,
}

impl Purpose {
    fn includes(self, other: Self) -> bool {
        self == other || self == Self::Test || other == Self::Build
    }
}

/// A program and the Debian package that has it.
struct Need {
    /// A program on the path, or an absolute path.
    probe: &'static str,
    package: &'static str,
    why: &'static str,
    what_for: Purpose,
}

/// One row per program, in the order of installation.
const NEEDS: &[Need] = &[
    need("cc", "gcc", "links every program", Purpose::Build),
    need(
        "/usr/include/stdlib.h",
        "libc6-dev",
        "links every program",
        Purpose::Build,
    ),
    need(
        "go",
        "golang-go",
        "builds Jaeger and the Collector",
        Purpose::Bench,
    ),
    need(
        "taskset",
        "util-linux",
        "pins programs to one CPU",
        Purpose::Bench,
    ),
    need(
        "qemu-system-x86_64",
        "qemu-system-x86",
        "boots other kernels",
        Purpose::Vm,
    ),
    need(
        "/bin/busybox",
        "busybox-static",
        "the shell of their guests, and what runs in containers",
        Purpose::Vm,
    ),
    need("/sbin/depmod", "kmod", "their modules", Purpose::Vm),
    need("xz", "xz-utils", "unpacks them", Purpose::Vm),
    need(
        "ip",
        "iproute2",
        "namespaces of the join tests",
        Purpose::Lab,
    ),
    need(
        "setpriv",
        "util-linux",
        "runs the agent without privilege",
        Purpose::Test,
    ),
    need(
        "iptables",
        "iptables",
        "connections redirected on the node, as kube-proxy does",
        Purpose::Lab,
    ),
    need(
        "fio",
        "fio",
        "counts the I/O that the block sensor counts",
        Purpose::Lab,
    ),
    need("runc", "runc", "real containers", Purpose::Lab),
    need(
        "crun",
        "crun",
        "containers of another runtime",
        Purpose::Test,
    ),
    need("podman", "podman", "containers of an engine", Purpose::Test),
    need("bwrap", "bubblewrap", "a sandbox", Purpose::Lab),
    need("tc", "iproute2", "slow links of the lab", Purpose::Lab),
    need(
        "python3",
        "python3",
        "a service with the Python SDK",
        Purpose::Lab,
    ),
    need(
        "node",
        "nodejs",
        "a service with the JavaScript SDK",
        Purpose::Lab,
    ),
    need(
        "npm",
        "npm",
        "packages of the JavaScript service",
        Purpose::Lab,
    ),
    need(
        "javac",
        "default-jdk-headless",
        "a service with the Java SDK",
        Purpose::Lab,
    ),
    need("mvn", "maven", "packages of the Java service", Purpose::Lab),
    need(
        "prometheus",
        "prometheus",
        "a real Prometheus scrapes the agent",
        Purpose::Test,
    ),
    need("promtool", "prometheus", "checks /metrics", Purpose::Test),
];

const fn need(
    probe: &'static str,
    package: &'static str,
    why: &'static str,
    what_for: Purpose,
) -> Need {
    Need {
        probe,
        package,
        why,
        what_for,
    }
}

/// The command needs root and is not run by it.
#[derive(Debug)]
pub struct NoPrivilege(pub &'static str);

impl fmt::Display for NoPrivilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} needs root: run it again with sudo", self.0)
    }
}

impl std::error::Error for NoPrivilege {}

/// Fails unless run by root.
///
/// # Errors
/// [`NoPrivilege`] naming `what`.
pub fn need_root(what: &'static str) -> anyhow::Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    bail!(NoPrivilege(what))
}

/// Makes the machine ready.
///
/// # Errors
/// With a sentence for what could not be installed.
pub fn run(purpose: Purpose) -> anyhow::Result<()> {
    install_packages(purpose)?;
    if purpose.includes(Purpose::Lab) && !python_has_venv() {
        apt(&["python3-venv"], "an environment for the Python SDK")?;
    }
    if purpose.includes(Purpose::Bench) {
        check_go()?;
        peers::collector()?;
    }
    if purpose.includes(Purpose::Lab) {
        peers::python()?;
        peers::node()?;
        peers::java()?;
    }
    if purpose == Purpose::Test {
        peers::jaeger()?;
        cargo_deny()?;
        if browser::program().is_none()
            && let Err(error) = apt(&["chromium"], "clicks through the page")
        {
            println!("No browser, its test does not run: {error:#}");
        }
        // Without them their tests say that they did not run, and why.
        for made in [debian::runsc(), debian::wasmedge()] {
            if let Err(error) = made {
                println!("Not from a newer Debian: {error:#}");
            }
        }
    }
    Ok(())
}

fn install_packages(purpose: Purpose) -> anyhow::Result<()> {
    let missing: Vec<&Need> = NEEDS
        .iter()
        .filter(|need| purpose.includes(need.what_for) && !is_there(need.probe))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    packages.dedup();
    let reasons: Vec<String> = missing
        .iter()
        .map(|need| format!("{} ({})", need.package, need.why))
        .collect();
    apt(&packages, &reasons.join(", "))
}

fn is_there(probe: &str) -> bool {
    if probe.starts_with('/') {
        Path::new(probe).exists()
    } else {
        peers::has(probe)
    }
}

fn python_has_venv() -> bool {
    let mut python = Command::new("python3");
    python.args(["-c", "import venv, ensurepip"]);
    python.output().is_ok_and(|output| output.status.success())
}

/// Installs Debian packages.
fn apt(packages: &[&str], why: &str) -> anyhow::Result<()> {
    let list = packages.join(" ");
    if !peers::has("apt-get") {
        bail!("missing: {why}. This is no Debian or Ubuntu: install what corresponds to {list}");
    }
    need_root("installing packages")
        .with_context(|| format!("missing: {why}; or install by hand: {list}"))?;
    println!("Installing {why}");
    let _no_services = NoServices::new()?;
    let install = || {
        let mut apt = Command::new("apt-get");
        apt.args([
            "-o",
            "DPkg::Lock::Timeout=300",
            "install",
            "-y",
            "--no-install-recommends",
        ]);
        peers::run(apt.args(packages).env("DEBIAN_FRONTEND", "noninteractive"))
    };
    // The lists may be missing or old: only then are they fetched.
    if install().is_err() {
        peers::run(Command::new("apt-get").args(["-o", "DPkg::Lock::Timeout=300", "update"]))
            .context("cannot fetch the package lists")?;
        install().with_context(|| format!("cannot install {list}"))?;
    }
    Ok(())
}

/// While it lives, packages do not start their services (Prometheus would take a port).
struct NoServices(Option<PathBuf>);

impl NoServices {
    fn new() -> anyhow::Result<Self> {
        let policy = PathBuf::from("/usr/sbin/policy-rc.d");
        if policy.exists() {
            return Ok(Self(None));
        }
        fs::write(&policy, "#!/bin/sh\nexit 101\n")?;
        fs::set_permissions(&policy, fs::Permissions::from_mode(0o755))?;
        Ok(Self(Some(policy)))
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(policy) = &self.0 {
            // Fails only when somebody removed it already.
            let _ = fs::remove_file(policy);
        }
    }
}

/// The first Go that can fetch the newer one a module asks for is 1.21.
fn check_go() -> anyhow::Result<()> {
    let output = Command::new("go")
        .args(["env", "GOVERSION"])
        .output()
        .context("go")?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let minor = version.strip_prefix("go1.").and_then(|rest| {
        rest.split(|c: char| !c.is_ascii_digit())
            .next()?
            .parse::<u32>()
            .ok()
    });
    if minor.is_none_or(|minor| minor < 21) {
        bail!(
            "{version} is too old to build Jaeger and the Collector: install Go 1.21 or newer \
             (it fetches the version they need by itself)"
        );
    }
    Ok(())
}

/// The version of cargo-deny that `deny.toml` is written for.
const CARGO_DENY: &str = "0.20.2";

/// cargo-deny, built without optimisation: it runs for a second, and builds in half the time.
///
/// # Errors
/// When it does not build.
pub fn cargo_deny() -> anyhow::Result<PathBuf> {
    let name = format!("cargo-deny-{CARGO_DENY}");
    let dir = peers::cached(&name, "checks licences, bans and sources", |fresh| {
        let mut cargo = Command::new("cargo");
        cargo.args([
            "install",
            "--quiet",
            "--locked",
            "--debug",
            "--no-default-features",
        ]);
        cargo
            .args(["--version", CARGO_DENY, "cargo-deny", "--root"])
            .arg(fresh);
        // Not this workspace's linker or toolchain settings.
        peers::run(cargo.current_dir(std::env::temp_dir()))
    })?;
    Ok(dir.join("bin/cargo-deny"))
}

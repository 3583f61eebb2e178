//! Programs without a container: plain, in a unit, filtered, wrapped, a machine, byte code.

use std::{fs, path::Path};

use anyhow::Context as _;
use harness::{artifact, debian, peers, process::Process, wait};

use crate::case::{BUSY, Case, descendant, shown};

#[test]
fn a_plain_process() -> anyhow::Result<()> {
    let case = Case::new("plain")?;
    let busy = case.start("sh", &["-c", BUSY])?;
    let report = case.check(busy.pid(), "", case.path().trim_start_matches('/'))?;
    let host = shown(&[])?;
    assert_eq!(report["stack"], host["host"], "nothing but the host");
    let api = case.agent.api("/api/v1/host")?;
    assert_eq!(api["stack"], host["host"], "the API shows the same");
    Ok(())
}

#[test]
fn a_service_as_systemd_makes_it() -> anyhow::Result<()> {
    let case = Case::new("unit")?;
    let busy = case.start_below("web.slice/shop.service", "sh", &["-c", BUSY])?;
    let report = case.check(busy.pid(), "", "shop.service")?;
    assert_eq!(report["workload"]["unit"], "shop.service");
    assert_eq!(report["workload"]["runtime"], "systemd");
    let all = shown(&["--all"])?;
    let units = all["workloads"].as_array().context("workloads")?;
    assert!(
        units
            .iter()
            .any(|w| w["workload"]["unit"] == "shop.service")
    );
    Ok(())
}

#[test]
fn seccomp_alone() -> anyhow::Result<()> {
    let case = Case::new("seccomp")?;
    // prctl(PR_SET_NO_NEW_PRIVS), then twice PR_SET_SECCOMP with one instruction: allow.
    let script = "
import ctypes, struct
libc = ctypes.CDLL(None)
code = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0x7fff0000))
program = ctypes.create_string_buffer(struct.pack('HP', 1, ctypes.addressof(code)))
assert libc.prctl(38, 1, 0, 0, 0) == 0
for _ in range(2):
    assert libc.prctl(22, 2, program, 0, 0) == 0
while True:
    pass";
    let busy = case.start("python3", &["-c", script])?;
    wait::until("two filters", wait::PATIENCE, || {
        let status = fs::read_to_string(format!("/proc/{}/status", busy.pid())).ok()?;
        status.contains("Seccomp_filters:\t2").then_some(())
    })?;
    let report = case.check(
        busy.pid(),
        "L-4:seccomp",
        case.path().trim_start_matches('/'),
    )?;
    let evidence = report["stack"][0]["evidence"].as_str().unwrap_or_default();
    assert!(
        evidence.ends_with("Seccomp 2 (filter), 2 filters"),
        "{evidence}"
    );
    Ok(())
}

#[test]
fn bubblewrap() -> anyhow::Result<()> {
    peers::need("bwrap")?;
    let case = Case::new("bwrap")?;
    let args = [
        "--ro-bind",
        "/",
        "/",
        "--dev",
        "/dev",
        "--unshare-pid",
        "--die-with-parent",
    ];
    let outer = case.start(
        "bwrap",
        &[&args[..], &["busybox", "sh", "-c", BUSY]].concat(),
    )?;
    let inner = descendant(outer.pid(), "busybox")?;
    case.check(inner, "L-4:bubblewrap", case.path().trim_start_matches('/'))?;
    Ok(())
}

fn qemu(case: &Case, accelerator: &[&str]) -> anyhow::Result<Process> {
    peers::need("qemu-system-x86_64")?;
    let args = [
        "-name",
        "guest=isostack-vm,debug-threads=on",
        "-m",
        "64",
        "-display",
        "none",
        "-serial",
        "none",
        "-monitor",
        "none",
        "-nodefaults",
        "-no-reboot",
    ];
    case.start("qemu-system-x86_64", &[accelerator, &args].concat())
}

#[test]
fn qemu_by_emulation() -> anyhow::Result<()> {
    let case = Case::new("tcg")?;
    let machine = qemu(&case, &["-accel", "tcg"])?;
    let report = case.check(machine.pid(), "L-1:qemu", "isostack-vm")?;
    assert_eq!(report["workload"]["runtime"], "qemu");
    Ok(())
}

#[test]
fn qemu_with_kvm() -> anyhow::Result<()> {
    if !Path::new("/dev/kvm").exists() {
        println!("not run: there is no /dev/kvm here");
        return Ok(());
    }
    let case = Case::new("kvm")?;
    let cpu = "host,migratable=no,-arch-capabilities,-core-capability";
    let mut machine = qemu(&case, &["-accel", "kvm", "-cpu", cpu])?;
    let held = wait::until("a KVM machine", wait::PATIENCE, || {
        let fds = fs::read_dir(format!("/proc/{}/fd", machine.pid())).ok()?;
        let mut links = fds.flatten().flat_map(|fd| fs::read_link(fd.path()));
        links
            .any(|link| link == Path::new("anon_inode:kvm-vcpu:0"))
            .then_some(())
    });
    if held.is_err() && !machine.is_running() {
        println!("not run: QEMU cannot use KVM here: {}", machine.output());
        return Ok(());
    }
    held?;
    let report = case.check(machine.pid(), "L-1:qemu/L-1:kvm", "isostack-vm")?;
    let evidence = report["stack"][1]["evidence"].as_str().unwrap_or_default();
    assert!(
        evidence.contains("1 vCPU, thread \"CPU 0/KVM\""),
        "{evidence}"
    );
    Ok(())
}

/// `(module (func (export "_start") (loop (br 0))))`
const LOOP: &[u8] = &[
    0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 1, 4, 1, 0x60, 0, 0, 3, 2, 1, 0, 7, 10, 1, 6, b'_', b's',
    b't', b'a', b'r', b't', 0, 0, 10, 9, 1, 7, 0, 3, 0x40, 0x0c, 0, 0x0b, 0x0b,
];

#[test]
fn wasmedge_as_a_program() -> anyhow::Result<()> {
    let tree = match debian::wasmedge() {
        Ok(tree) => tree,
        Err(error) => {
            println!("not run: WasmEdge cannot be had here: {error:#}");
            return Ok(());
        }
    };
    let case = Case::new("wasmedge")?;
    let module = tree.join(format!("loop-{}.wasm", std::process::id()));
    fs::write(&module, LOOP)?;
    let name = format!(
        "/{}",
        module.file_name().unwrap_or_default().to_string_lossy()
    );
    let tree = tree.display().to_string();
    let outcome = case
        .start("chroot", &[&tree, "/usr/bin/wasmedge", &name])
        .and_then(|engine| {
            let engine_pid = descendant(engine.pid(), "wasmedge")?;
            let above = "L-4:wasm/L-4:wasmedge";
            case.check(engine_pid, above, case.path().trim_start_matches('/'))
        });
    fs::remove_file(&module)?;
    outcome?;
    Ok(())
}

#[test]
fn wasmtime_as_a_library() -> anyhow::Result<()> {
    let requirements = artifact::root().join("tests/wasm/requirements.txt");
    let python = peers::python_env("wasm", &requirements)?;
    let case = Case::new("wasmtime")?;
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), LOOP)?;
    let script = "
import sys, wasmtime
store = wasmtime.Store()
module = wasmtime.Module(store.engine, open(sys.argv[1], 'rb').read())
print('running', flush=True)
wasmtime.Instance(store, module, []).exports(store)['_start'](store)";
    let module = file.path().display().to_string();
    let mut busy = case.start(&python.display().to_string(), &["-c", script, &module])?;
    busy.wait_for_line("running")?;
    let above = "L-4:wasm/L-4:wasmtime";
    case.check(busy.pid(), above, case.path().trim_start_matches('/'))?;
    Ok(())
}

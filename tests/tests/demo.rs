//! `cargo xtask demo` shows a localised request and leaves nothing behind, however it ends.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
};

use harness::{artifact, peers, process::Process, wait};
use rustix::process::Signal;

/// Two demos at once would be taken for each other's leftovers.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

fn demo(flags: &[&str]) -> anyhow::Result<Process> {
    // Built beforehand, and xtask too: how long that takes is not the demo's affair.
    artifact::program("isostack-agent")?;
    peers::run(
        Command::new("cargo")
            .current_dir(artifact::root())
            .args(["build", "--quiet", "-p", "xtask"]),
    )?;
    let mut command = Command::new("cargo");
    // On Unix cargo becomes the program it runs: the pid is the demo's.
    command
        .current_dir(artifact::root())
        .args(["xtask", "demo"])
        .args(flags);
    Process::start("demo", &mut command, None)
}

/// Processes and cgroups of any demo of this workspace.
fn leftovers() -> Vec<String> {
    let programs: Vec<PathBuf> = ["isostack-agent", "shop"]
        .iter()
        .filter_map(|name| artifact::program(name).ok())
        .collect();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if let Ok(exe) = fs::read_link(entry.path().join("exe"))
            && programs.contains(&exe)
        {
            found.push(format!(
                "process {} {}",
                entry.file_name().display(),
                exe.display()
            ));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let roots = mounts.lines().filter(|line| line.starts_with("cgroup"));
    for root in roots.filter_map(|line| line.split(' ').nth(1)) {
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            if entry
                .file_name()
                .to_string_lossy()
                .starts_with("isostack-demo")
            {
                found.push(entry.path().display().to_string());
            }
        }
    }
    found
}

fn assert_nothing_left() -> anyhow::Result<()> {
    wait::until("everything of the demo to be gone", wait::PATIENCE, || {
        leftovers().is_empty().then_some(())
    })
    .map_err(|error| error.context(format!("{:?}", leftovers())))
}

#[test]
fn shows_one_localised_request() -> anyhow::Result<()> {
    let _alone = alone();
    let mut demo = demo(&["--once"])?;
    let status = demo.wait(wait::PATIENCE * 10)?; // it may build first
    let said = demo.output();
    assert!(status.success(), "{said}");
    for word in [
        "trace",
        "L-3",
        "cpu_throttle",
        "%",
        "UTC",
        "shop",
        "http://127.0.0.1:",
    ] {
        assert!(said.contains(word), "no {word:?} in:\n{said}");
    }
    assert_nothing_left()
}

#[test]
fn leaves_nothing_behind_after_an_interrupt() -> anyhow::Result<()> {
    let _alone = alone();
    let mut demo = demo(&[])?;
    demo.wait_for_line("cpu_throttle")?;
    demo.signal(Signal::INT)?;
    let status = demo.wait(wait::PATIENCE)?;
    assert!(status.success(), "{status}: {}", demo.output());
    assert_nothing_left()
}

#[test]
fn leaves_nothing_behind_when_killed() -> anyhow::Result<()> {
    let _alone = alone();
    let mut demo = demo(&[])?;
    demo.wait_for_line("cpu_throttle")?;
    assert!(!leftovers().is_empty(), "the demo runs, and is not seen");
    demo.signal(Signal::KILL)?;
    demo.wait(wait::PATIENCE)?;
    assert_nothing_left()
}

#[test]
fn without_root_it_says_so() -> anyhow::Result<()> {
    let _alone = alone();
    // The folder of the program may be closed to other users: copy it to where it is not.
    artifact::program("isostack-agent")?;
    let dir = tempfile::Builder::new()
        .prefix("isostack-xtask-")
        .tempdir()?;
    fs::set_permissions(
        dir.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )?;
    let xtask = dir.path().join("xtask");
    peers::run(
        Command::new("cargo")
            .current_dir(artifact::root())
            .args(["build", "--quiet", "-p", "xtask"]),
    )?;
    fs::copy(artifact::program("xtask")?, &xtask)?;
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .arg(&xtask)
        .arg("demo")
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(77), "{said}");
    assert!(said.contains("sudo"), "{said}");
    Ok(())
}

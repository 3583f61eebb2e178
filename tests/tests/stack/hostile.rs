//! A process that does what it can to look like another pod's container in gVisor: without a
//! right of its own but to a group that was given to it.

use std::{fs, os::unix::fs::chown, path::Path, process::Command};

use anyhow::{Context as _, ensure};
use harness::{http, process::Process, wait};

use crate::case::{BUSY, Case, descendant, stack, throttled};

/// The user `nobody`.
const NOBODY: u32 = 65_534;
const POD: &str = "99999999-aaaa-bbbb-cccc-dddddddddddd";

#[test]
fn a_user_that_imitates_a_pod_is_not_that_pod() -> anyhow::Result<()> {
    let case = Case::new("hostile")?;
    let own = case.cgroup.dir().join("given");
    fs::create_dir(&own)?;
    for entry in fs::read_dir(&own)?.flatten() {
        chown(entry.path(), Some(NOBODY), Some(NOBODY))?;
    }
    chown(&own, Some(NOBODY), Some(NOBODY))?;

    // A program called runsc, owned by the user.
    let dir = tempfile::tempdir_in("/var/tmp")?;
    let program = dir.path().join("runsc");
    fs::copy("/bin/sh", &program)?;
    for path in [dir.path(), &program] {
        chown(path, Some(NOBODY), Some(NOBODY))?;
    }
    let id = "e".repeat(64);
    let group = own.join(format!("kubepods/burstable/pod{POD}/{id}"));
    // The group by the user's own hand; the command line a sentry's, with names that would
    // break out of a table, a label or a terminal.
    let script = format!(
        "mkdir -p {group} && echo $$ > {group}/cgroup.procs || exit 9
exec -a \"$(printf 'runsc-sandbox\\n\\033[31m\\342\\200\\256\"')\" {program} -c '{BUSY}' boot \
--platform=systrap {id}",
        group = group.display(),
        program = program.display(),
    );
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
        "bash",
        "-c",
        &script,
    ]);
    let mut hostile = start_in(&own, &mut command)?;
    let Ok(pid) = descendant(hostile.pid(), "runsc") else {
        ensure!(!hostile.is_running(), "it did not become runsc");
        anyhow::bail!("it could not imitate: {}", hostile.output());
    };
    let report = stack(pid)?;
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    ensure!(
        cgroup.contains(&id),
        "it is not where it wants to be: {cgroup}"
    );
    let workload = &report["workload"];
    for key in ["pod_uid", "pod", "namespace", "container_id", "container"] {
        assert_eq!(workload[key], "", "{key}: {report:#}");
    }
    let technologies = report["stack"].as_array().context("stack")?;
    for entry in technologies {
        let technology = entry["technology"].as_str().unwrap_or_default();
        assert!(
            !["gvisor", "container", "containerd", "runc"].contains(&technology),
            "{report:#}"
        );
    }
    // Its throttled time is that of the group it was given.
    let layer = report["layer"].as_str().unwrap_or_default().to_owned();
    throttled(&case.agent, &layer, "given")?;
    let page = http::get(&case.agent.url("/metrics"))?.body;
    assert!(!page.contains(POD) && !page.contains(&id[..12]), "{page}");
    Ok(())
}

/// Starts it as root in the group: the group is then the user's to divide.
fn start_in(group: &Path, command: &mut Command) -> anyhow::Result<Process> {
    let mut enter = Command::new("sh");
    enter
        .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
        .arg(group.join("cgroup.procs"));
    enter.arg(command.get_program()).args(command.get_args());
    Process::start("hostile", &mut enter, None)
}

#[test]
fn odd_names_reach_no_output_raw() -> anyhow::Result<()> {
    let case = Case::new("odd")?;
    let odd = format!("a\"b\u{202e}c{}", "x".repeat(180));
    let busy = case.start_below(&odd, "sh", &["-c", BUSY])?;
    let unit = wait::until("its group", wait::PATIENCE, || {
        let report = stack(busy.pid()).ok()?;
        report["workload"]["unit"].as_str().map(str::to_owned)
    })?;
    assert_eq!(unit, odd, "JSON says it whole, in its own escapes");
    let table = Command::new(harness::artifact::program("isostack-agent")?)
        .args(["stack", "--all"])
        .output()?;
    let table = String::from_utf8(table.stdout)?;
    assert!(table.contains("a\"b\\u{202e}cxxx"), "{table}");
    assert!(!table.contains('\u{202e}'), "{table}");
    let report = stack(busy.pid())?;
    let layer = report["layer"].as_str().unwrap_or_default();
    wait::until("its throttled time, escaped", wait::PATIENCE, || {
        let page = http::get(&case.agent.url("/metrics")).ok()?.body;
        page.lines()
            .any(|line| line.contains("a\\\"b\\\\u{202e}c") && line.contains(layer))
            .then_some(())
    })?;
    Ok(())
}

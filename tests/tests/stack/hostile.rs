//! A process that does what it can to look like another pod's container in gVisor: without a
//! right of its own but to a group that was given to it.

use std::{fs, os::unix::fs::chown, path::Path, process::Command};

use anyhow::{Context as _, ensure};
use harness::{agent::Agent, http, process::Process, wait};
use serde_json::Value;

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

#[test]
fn a_user_s_runtime_takes_no_other_container_s_id() -> anyhow::Result<()> {
    let case = Case::new("hostile-runtime")?;
    let given = case.cgroup.dir().join("given/nginx.service");
    fs::create_dir_all(&given)?;
    let dir = tempfile::tempdir_in("/var/tmp")?;
    let bin = dir.path().join("rootfs/bin");
    fs::create_dir_all(&bin)?;
    fs::copy("/bin/busybox", bin.join("busybox"))?;
    let owned = [dir.path(), &dir.path().join("rootfs"), &bin];
    let given_to_the_user = [&given, &case.cgroup.dir().join("given")];
    for path in owned
        .into_iter()
        .chain(given_to_the_user.map(|dir| &**dir))
        .chain([&*given.join("cgroup.procs")])
    {
        chown(path, Some(NOBODY), Some(NOBODY))?;
    }
    // The host's own runc, as anybody may call it, with the id of somebody else's container.
    let id = "e".repeat(64);
    let _victim = case.start_below(&format!("docker/{id}"), "sh", &["-c", BUSY])?;
    let script = format!(
        "cd {dir} && export XDG_RUNTIME_DIR={dir} && runc spec --rootless &&
sed -i 's/\"terminal\": true/\"terminal\": false/; s/\"sh\"/\"busybox\",\"sh\",\"-c\",\"{BUSY}\"/' config.json &&
exec runc --root {dir}/state run {id}",
        dir = dir.path().display(),
    );
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    command.args(["bash", "-c", &script]);
    let mut hostile = start_in(&given, &mut command)?;
    let Ok(pid) = descendant(hostile.pid(), "busybox") else {
        ensure!(!hostile.is_running(), "it did not start a container");
        anyhow::bail!("a user has no containers here: {}", hostile.output());
    };
    let report = stack(pid)?;
    assert_eq!(report["layer"], "L-3", "it is a container: {report:#}");
    let workload = &report["workload"];
    for key in ["container_id", "container", "pod", "pod_uid"] {
        assert_eq!(workload[key], "", "{key}: {report:#}");
    }
    // The group has the name of a unit of the system, and is not called so.
    let own = format!("{}/given/nginx.service", case.path().trim_matches('/'));
    assert_eq!(workload["unit"], own, "{report:#}");
    let layer = report["layer"].as_str().unwrap_or_default();
    throttled(&case.agent, layer, &own)?;
    let page = http::get(&case.agent.url("/metrics"))?.body;
    assert!(!page.contains("container=\"nginx.service\""), "{page}");
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

/// What a name may not do: end a label, a line or a table's cell, move the cursor, turn the
/// reading around. And it is long.
fn nasty() -> String {
    format!("vm\"}}\n\u{1b}[31m\u{202e}\\{{{}", "y".repeat(4096))
}

#[test]
fn a_name_of_four_kilobytes_is_cut_and_escaped_everywhere() -> anyhow::Result<()> {
    let case = Case::new("nasty")?;
    // A machine is called what root's monitor was told to call it.
    let dir = tempfile::tempdir_in("/var/tmp")?;
    let monitor = dir.path().join("qemu-system-x86_64");
    fs::copy("/bin/sh", &monitor)?;
    let monitor = monitor.display().to_string();
    let name = nasty();
    let busy = case.start_below("nasty", &monitor, &["-c", BUSY, "-name", &name])?;
    let report = stack(busy.pid())?;
    let container = report["workload"]["container"].as_str();
    let container = container.context("a name")?.to_owned();
    assert!(
        name.starts_with(&container) && (32..=256).contains(&container.len()),
        "{container:?}"
    );
    let raw = |text: &str| text.contains(['\u{1b}', '\u{202e}']);
    for output in ["table", "json"] {
        let said = Command::new(harness::artifact::program("isostack-agent")?)
            .args(["stack", "--all", "--output", output])
            .output()?;
        let said = String::from_utf8(said.stdout)?;
        assert!(said.contains("yyyy") && !said.contains(&"y".repeat(512)));
        // In JSON the characters are as in any string; the terminal must not obey them.
        assert!(output == "json" || !raw(&said), "{said:?}");
    }
    let line = wait::until("its throttled time, escaped", wait::PATIENCE, || {
        let page = http::get(&case.agent.url("/metrics")).ok()?.body;
        let mut lines = page.lines().filter(|line| line.contains("yyyy"));
        lines
            .find(|line| line.starts_with("isostack_cpu_throttled_seconds_total{"))
            .map(str::to_owned)
    })?;
    assert!(!raw(&line) && line.contains("vm\\\""), "{line:?}");
    assert!(!line.contains(&"y".repeat(512)), "{line}");
    let said = http::get(&case.agent.url("/api/v1/workloads?limit=1000"))?.body;
    assert!(!raw(&said) && said.contains("\\u202e"), "{said}");
    let page = on_the_page(&case.agent, &said)?;
    assert!(!raw(&page) && page.contains("\\u{202e}") && page.contains("\\u{a}"));
    let rows: Value = serde_json::from_str(&said)?;
    let rows = rows["workloads"].as_array().context("workloads")?;
    let group = &report["workload"]["cgroup_id"];
    let row = rows.iter().find(|r| r["workload"]["cgroup_id"] == *group);
    assert_eq!(row.context("its row")?["workload"]["container"], container);
    Ok(())
}

/// What the page's script makes of an answer of the API, before it puts it in as text.
fn on_the_page(agent: &Agent, answer: &str) -> anyhow::Result<String> {
    let mut script = String::new();
    for (file, reads) in [("app.js", 1), ("trace.js", 0)] {
        let source = http::get(&agent.url(&format!("/{file}")))?.body;
        for sink in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            ".json()",
            "eval(",
        ] {
            ensure!(!source.contains(sink), "{file} has {sink}");
        }
        let found = source.matches("JSON.parse(").count();
        ensure!(found == reads, "{file} reads JSON in {found} places");
        let wanted = |line: &&str| {
            let names = ["const BENDS = ", "const visible = ", "const read = "];
            names.iter().any(|name| line.starts_with(name))
        };
        for line in source.lines().filter(wanted) {
            script.push_str(line);
            script.push('\n');
        }
    }
    script.push_str(
        "const all = (v) => typeof v === 'object' && v ? Object.values(v).map(all).join(' ') : v;
process.stdout.write(all(read(require('fs').readFileSync(0, 'utf8'))));",
    );
    let dir = tempfile::tempdir()?;
    let answered = dir.path().join("answer");
    fs::write(&answered, answer)?;
    let output = Command::new("node")
        .args(["-e", &script])
        .stdin(fs::File::open(answered)?)
        .output()
        .context("node")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    Ok(String::from_utf8(output.stdout)?)
}

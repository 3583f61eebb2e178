//! A real run, recorded while it goes on, and judged again by somebody who is not root: the
//! same to the last bit.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use harness::{
    agent::Agent,
    artifact,
    cgroup::Cgroup,
    service::{Language, Service},
};
use serde_json::Value;

/// Share of one CPU under the quota, in percent, and CPU time of a slow request.
const QUOTA_PERCENT: u64 = 10;
const WORK_MS: u64 = 80;
/// `nobody`.
const NOBODY: u32 = 65_534;

/// Where nobody finds a program and recordings that are not theirs.
struct Elsewhere(tempfile::TempDir);

impl Elsewhere {
    fn new() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let program = dir.path().join("isostack-agent");
        fs::copy(artifact::program("isostack-agent")?, &program)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        Ok(Self(dir))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Exit code, document and messages of a replay by nobody.
    fn replay(&self, file: &Path, flags: &[&str]) -> anyhow::Result<(Option<i32>, Value, String)> {
        let copy = self.path("given-away");
        fs::copy(file, &copy)?;
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o644))?;
        let output = Command::new(self.path("isostack-agent"))
            .arg("replay")
            .arg(&copy)
            .args(flags)
            .args(["--output", "json"])
            .env_clear()
            .uid(NOBODY)
            .gid(NOBODY)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let document = serde_json::from_slice(&output.stdout).with_context(|| said.clone())?;
        Ok((output.status.code(), document, said))
    }
}

/// Of the recorded run: an agent, and a service that is slow under its quota.
fn slow_service(name: &str, file: &Path) -> anyhow::Result<(Agent, Vec<Value>)> {
    let agent = Agent::record(file, &[])?;
    let cgroup = Cgroup::create(&format!("isostack-test-{name}"))?;
    let service = Service::start_inside(
        &["taskset", "-c", "1"],
        Language::Python,
        name,
        &format!("http://{}", agent.otlp_grpc),
        Some(&cgroup),
    )?;
    for _ in 0..3 {
        service.request(20)?;
    }
    cgroup.limit_cpu(QUOTA_PERCENT)?;
    service.request(WORK_MS)?;
    cgroup.limit_cpu(100)?;
    let verdicts = agent.wait_for_verdict("?cause=cpu_throttle")?;
    Ok((agent, verdicts))
}

#[test]
fn a_recorded_run_is_judged_the_same_again() -> anyhow::Result<()> {
    let elsewhere = Elsewhere::new()?;
    let file = elsewhere.path("run.jsonl.gz");
    let (mut agent, live) = slow_service("recorded", &file)?;
    ensure!(!file.exists(), "it has its name before it is complete");
    agent.process.terminate()?;
    let mode = fs::metadata(&file)?.permissions().mode();
    assert_eq!(mode & 0o077, 0, "spans are nobody else's business");

    let (code, document, said) = elsewhere.replay(&file, &["--check"])?;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(document["complete"], true, "{said}");
    assert_eq!(document["differing"], 0, "{said}");
    assert_eq!(document["compared"], document["spans"], "{said}");
    let again = document["verdicts"].as_array().context("no verdicts")?;
    for verdict in &live {
        let same = again.iter().find(|v| v["span_id"] == verdict["span_id"]);
        let same = same.with_context(|| format!("{verdict} is not in {document}"))?;
        for member in [
            "fault",
            "cause",
            "share",
            "culprit",
            "split",
            "intervals",
            "summary",
        ] {
            assert_eq!(same[member], verdict[member], "{member}");
        }
    }

    // What is kept of it says the same, and the spans come out enriched.
    let (small, otlp) = (
        elsewhere.path("small.jsonl.gz"),
        elsewhere.path("out.jsonl"),
    );
    let kept = Command::new(elsewhere.path("isostack-agent"))
        .arg("replay")
        .arg(&file)
        .arg("--keep")
        .arg(&small)
        .arg("--otlp")
        .arg(&otlp)
        .output()?;
    ensure!(
        kept.status.success(),
        "{}",
        String::from_utf8_lossy(&kept.stderr)
    );
    ensure!(fs::metadata(&small)?.len() <= fs::metadata(&file)?.len());
    let (code, small, said) = elsewhere.replay(&small, &["--check"])?;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(
        small["verdicts"].as_array().map(Vec::len),
        Some(again.len())
    );
    let enriched = fs::read_to_string(&otlp)?;
    assert!(enriched.contains("isostack.cause") && enriched.contains("L-3 cpu_throttle"));
    Ok(())
}

#[test]
fn a_killed_agent_leaves_a_recording_that_can_be_replayed() -> anyhow::Result<()> {
    let elsewhere = Elsewhere::new()?;
    let file = elsewhere.path("run.jsonl.gz");
    let (agent, live) = slow_service("killed", &file)?;
    // The file is brought up to date once a second.
    std::thread::sleep(Duration::from_secs(3));
    // Dropping the process kills it.
    drop(agent);
    ensure!(!file.exists(), "it is not complete");
    let (code, document, said) = elsewhere.replay(&elsewhere.path("run.jsonl.gz.partial"), &[])?;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(document["complete"], false);
    assert!(said.contains("no end"), "{said}");
    let again = document["verdicts"].as_array().context("no verdicts")?;
    for verdict in &live {
        assert!(
            again.iter().any(|v| v["span_id"] == verdict["span_id"]),
            "{verdict}"
        );
    }
    Ok(())
}

#[test]
fn a_recording_ends_by_itself() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("run.jsonl.gz");
    let mut agent = Agent::record(&file, &["--duration", "5s"])?;
    let status = agent.process.wait(Duration::from_secs(60))?;
    ensure!(status.success(), "{}", agent.process.output());
    ensure!(file.exists(), "{}", agent.process.output());
    assert_refused(Path::new("/nowhere/run.jsonl.gz"), "directory")
}

#[test]
fn an_earlier_recording_is_not_replaced_unasked() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    for earlier in ["whole.gz", "cut.gz.partial"] {
        let earlier = dir.path().join(earlier);
        fs::write(&earlier, "an hour's work")?;
        let file = dir.path().join(match earlier.extension() {
            Some(end) if end == "partial" => "cut.gz",
            _ => "whole.gz",
        });
        assert_refused(&file, "--force")?;
        assert_eq!(fs::read_to_string(&earlier)?, "an hour's work");
        let mut agent = Agent::record(&file, &["--force", "--duration", "5s"])?;
        let status = agent.process.wait(Duration::from_secs(60))?;
        ensure!(status.success(), "{}", agent.process.output());
        ensure!(fs::read(&file)?.starts_with(b"\x1f\x8b"));
    }
    Ok(())
}

/// It says which file it cannot write, and what to do.
fn assert_refused(file: &Path, hint: &str) -> anyhow::Result<()> {
    let mut agent = Command::new("timeout");
    agent.arg("20").arg(artifact::program("isostack-agent")?);
    agent.arg("record").arg(file);
    for flag in ["--http-listen", "--otlp-grpc-listen", "--otlp-http-listen"] {
        agent.args([flag, "127.0.0.1:0"]);
    }
    let refused = agent.output()?;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(64), "{said}");
    let shown = file.display().to_string();
    assert!(said.contains(&shown) && said.contains(hint), "{said}");
    Ok(())
}

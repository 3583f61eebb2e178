//! What runs in the guests: the agent and its tests, linked statically.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use harness::artifact;
use serde_json::Value;

use super::scenario::UNIT;

/// A test program of the agent, of which there is not much.
const SMALL_TEST: &str = "kvm_sensor";

/// The agent and the test programs.
pub struct Programs {
    /// `isostack-agent`
    pub agent: PathBuf,
    /// Name and path, the library's own tests first.
    pub tests: Vec<(String, PathBuf)>,
}

impl Programs {
    /// Names of the tests.
    pub fn names(&self) -> Vec<&str> {
        self.tests.iter().map(|(name, _)| name.as_str()).collect()
    }
}

/// Builds the agent, the library's own tests and these of the sensors.
///
/// # Errors
/// When they do not build.
pub fn build(tests: Vec<String>) -> anyhow::Result<Programs> {
    let mut cargo = Command::new("cargo");
    cargo
        .current_dir(artifact::root())
        .env(
            "RUSTC_WORKSPACE_WRAPPER",
            artifact::root().join("xtask/static-rustc"),
        )
        .args([
            "test",
            "--no-run",
            "--message-format=json-render-diagnostics",
        ])
        // The selection of the unit tests: another one means other features of what is
        // shared, and everything is built again.
        .args(["--workspace", "--exclude", "agent-ebpf"])
        .args(["--exclude", "isostack-tests", "--lib"]);
    for test in &tests {
        cargo.args(["--test", test]);
    }
    if tests.is_empty() {
        // Only for a test of its own does cargo build the agent.
        cargo.args(["--test", SMALL_TEST]);
    }
    let output = cargo.stderr(Stdio::inherit()).output().context("cargo")?;
    ensure!(output.status.success(), "the guests' programs do not build");
    let built = executables(&String::from_utf8(output.stdout)?);
    let find = |name: &str, kind: &str| {
        let found = built.iter().find(|one| one.0 == name && one.1 == kind);
        let (_, _, path) = found.with_context(|| format!("cargo built no {name}"))?;
        anyhow::Ok(path.clone())
    };
    let mut programs = vec![(UNIT.to_owned(), find(UNIT, "lib")?)];
    for test in tests {
        let path = find(&test, "test")?;
        programs.push((test, path));
    }
    Ok(Programs {
        agent: find("isostack-agent", "bin")?,
        tests: programs,
    })
}

/// Names of the programs that test a sensor, `agent/tests/*_sensor.rs`, that contain `only`.
///
/// # Errors
/// When there is none.
pub fn sensor_tests(only: Option<&str>) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(artifact::root().join("agent/tests"))? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|name| name.to_str());
        if let Some(name) = name
            && name.ends_with("_sensor")
            && only.is_none_or(|only| name.contains(only))
            && path.extension().is_some_and(|kind| kind == "rs")
        {
            names.push(name.to_owned());
        }
    }
    ensure!(
        !names.is_empty(),
        "no test of agent/tests/*_sensor.rs has that in its name"
    );
    names.sort();
    Ok(names)
}

/// Name, kind and path of every program in cargo's messages.
fn executables(messages: &str) -> Vec<(String, String, PathBuf)> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| {
            let target = &message["target"];
            Some((
                target["name"].as_str()?.to_owned(),
                target["kind"][0].as_str()?.to_owned(),
                Path::new(message["executable"].as_str()?).to_owned(),
            ))
        })
        .collect()
}

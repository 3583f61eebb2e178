//! This workspace's own programs, built once per test process with the profile of the
//! running one.

use std::{
    env,
    io::{IsTerminal as _, stderr},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context as _, ensure};
use rustix::process::{Signal, set_parent_process_death_signal};

/// The root of the source tree.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("/"))
}

/// The folder of the running profile, e.g. `target/debug`.
fn profile_dir() -> anyhow::Result<PathBuf> {
    let exe = env::current_exe().context("own path")?;
    exe.ancestors()
        .find(|dir| dir.join("deps").is_dir() && dir.join("build").is_dir())
        .map(Path::to_owned)
        .with_context(|| format!("{} lies in no cargo target folder", exe.display()))
}

/// The folder that integration tests know as `CARGO_TARGET_TMPDIR`.
///
/// # Errors
/// When the running program was not built by cargo.
pub fn target_tmp() -> anyhow::Result<PathBuf> {
    let profile = profile_dir()?;
    Ok(profile.with_file_name("tmp"))
}

/// `cargo` in the root of the sources, as if a person had called it: what the cargo that runs this
/// program says of its package makes build scripts that look at it run again, and all that
/// depends on them (the TLS library, and so the agent) is built anew.
#[must_use]
pub fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    let of_a_package = |name: &str| {
        ["CARGO_MANIFEST_", "CARGO_PKG_"]
            .iter()
            .any(|start| name.starts_with(start))
    };
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(of_a_package) {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Builds `isostack-agent`, `shop` and `tasks` where they are older than their sources.
///
/// # Errors
/// When they do not build.
fn build() -> anyhow::Result<PathBuf> {
    let dir = profile_dir()?;
    let mut cargo = cargo();
    cargo
        .arg("build")
        .args(["-p", "isostack-agent", "-p", "shop", "-p", "tasks"]);
    if !stderr().is_terminal() {
        cargo.arg("--quiet");
    }
    // SAFETY: between fork and exec only prctl(2) is called; nothing allocates.
    unsafe {
        // Who ends us alone, not our group, wants no compilers to go on.
        cargo.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
    }
    if dir.file_name().is_some_and(|name| name == "release") {
        cargo.arg("--release");
    }
    ensure!(
        cargo.status().context("cargo")?.success(),
        "the agent does not build"
    );
    Ok(dir)
}

/// The path of a program of this workspace.
///
/// # Errors
/// When it does not build.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let dir = BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    match dir {
        Ok(dir) => Ok(dir.join(name)),
        Err(error) => anyhow::bail!("{error}"),
    }
}

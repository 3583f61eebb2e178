//! This workspace's own programs, built once per test process with the profile of the
//! running one.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context as _, ensure};

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

/// Builds `isostack-agent`, `shop` and `tasks` where they are older than their sources.
///
/// # Errors
/// When they do not build.
fn build() -> anyhow::Result<PathBuf> {
    let dir = profile_dir()?;
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root()).args(["build", "--quiet"]).args([
        "-p",
        "isostack-agent",
        "-p",
        "shop",
        "-p",
        "tasks",
    ]);
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

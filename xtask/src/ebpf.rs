//! `cargo xtask ebpf`: builds the eBPF object that is committed beside its source.
//!
//! The build is reproducible: everything that could leak the machine into the object (paths,
//! profiles, flags from the environment) is pinned here, and `--check` proves it.

#[path = "../../agent-ebpf/source_hash.rs"]
mod source_hash;
mod toolchain;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use self::{source_hash::source_hash, toolchain::Toolchain};

const OBJECT: &str = "agent-ebpf/agent-ebpf.bpf.o";
const SOURCES: &str = "agent-ebpf/agent-ebpf.bpf.o.sources";
const TARGET: &str = "bpfel-unknown-none";

/// Builds the object; with `check`, compares it with the committed one instead of writing it.
pub fn run(check: bool) -> Result<()> {
    let workspace = workspace()?;
    let toolchain = Toolchain::ensure(&workspace)?;
    if check {
        let scratch = workspace.join("target/ebpf-check");
        remove(&scratch)?;
        let built = build(&workspace, &toolchain, &scratch);
        let verdict = built.and_then(|object| compare(&workspace, &object));
        remove(&scratch)?;
        return verdict;
    }
    let object = build(&workspace, &toolchain, &workspace.join("target/ebpf"))?;
    fs::write(workspace.join(OBJECT), &object)?;
    fs::write(workspace.join(SOURCES), source_hash(&workspace)? + "\n")?;
    println!("{OBJECT}: {} bytes", object.len());
    Ok(())
}

fn compare(workspace: &Path, object: &[u8]) -> Result<()> {
    let committed = fs::read(workspace.join(OBJECT)).context(OBJECT)?;
    let sources = fs::read_to_string(workspace.join(SOURCES)).context(SOURCES)?;
    ensure!(
        sources.trim() == source_hash(workspace)?,
        "the eBPF source changed but its object was not rebuilt: run `cargo xtask ebpf`"
    );
    if committed != object {
        let at = committed
            .iter()
            .zip(object)
            .position(|(a, b)| a != b)
            .unwrap_or_else(|| committed.len().min(object.len()));
        bail!(
            "{OBJECT} ({} bytes) is not what its source builds to ({} bytes, first difference \
             at {at}): run `cargo xtask ebpf` and commit the result",
            committed.len(),
            object.len()
        );
    }
    println!("{OBJECT} is what its source builds to");
    Ok(())
}

/// Compiles, links and strips; returns the object's bytes.
fn build(workspace: &Path, toolchain: &Toolchain, target_dir: &Path) -> Result<Vec<u8>> {
    // Lints first: nothing else looks at this crate for its real target.
    cargo(
        workspace,
        toolchain,
        target_dir,
        &["clippy"],
        &["--", "-Dwarnings"],
    )?;
    cargo(workspace, toolchain, target_dir, &["build"], &[])?;
    let linked = target_dir.join(TARGET).join("release/agent-ebpf");
    let stripped = target_dir.join("agent-ebpf.bpf.o");
    let status = Command::new(&toolchain.objcopy)
        .env("LD_LIBRARY_PATH", toolchain.sysroot.join("lib"))
        .arg("--strip-debug")
        .args([&linked, &stripped])
        .status()
        .with_context(|| toolchain.objcopy.display().to_string())?;
    ensure!(status.success(), "stripping {} failed", linked.display());
    fs::read(&stripped).with_context(|| stripped.display().to_string())
}

fn cargo(
    workspace: &Path,
    toolchain: &Toolchain,
    target_dir: &Path,
    command: &[&str],
    last: &[&str],
) -> Result<()> {
    let status = Command::new("cargo")
        .current_dir(workspace)
        .args(command)
        .args([
            "--quiet",
            "--locked",
            "--release",
            "--package",
            "agent-ebpf",
        ])
        .args(["--target", TARGET, "-Z", "build-std=core", "--target-dir"])
        .arg(target_dir)
        .args(last)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(workspace, toolchain)?)
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "2")
        .env("CARGO_PROFILE_RELEASE_STRIP", "none")
        .env("CARGO_PROFILE_RELEASE_LTO", "false")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env("CARGO_PROFILE_RELEASE_INCREMENTAL", "false")
        .env_remove("CARGO_INCREMENTAL")
        .env_remove("CARGO_BUILD_TARGET")
        .env_remove("RUSTFLAGS")
        .status()
        .context("cargo")?;
    ensure!(status.success(), "building agent-ebpf failed");
    Ok(())
}

/// Flags separated as `CARGO_ENCODED_RUSTFLAGS` wants them.
fn rustflags(workspace: &Path, toolchain: &Toolchain) -> Result<String> {
    let mut flags = vec![
        "-Cdebuginfo=2".to_owned(), // BTF is made of it
        format!("-Clinker={}", toolchain.bpf_linker.display()),
        "-Clink-arg=--btf".to_owned(),
        "--cfg=bpf_target_arch=\"x86_64\"".to_owned(),
        format!("--remap-path-prefix={}=.", workspace.display()),
        format!(
            "--remap-path-prefix={}=rust",
            toolchain.sysroot.join("lib/rustlib/src/rust").display()
        ),
    ];
    // One directory per registry, with a name that depends on how it is reached.
    let sources = cargo_home()?.join("registry/src");
    for registry in fs::read_dir(&sources).with_context(|| sources.display().to_string())? {
        let registry = registry?.path();
        flags.push(format!("--remap-path-prefix={}=deps", registry.display()));
    }
    Ok(flags.join("\x1f"))
}

fn workspace() -> Result<PathBuf> {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let workspace = manifest.parent().context("xtask lies in the workspace")?;
    Ok(workspace.canonicalize()?)
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    let home = env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?;
    Ok(PathBuf::from(home).join(".cargo"))
}

fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| directory.display().to_string())
        }
        _ => Ok(()),
    }
}

//! What building eBPF takes beyond stable Rust: found, or installed with a word about it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

/// 0.10.0 and 0.10.1 write BTF that the kernel refuses; later ones need a system LLVM.
const BPF_LINKER: &str = "0.10.3";
/// Version of Debian's `rust-src` for the toolchain in `rust-toolchain.toml`.
const DEBIAN_RUST_SRC: &str = "1.95.0+dfsg1-2~bpo13+1";

/// Everything that the build calls.
pub struct Toolchain {
    /// The compiler's directory.
    pub sysroot: PathBuf,
    /// `bpf-linker` of the pinned version.
    pub bpf_linker: PathBuf,
    /// `rust-objcopy` of the toolchain.
    pub objcopy: PathBuf,
}

impl Toolchain {
    /// Finds the parts and installs those that are missing.
    pub fn ensure(workspace: &Path) -> Result<Self> {
        let sysroot = PathBuf::from(output(
            Command::new("rustc")
                .current_dir(workspace)
                .args(["--print", "sysroot"]),
        )?);
        let host = output(
            Command::new("rustc")
                .current_dir(workspace)
                .args(["--print", "host-tuple"]),
        )?;
        let objcopy = sysroot
            .join("lib/rustlib")
            .join(host)
            .join("bin/rust-objcopy");
        ensure!(
            objcopy.exists(),
            "{} is missing: install the toolchain with rustup",
            objcopy.display()
        );
        rust_src(workspace, &sysroot)?;
        Ok(Self {
            bpf_linker: bpf_linker()?,
            objcopy,
            sysroot,
        })
    }
}

fn rust_src(workspace: &Path, sysroot: &Path) -> Result<()> {
    let source = sysroot.join("lib/rustlib/src/rust");
    if source.join("library/core/src/lib.rs").exists() {
        return Ok(());
    }
    println!("installing rust-src (the standard library's source, for the eBPF target)");
    let by_rustup = Command::new("rustup")
        .current_dir(workspace)
        .args(["component", "add", "rust-src"])
        .status();
    if by_rustup.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    println!("rustup cannot: taking Debian's package rust-src {DEBIAN_RUST_SRC} instead");
    debian_rust_src(&source)
}

/// Puts `library` of Debian's package below `destination`.
fn debian_rust_src(destination: &Path) -> Result<()> {
    let sites = output(Command::new("apt-get").args(["indextargets", "--format", "$(SITE)"]))
        .context("neither rustup nor apt can be asked for rust-src")?;
    let scratch = env::temp_dir().join(format!("rust-src-{}", std::process::id()));
    fs::create_dir_all(&scratch)?;
    let result = sites
        .lines()
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .find_map(|site| unpack(site, &scratch).ok())
        .context("no Debian mirror that apt uses has the package")
        .and_then(|library| {
            fs::create_dir_all(destination)?;
            run(Command::new("cp")
                .arg("-r")
                .args([&library, &destination.join("library")]))
        });
    fs::remove_dir_all(&scratch)?;
    result
}

/// Downloads and unpacks the package; returns its `library` directory.
fn unpack(site: &str, scratch: &Path) -> Result<PathBuf> {
    let package = scratch.join("rust-src.deb");
    let url = format!("{site}/pool/main/r/rustc/rust-src_{DEBIAN_RUST_SRC}_all.deb");
    run(Command::new("/usr/lib/apt/apt-helper")
        .args(["download-file", &url])
        .arg(&package))?;
    run(Command::new("dpkg")
        .arg("-x")
        .args([&package, &scratch.to_path_buf()]))?;
    for version in fs::read_dir(scratch.join("usr/src"))? {
        let library = version?.path().join("library");
        if library.join("core/src/lib.rs").exists() {
            return Ok(library);
        }
    }
    bail!("the package has no library")
}

fn bpf_linker() -> Result<PathBuf> {
    let cached = cache()?.join(format!("bpf-linker-{BPF_LINKER}"));
    let installed = cached.join("bin/bpf-linker");
    for candidate in [PathBuf::from("bpf-linker"), installed.clone()] {
        let version = output(Command::new(&candidate).arg("--version"));
        if version.is_ok_and(|text| text.trim_end().ends_with(&format!(" {BPF_LINKER}"))) {
            return Ok(candidate);
        }
    }
    println!(
        "installing bpf-linker {BPF_LINKER} into {} (two minutes)",
        cached.display()
    );
    run(Command::new("cargo")
        .args(["install", "bpf-linker", "--locked", "--version", BPF_LINKER])
        .args([
            "--no-default-features",
            "--features",
            "llvm-22,rust-llvm-22",
            "--root",
        ])
        .arg(&cached)
        .env_remove("CARGO_TARGET_DIR"))?;
    Ok(installed)
}

fn cache() -> Result<PathBuf> {
    if let Some(cache) = env::var_os("XDG_CACHE_HOME") {
        return Ok(PathBuf::from(cache).join("isostack"));
    }
    let home = env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(PathBuf::from(home).join(".cache/isostack"))
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::null())
        .output()
        .with_context(|| format!("{command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed: {}",
        output.status
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

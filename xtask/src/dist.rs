//! What is shipped: one static binary, and an image that holds nothing else.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, bail, ensure};
use harness::{artifact, peers};

use crate::setup::{self, Purpose};

/// Flags of `cargo xtask image`.
#[derive(clap::Args)]
pub struct ImageArgs {
    /// A program of this workspace.
    #[arg(long, default_value = "isostack-agent")]
    program: String,
    /// Name of the image.
    #[arg(long)]
    name: Option<String>,
    /// Where the archive goes [default: target/image/PROGRAM.tar]
    #[arg(long)]
    output: Option<PathBuf>,
}

/// Builds the agent's static release binary; says where it is and how big.
///
/// # Errors
/// When it does not build.
pub fn dist() -> anyhow::Result<PathBuf> {
    setup::run(Purpose::Build)?;
    static_binary("isostack-agent")
}

/// Builds a program of this workspace as it is shipped.
///
/// # Errors
/// When it does not build.
pub fn static_binary(program: &str) -> anyhow::Result<PathBuf> {
    let target = match std::env::consts::ARCH {
        "x86_64" => "x86_64-unknown-linux-gnu",
        "aarch64" => "aarch64-unknown-linux-gnu",
        other => bail!("no static target is set up for {other}"),
    };
    // With --target the flag reaches only the program, not build scripts and macros.
    let mut cargo = Command::new("cargo");
    cargo
        .current_dir(artifact::root())
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    cargo.args(["build", "--release", "--target", target, "-p", program]);
    ensure!(
        cargo.status().context("cargo")?.success(),
        "{program} does not build"
    );
    let binary = artifact::root()
        .join("target")
        .join(target)
        .join("release")
        .join(program);
    let bytes = fs::metadata(&binary)
        .with_context(|| binary.display().to_string())?
        .len();
    println!("{}: {:.1} MB, static", binary.display(), bytes as f64 / 1e6);
    Ok(binary)
}

/// Builds an image of one static program.
///
/// # Errors
/// When the program does not build or the archive cannot be written.
pub fn image(args: &ImageArgs) -> anyhow::Result<()> {
    setup::run(Purpose::Build)?;
    let program = &args.program;
    let binary = static_binary(program)?;
    let version = env!("CARGO_PKG_VERSION");
    let name = args
        .name
        .clone()
        .unwrap_or_else(|| format!("localhost/{program}:{version}"));
    let output = match &args.output {
        Some(output) => output.clone(),
        None => {
            let dir = artifact::root().join("target/image");
            fs::create_dir_all(&dir)?;
            dir.join(format!("{program}.tar"))
        }
    };
    let mut build = Command::new(artifact::root().join("deploy/image/build.sh"));
    build.arg(&binary).arg(&name).arg(&output);
    peers::run(&mut build)?;
    let bytes = fs::metadata(&output)?.len();
    println!("{}: {name}, {:.1} MB", output.display(), bytes as f64 / 1e6);
    Ok(())
}

//! What is shipped: one static binary, and an image that holds nothing else.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, ensure};
use harness::{artifact, peers};

use crate::setup::{self, Purpose};

/// Flags of `cargo xtask image`.
#[derive(clap::Args)]
pub struct ImageArgs {
    /// A program of this workspace.
    #[arg(long, default_value = "isostack-agent")]
    program: String,
    /// Build it without optimisation: in seconds where the tests built it already.
    #[arg(long)]
    debug: bool,
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
    static_binary("isostack-agent", false)
}

/// Links a program with a static C library. What it depends on is shared with the ordinary
/// build of the same profile.
///
/// # Errors
/// When it does not build.
pub fn static_binary(program: &str, debug: bool) -> anyhow::Result<PathBuf> {
    let mut cargo = artifact::cargo();
    cargo.arg("build").env(
        "RUSTC_WORKSPACE_WRAPPER",
        artifact::root().join("xtask/static-rustc"),
    );
    if debug {
        // The selection of the tests: another one means other features of what is shared.
        cargo.args(["--quiet", "-p", "isostack-agent", "-p", "shop"]);
    } else {
        cargo.args(["--release", "-p", program]);
    }
    ensure!(
        cargo.status().context("cargo")?.success(),
        "{program} does not build"
    );
    let profile = artifact::root()
        .join("target")
        .join(if debug { "debug" } else { "release" });
    // A copy: the next ordinary build puts its own program in this one's place.
    let dir = profile.join("static");
    fs::create_dir_all(&dir)?;
    let binary = dir.join(program);
    let bytes =
        fs::copy(profile.join(program), &binary).with_context(|| binary.display().to_string())?;
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
    let binary = static_binary(program, args.debug)?;
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

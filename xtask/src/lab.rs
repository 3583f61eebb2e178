//! `cargo xtask lab`: builds the fault lab and becomes it.

use std::os::unix::process::CommandExt as _;

use anyhow::bail;
use harness::artifact;

use crate::setup::{self, Purpose};

/// Flags of `cargo xtask lab`.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    /// Flags of the lab itself; --help shows them. --release first builds it, and the agent,
    /// optimised.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "FLAGS"
    )]
    flags: Vec<String>,
}

/// Runs the lab; does not come back.
///
/// # Errors
/// Without root, or when the machine cannot be set up.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let asks = |name: &str| args.flags.iter().any(|flag| flag == name);
    if !asks("--help") && !asks("-h") {
        setup::need_root("cargo xtask lab (it loads eBPF programs, makes cgroups and namespaces)")?;
        setup::run(Purpose::Lab)?;
    }
    let mut cargo = artifact::cargo();
    cargo.args(["run", "--quiet", "--package", "isostack-lab"]);
    if asks("--release") {
        cargo.arg("--release");
    }
    let flags = args.flags.iter().filter(|flag| *flag != "--release");
    let error = cargo.arg("--").args(flags).exec();
    bail!("cannot run cargo: {error}")
}

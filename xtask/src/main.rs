//! The project's chores. Each installs what it needs and says so.

mod bench;
mod demo;
mod dist;
mod ebpf;
mod lab;
mod setup;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::setup::Purpose;

/// A command was used without the privilege it needs (`EX_NOPERM`).
const EXIT_NO_PRIVILEGE: u8 = 77;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's chores", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show a slow request being localised, on this machine, until Ctrl-C.
    Demo(demo::Args),
    /// Set up what is missing and run every check and test.
    Test(test::Args),
    /// Measure what the agent costs.
    Bench(bench::Args),
    /// Put known faults into real services and score the agent's answers.
    Lab(lab::Args),
    /// Only install what the other commands need.
    Setup {
        /// What for.
        #[arg(value_enum, default_value_t = Purpose::Test)]
        purpose: Purpose,
    },
    /// Build the eBPF object that is committed beside its source.
    Ebpf {
        /// Only prove that the committed object is what the source builds to.
        #[arg(long)]
        check: bool,
    },
    /// Run the agent and its sensors' tests on other kernels, under QEMU.
    Vm(vm::Args),
    /// Build the static release binary and say how big it is.
    Dist,
    /// Build the container image (an OCI archive), without a container engine.
    Image(dist::ImageArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Lab(args) => lab::run(&args),
        Command::Setup { purpose } => setup::run(purpose),
        Command::Ebpf { check } => ebpf::run(check),
        Command::Vm(args) => vm::run(&args),
        Command::Dist => dist::dist().map(drop),
        Command::Image(args) => dist::image(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            match error.downcast_ref::<setup::NoPrivilege>() {
                Some(_) => EXIT_NO_PRIVILEGE.into(),
                None => ExitCode::FAILURE,
            }
        }
    }
}

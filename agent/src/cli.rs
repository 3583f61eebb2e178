//! The command line: what can be asked of the program, nothing of how it is answered.

pub mod layers;
pub mod recording;
pub mod trace;

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use clap::{
    Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum, builder::Resettable,
};

use self::{
    layers::LayersArgs,
    recording::{RecordArgs, ReplayArgs},
    trace::{TopArgs, TraceArgs},
};
use crate::{config::Settings, host::roots::Roots, vocabulary::Layer};

/// Exit code for a bad flag, key or value (`EX_USAGE` of sysexits.h).
pub const EXIT_USAGE: u8 = 64;
/// Exit code for missing privilege (`EX_NOPERM` of sysexits.h).
pub const EXIT_NO_PRIVILEGE: u8 = 77;

/// Says for a slow request which hop, which isolation layer of that hop, which mechanism,
/// and who caused it.
#[derive(Debug, Parser)]
#[command(
    name = "isostack-agent",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Without a command the daemon runs; its flags are those of `run`."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Settings of the daemon when no command is named.
    #[command(flatten)]
    pub run: RunArgs,
}

impl Cli {
    /// Reads the program's arguments and environment. A variable that is set but empty
    /// counts as unset: that is how unit files and manifests leave one out.
    ///
    /// # Errors
    /// What clap says; the requests for help and version are among it.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut command = without_empty_variables(Self::command());
        let matches = command.try_get_matches_from_mut(arguments)?;
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }
}

fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    command
        .mut_args(|arg| match arg.get_env().is_some_and(is_empty) {
            true => arg.env(Resettable::Reset),
            false => arg,
        })
        .mut_subcommands(without_empty_variables)
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon (the default).
    Run(Box<RunArgs>),
    /// Say for each sensor whether it can run here, by which hook, and why not more.
    #[command(
        after_help = "Exit code 0 if the four core sensors (cpu, tcp, block, seccomp) can run, 1 if \
                      not, 77 without the privilege to find out."
    )]
    Doctor(DoctorArgs),
    /// Show the isolation stack of the host, of a process, or of all workloads.
    Stack(StackArgs),
    /// Say which isolation layer log lines speak of, what they mean, and what to do.
    #[command(
        after_help = "Compressed logs: zcat app.log.1.gz | isostack-agent classify\n\n\
                      Exit code 0 if a line says something, 1 if none does, 2 if something could not \
                      be read."
    )]
    Classify(ClassifyArgs),
    /// Localise one trace: critical path, slowest hop, why it was slow, and who caused it.
    #[command(
        after_help = "Exit code 0 with a report, 1 if the trace is not there or cannot be had, 64 for \
                      arguments that cannot be meant."
    )]
    Trace(TraceArgs),
    /// Live: which workloads lose how much time to which causes, by a running agent.
    Top(TopArgs),
    /// What is known of the isolation layers: show, compare, select.
    Layers(LayersArgs),
    /// Run the daemon and write everything that it judges by to a file, for `replay`.
    Record(Box<RecordArgs>),
    /// Judge what was recorded again: without root, without kernel events, on any machine.
    #[command(
        after_help = "Exit code 0; with --check 1 if something else came out than was recorded; 2 \
                      if the file is no recording or broken."
    )]
    Replay(ReplayArgs),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the man pages of every command.
    Man {
        /// Where to; it is made if it is not there.
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

/// Flags of `run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// TOML file; its keys are the flags' names with `_` for `-`. Flags and environment win.
    #[arg(long, value_name = "FILE", env = "ISOSTACK_CONFIG")]
    pub config: Option<PathBuf>,
    /// The settings themselves.
    #[command(flatten)]
    pub settings: Settings,
}

/// Flags of `doctor`.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
    /// Where the host's file systems are.
    #[command(flatten)]
    pub roots: RootArgs,
}

/// Flags of `stack`.
#[derive(Args, Debug)]
pub struct StackArgs {
    /// A process; without it the host's own stack is shown.
    #[arg(value_name = "PID", conflicts_with = "all")]
    pub pid: Option<u32>,
    /// Every workload on the host, as a tree.
    #[arg(long)]
    pub all: bool,
    /// Print what the process's stack was inferred from instead, as JSON, without host names:
    /// to attach to a report, or to keep as a test.
    #[arg(long, requires = "pid")]
    pub facts: bool,
    /// TOML file that says what the isolation stack of some processes really is.
    #[arg(long, value_name = "FILE", env = "ISOSTACK_STACK_OVERRIDE")]
    pub stack_override: Option<PathBuf>,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
    /// Where the host's file systems are.
    #[command(flatten)]
    pub roots: RootArgs,
}

/// Flags of `classify`.
#[derive(Args, Debug)]
pub struct ClassifyArgs {
    /// Log files; standard input without any, and for `-`.
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Go on as the files grow, also when they are rotated or cut.
    #[arg(short = 'f', long)]
    pub follow: bool,
    /// Only what concerns these layers, L-0 to L-4, separated by commas.
    #[arg(long, value_name = "LAYER,...", value_delimiter = ',', value_parser = layer)]
    pub only: Vec<Layer>,
    /// Take files with zero bytes for text too.
    #[arg(short = 'a', long)]
    pub text: bool,
    /// How to print; JSON is one object a line.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// `L-3`, also `l-3`, `L3` and `3`.
fn layer(text: &str) -> Result<Layer, String> {
    let digit = text.trim_start_matches(['L', 'l']).trim_start_matches('-');
    Layer::ALL
        .iter()
        .copied()
        .find(|layer| layer.as_str().strip_prefix("L-") == Some(digit))
        .ok_or_else(|| {
            let layers: Vec<_> = Layer::ALL.iter().map(|layer| layer.as_str()).collect();
            format!("the layers are {}", layers.join(", "))
        })
}

/// Where the host's file systems are, for commands that look at the host.
#[derive(Args, Clone, Debug)]
pub struct RootArgs {
    /// The host's procfs.
    #[arg(
        long,
        value_name = "DIR",
        env = "ISOSTACK_PROCFS",
        default_value = "/proc"
    )]
    pub procfs: PathBuf,
    /// The host's sysfs.
    #[arg(
        long,
        value_name = "DIR",
        env = "ISOSTACK_SYSFS",
        default_value = "/sys"
    )]
    pub sysfs: PathBuf,
    /// The host's cgroup file system.
    #[arg(
        long,
        value_name = "DIR",
        env = "ISOSTACK_CGROUPFS",
        default_value = "/sys/fs/cgroup"
    )]
    pub cgroupfs: PathBuf,
}

impl From<RootArgs> for Roots {
    fn from(args: RootArgs) -> Self {
        Self {
            procfs: args.procfs,
            sysfs: args.sysfs,
            cgroupfs: args.cgroupfs,
        }
    }
}

/// Form of a command's output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs: JSON on standard output.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_is_the_default_command() {
        let plain = Cli::try_parse_from(["isostack-agent", "--node-name", "n1"]).unwrap();
        assert!(plain.command.is_none());
        assert_eq!(plain.run.settings.node_name.as_deref(), Some("n1"));
        let named = Cli::try_parse_from(["isostack-agent", "run", "--node-name", "n1"]).unwrap();
        assert!(matches!(named.command, Some(Command::Run(a)) if a.settings.node_name.is_some()));
    }

    #[test]
    fn a_misspelt_flag_is_answered_with_the_nearest() {
        let error = Cli::try_parse_from(["isostack-agent", "--http-listn", "x"]).unwrap_err();
        assert!(error.to_string().contains("--http-listen"), "{error}");
    }
}

//! Flags of `record` and `replay`.

use std::path::PathBuf;

use clap::Args;

use super::{Output, RunArgs};
use crate::{
    config::{ByteSize, Span},
    run::RecordTo,
};

/// Flags of `record`: its own, and those of `run`.
#[derive(Args, Debug)]
pub struct RecordArgs {
    /// Where to and how much.
    #[command(flatten)]
    pub to: RecordToArgs,
    /// Settings of the daemon.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What is recorded.
#[derive(Args, Debug)]
pub struct RecordToArgs {
    /// The recording; until it is complete it is called FILE.partial. It holds the spans as the
    /// applications sent them: `replay --keep` makes one that can be given away.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// For how long [default: until the agent is stopped]
    #[arg(long, value_name = "DURATION")]
    pub duration: Option<Span>,
    /// Largest file; the agent stops when one more entry does not fit [default: 256MiB]
    #[arg(long, value_name = "BYTES", value_parser = max_size)]
    pub max_size: Option<ByteSize>,
    /// Replace FILE, and the FILE.partial of an agent that was killed, where they are there.
    #[arg(long)]
    pub force: bool,
}

/// Flags of `replay`.
#[derive(Args, Debug)]
pub struct ReplayArgs {
    /// The recording, also one that is not complete.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Compare with what came out when it was recorded, to the last bit.
    #[arg(long)]
    pub check: bool,
    /// Print at most so many verdicts, the latest.
    #[arg(long, value_name = "NUMBER", default_value_t = 1_000)]
    pub limit: usize,
    /// Write the enriched spans here, as lines of OTLP JSON.
    #[arg(long, value_name = "FILE")]
    pub otlp: Option<PathBuf>,
    /// Write the recording anew: small, with what the verdicts need only, and without what
    /// names the host, its users and their data; with the verdicts of this replay.
    #[arg(long, value_name = "FILE")]
    pub keep: Option<PathBuf>,
    /// What it shows, in words, for `--keep`.
    #[arg(long, value_name = "TEXT", requires = "keep")]
    pub about: Option<String>,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

const DEFAULT_MAX_BYTES: u64 = 256 << 20;
const MIN_MAX_BYTES: usize = 1 << 20;

fn max_size(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse()?;
    match size.0 {
        ..MIN_MAX_BYTES => Err(format!("at least {} MiB", MIN_MAX_BYTES >> 20)),
        _ => Ok(size),
    }
}

impl From<RecordToArgs> for RecordTo {
    fn from(args: RecordToArgs) -> Self {
        Self {
            file: args.file,
            max_bytes: args
                .max_size
                .map_or(DEFAULT_MAX_BYTES, |size| size.0 as u64),
            duration: args.duration.map(|duration| duration.0),
            force: args.force,
        }
    }
}

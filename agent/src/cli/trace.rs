//! Flags of `trace` and `top`: the commands that ask a running agent or a trace store.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Output;

/// Flags of `trace`.
#[derive(Args, Debug)]
pub struct TraceArgs {
    /// The trace: 32 hexadecimal digits; leading zeros may be left out.
    #[arg(value_name = "ID")]
    pub id: String,
    /// Where its spans are.
    #[command(flatten)]
    pub source: SourceArgs,
    /// A header for the trace store, e.g. `Authorization=Bearer ...` or `X-Scope-OrgID=team`;
    /// may be given more than once, in the variable separated by commas.
    #[arg(
        long,
        value_name = "NAME=VALUE",
        env = "ISOSTACK_TRACE_HEADERS",
        hide_env_values = true,
        value_delimiter = ','
    )]
    pub header: Vec<String>,
    /// Draw every span, not the most telling ones.
    #[arg(long)]
    pub all: bool,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// Where a trace's spans are.
#[derive(Args, Debug)]
pub struct SourceArgs {
    /// A running agent: what it remembers of the spans that it saw.
    #[arg(
        long,
        value_name = "URL",
        env = "ISOSTACK_AGENT",
        default_value = DEFAULT_AGENT
    )]
    pub agent: String,
    /// Jaeger's query service, e.g. `http://jaeger:16686`: the spans of all nodes, with what
    /// their agents wrote on them.
    #[arg(long, value_name = "URL", conflicts_with_all = ["tempo", "file"])]
    pub jaeger: Option<String>,
    /// Tempo, e.g. `http://tempo:3200`.
    #[arg(long, value_name = "URL", conflicts_with = "file")]
    pub tempo: Option<String>,
    /// A file of OTLP in JSON, one document or one a line, or what Jaeger's page downloads;
    /// `-` for standard input.
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// Flags of `top`.
#[derive(Args, Debug)]
pub struct TopArgs {
    /// The running agent.
    #[arg(
        long,
        value_name = "URL",
        env = "ISOSTACK_AGENT",
        default_value = DEFAULT_AGENT
    )]
    pub agent: String,
    /// What the first rows have most of.
    #[arg(long, value_enum, default_value_t)]
    pub sort: TopSort,
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub interval: u64,
    /// Look twice, print one table, and leave.
    #[arg(long)]
    pub once: bool,
    /// How to print; JSON is one document, after two looks.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// What the rows of `top` are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TopSort {
    /// All lost time.
    #[default]
    Total,
    /// Held back by a CPU quota.
    Throttle,
    /// Waiting for a CPU.
    Runqueue,
    /// Reclaim of memory.
    Memory,
    /// Disk.
    Disk,
    /// Network.
    Network,
    /// Verdicts.
    Verdicts,
    /// The workload's name.
    Name,
}

/// Where an agent listens unless told otherwise.
const DEFAULT_AGENT: &str = "http://127.0.0.1:9464";

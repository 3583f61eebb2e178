//! A small web service as one finds it in production: axum, the upstream OpenTelemetry
//! SDK, nothing that knows about the agent. Also its own load generator, so that a demo
//! and a pod from an empty image need no other program.

mod load;
mod serve;
mod telemetry;
mod work;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about, version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer GET /checkout; spans go to OTEL_EXPORTER_OTLP_ENDPOINT by gRPC.
    Serve(serve::Args),
    /// Send requests at a steady rate and print one line for each.
    Load(load::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Serve(args) => serve::run(&args),
        Command::Load(args) => load::run(&args),
    }
}

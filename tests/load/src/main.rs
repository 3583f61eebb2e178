//! `span-load send` sends spans of a realistic size at a set rate over gRPC; `span-load sink`
//! receives, counts and times them; `span-load correlate` runs the pipeline alone. Each prints
//! one line of JSON at the end.

mod correlate;
mod send;
mod sink;

use clap::Parser;

/// The attribute in which a batch's scope carries the wall time at which it was sent. Not its
/// resource: an SDK's resource is the same in every batch.
const SENT_AT: &str = "bench.sent_unix_nano";

#[derive(Parser)]
#[command(about = "The two ends of a span benchmark")]
enum Command {
    /// Send spans.
    Send(send::SendArgs),
    /// Run the pipeline alone, on a clock of its own.
    Correlate(correlate::CorrelateArgs),
    /// Receive spans until standard input ends.
    Sink(sink::SinkArgs),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    isostack_agent::allocator::set_up();
    let report = match Command::parse() {
        Command::Send(args) => send::run(args).await?,
        Command::Correlate(args) => correlate::run(&args)?,
        Command::Sink(args) => sink::run(args).await?,
    };
    println!("{report}");
    Ok(())
}

/// Wall time in nanoseconds.
fn unix_nanos() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

//! A steady, bounded stream of requests, one after the other.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

/// Flags of `shop load`.
#[derive(clap::Args)]
pub struct Args {
    /// What to ask for, e.g. http://127.0.0.1:8080/checkout?work_ms=20
    #[arg(long)]
    url: String,
    /// Requests a second, at most; a slow answer delays the next request.
    #[arg(long, default_value_t = 1.0)]
    rate: f64,
    /// Stop after this many requests; 0 goes on until killed.
    #[arg(long, default_value_t = 0)]
    count: u64,
}

/// Sends the requests; failures are printed and counted, and the load goes on.
///
/// # Errors
/// When the rate is no positive number, or not one request was answered.
pub fn run(args: &Args) -> anyhow::Result<()> {
    anyhow::ensure!(
        args.rate.is_finite() && args.rate > 0.0 && args.rate <= 1_000.0,
        "--rate wants requests a second, above 0 and at most 1000"
    );
    let period = Duration::from_secs_f64(1.0 / args.rate);
    let mut answered = 0_u64;
    let mut sent = 0_u64;
    while args.count == 0 || sent < args.count {
        let began = Instant::now();
        sent += 1;
        match harness::http::get(&args.url).context("no answer") {
            Ok(answer) => {
                answered += 1;
                println!(
                    "{} {:.1} ms {}",
                    answer.status,
                    ms(began),
                    answer.body.trim()
                );
            }
            Err(error) => eprintln!("{error:#}"),
        }
        if args.count == 0 || sent < args.count {
            thread::sleep(period.saturating_sub(began.elapsed()));
        }
    }
    anyhow::ensure!(
        answered > 0,
        "none of {sent} requests to {} was answered",
        args.url
    );
    Ok(())
}

fn ms(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}

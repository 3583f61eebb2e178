//! What the `cpu` sensor costs a pinned pipe ping-pong: without any program, with an empty
//! one on the same hook, and with the sensor, interleaved; prints ratios of medians.
//!
//! `cargo run --release --example cpu_cost -- [REPEATS]`, as root.

#[path = "../../xtask/src/bench/pingpong.rs"]
mod pingpong;

use anyhow::Result;
use isostack_agent::{
    load::{Floor, Sensors, Settings},
    metrics::AgentMetrics,
};

const ROUNDS: u32 = 20_000;
const CPU: usize = 1;

fn main() -> Result<()> {
    let repeats: usize = std::env::args().nth(1).map_or(Ok(15), |n| n.parse())?;
    let settings = Settings::default();
    // A negative nice value keeps neighbours from the CPU, and the caches, most of the time.
    rustix::process::setpriority_process(None, -20)?;
    let (mut off, mut empty, mut on) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..repeats {
        off.push(pingpong::ns_per_round(CPU, ROUNDS)?);
        let floor = Floor::attach(&settings)?;
        empty.push(pingpong::ns_per_round(CPU, ROUNDS)?);
        drop(floor);
        off.push(pingpong::ns_per_round(CPU, ROUNDS)?);
        let sensors = Sensors::start(&settings, AgentMetrics::default(), drop)?;
        on.push(pingpong::ns_per_round(CPU, ROUNDS)?);
        sensors.stop();
    }
    let (off, empty, on) = (median(off), median(empty), median(on));
    println!("off   {off:7.0} ns a round");
    println!("empty {empty:7.0} ns a round, {:.3} of off", empty / off);
    println!("on    {on:7.0} ns a round, {:.3} of off", on / off);
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

//! What the `cpu` sensor costs a pinned pipe ping-pong: without any program, with an empty
//! one on the same hook, and with the sensor's, in short turns; prints ratios of the best.
//!
//! `cargo run --example cpu_cost -- [TURNS]`, as root.

#[path = "../../xtask/src/bench/pingpong.rs"]
#[expect(dead_code, reason = "its TCP half is for the benchmark")]
mod pingpong;

use anyhow::Result;
use isostack_agent::load::{Settings, Toggled};

const ROUNDS: u32 = 3_000;
const CPU: usize = 1;

fn main() -> Result<()> {
    let turns: usize = std::env::args().nth(1).map_or(Ok(40), |n| n.parse())?;
    let settings = Settings::default();
    let mut floor = Toggled::floor(&settings)?;
    let mut sensor = Toggled::cpu(&settings)?;
    // A negative nice value keeps neighbours from the CPU, and its caches, most of the time.
    rustix::process::setpriority_process(None, -20)?;
    // Neighbours only ever add: the best of many short turns is the least disturbed.
    let (mut off, mut empty, mut on) = (f64::MAX, f64::MAX, f64::MAX);
    for _ in 0..turns {
        off = off.min(pingpong::pipe_ns(CPU, ROUNDS)?);
        empty = empty.min(floor.during(|| pingpong::pipe_ns(CPU, ROUNDS))??);
        on = on.min(sensor.during(|| pingpong::pipe_ns(CPU, ROUNDS))??);
    }
    println!("off   {off:7.0} ns a round");
    println!("empty {empty:7.0} ns a round, {:.3} of off", empty / off);
    println!("on    {on:7.0} ns a round, {:.3} of off", on / off);
    Ok(())
}

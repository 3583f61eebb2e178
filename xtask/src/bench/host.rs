//! What the agent's hooks cost the host: the same loops with and without it, in turns, so
//! that a drift of the machine hits both sides alike.

use super::{Programs, Row, disk, median, pingpong};

/// Long enough for a stable number, short enough to change sides often.
const ROUNDS: u32 = 60_000;

/// Reads of 4 KiB past the page cache, each of some 100 us.
const READS: u32 = 3_000;

/// The CPU that the loops are pinned to.
const CPU: usize = 1;

pub fn measure(programs: &Programs, repeat: usize) -> anyhow::Result<Vec<Row>> {
    println!("Host: {repeat} times without and with the agent, in turns");
    let mut sides = [(); 2].map(|()| [(); 3].map(|()| Vec::new()));
    let file = disk::DirectFile::create()?;
    for _ in 0..repeat {
        for (side, [pipe, tcp, read]) in sides.iter_mut().enumerate() {
            let agent = (side == 1).then(|| programs.start_agent(&["--sensors", "cpu,block"]));
            let _agent = agent.transpose()?;
            pipe.push(pingpong::pipe_ns(CPU, ROUNDS)?);
            tcp.push(pingpong::tcp_ns(CPU, ROUNDS)?);
            read.push(file.read_ns(CPU, READS)?);
        }
    }
    let [[pipe_off, tcp_off, read_off], [pipe_on, tcp_on, read_on]] =
        sides.map(|side| side.map(median));
    let row = |name, value, unit, bar| Row {
        part: "host",
        name,
        value,
        unit,
        bar,
    };
    Ok(vec![
        row("pinned pipe ping-pong, without", pipe_off / 1e3, "us", ""),
        row(
            "pinned pipe ping-pong, ratio with/without",
            pipe_on / pipe_off,
            "",
            "goal 1.04",
        ),
        row("pinned TCP round trip, without", tcp_off / 1e3, "us", ""),
        row(
            "pinned TCP round trip, ratio with/without",
            tcp_on / tcp_off,
            "",
            "goal 1.04",
        ),
        row("pinned 4k direct read, without", read_off / 1e3, "us", ""),
        row(
            "pinned 4k direct read, ratio with/without",
            read_on / read_off,
            "",
            "goal 1.07",
        ),
    ])
}

//! What the lab runs as a process of its own: a sender of UDP.

use std::{
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

/// Longest flood, whoever forgets to end it.
const LONGEST: Duration = Duration::from_secs(20);

/// Sends so many datagrams a second of so many bytes.
///
/// # Errors
/// When there is no socket.
pub fn flood(address: &str, rate: f64, bytes: usize) -> anyhow::Result<()> {
    anyhow::ensure!(
        rate.is_finite() && rate > 0.0 && bytes <= 60_000,
        "a rate above 0 and at most 60000 bytes are wanted"
    );
    let socket = UdpSocket::bind("0.0.0.0:0").context("no UDP socket")?;
    let datagram = vec![0; bytes];
    let began = Instant::now();
    let mut sent = 0.0;
    while began.elapsed() < LONGEST {
        let due = began.elapsed().as_secs_f64() * rate;
        while sent < due {
            // Refused (nobody listens) or no room: both are what a flood is like.
            let _ = socket.send_to(&datagram, address);
            sent += 1.0;
        }
        // Few at a time: between bursts a full queue would let others in.
        thread::sleep(Duration::from_micros(100));
    }
    Ok(())
}

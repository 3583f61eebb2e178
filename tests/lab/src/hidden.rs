//! What the lab runs as processes of their own: a sender of UDP, a holder of connections.

use std::{
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::OwnedFd,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::net::{self, AddressFamily, SocketType};

/// Longest life of either, whoever forgets to end it.
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

/// Opens a connection from each of these local ports, says so, and holds them.
///
/// # Errors
/// When one is refused.
pub fn hold(address: SocketAddrV4, first: u16, ports: u16) -> anyhow::Result<()> {
    let open = |port| -> rustix::io::Result<OwnedFd> {
        let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
        net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))?;
        net::connect(&socket, &address)?;
        Ok(socket)
    };
    let held: Result<Vec<OwnedFd>, _> = (first..first + ports).map(open).collect();
    let held = held.with_context(|| address.to_string())?;
    println!("holding {}", held.len());
    thread::sleep(LONGEST);
    Ok(())
}

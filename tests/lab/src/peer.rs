//! A server without spans: answers after as many milliseconds as it is asked for.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::Context as _;

/// Longest wait that may be asked for.
const MAX: Duration = Duration::from_secs(10);

/// Starts it on a free port of `host`; it ends with the program.
///
/// # Errors
/// When there is no port.
pub fn start(host: Ipv4Addr) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((host, 0)).context("no port for the server without spans")?;
    let address = listener.local_addr()?;
    thread::Builder::new()
        .name("peer".to_owned())
        .spawn(move || {
            for stream in listener.incoming().flatten() {
                // A failed start of a thread is a broken connection to the caller.
                let _ = thread::Builder::new().spawn(move || answer(stream));
            }
        })?;
    Ok(address)
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut line = String::new();
    BufReader::new(stream.try_clone()?).read_line(&mut line)?;
    let wait = Duration::from_millis(line.trim().parse().unwrap_or(0));
    thread::sleep(wait.min(MAX));
    stream.write_all(b"done\n")
}

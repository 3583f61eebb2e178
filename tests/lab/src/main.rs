//! The fault lab as a program; `cargo xtask lab` runs it.

use std::{env, net::SocketAddrV4};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use lab::{cli, hidden};

#[derive(Parser)]
#[command(
    name = "cargo xtask lab",
    about = "Puts known faults into real services and scores the agent's answers"
)]
struct Cli {
    #[command(flatten)]
    args: cli::Args,
    #[command(subcommand)]
    hidden: Option<Hidden>,
}

#[derive(Subcommand)]
enum Hidden {
    /// Send UDP datagrams: part of a fault.
    #[command(hide = true)]
    Flood {
        /// `HOST:PORT`.
        address: String,
        /// Datagrams a second.
        rate: f64,
        /// Bytes of each.
        bytes: usize,
    },
    /// Hold TCP connections open: part of a fault.
    #[command(hide = true)]
    Hold {
        /// `HOST:PORT`.
        address: SocketAddrV4,
        /// The first local port.
        first: u16,
        /// How many of them.
        ports: u16,
    },
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match cli.hidden {
        None => {}
        Some(Hidden::Flood {
            address,
            rate,
            bytes,
        }) => return hidden::flood(&address, rate, bytes),
        Some(Hidden::Hold {
            address,
            first,
            ports,
        }) => return hidden::hold(address, first, ports),
    }
    anyhow::ensure!(
        rustix::process::geteuid().is_root(),
        "the lab needs root (it loads eBPF programs, makes cgroups and namespaces): use sudo"
    );
    stop_on_signals()?;
    cli::run(&cli.args, env::current_exe().context("own path")?)?;
    Ok(())
}

extern "C" fn on_signal(_signal: libc::c_int) {
    cli::STOP.store(true, std::sync::atomic::Ordering::Relaxed);
}

/// The first Ctrl-C ends the run that is going on, and then the lab, in order.
fn stop_on_signals() -> anyhow::Result<()> {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let handler = on_signal as extern "C" fn(libc::c_int);
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe, and is a
        // function that lives as long as the program.
        let before = unsafe { libc::signal(signal, handler as libc::sighandler_t) };
        anyhow::ensure!(before != libc::SIG_ERR, "cannot handle signal {signal}");
    }
    Ok(())
}

//! Address translation that runs out of ports.

use std::{
    fs,
    process::Command,
    sync::atomic::{AtomicU16, Ordering},
};

use anyhow::Context as _;
use harness::{peers, process::Process};

use super::{Active, Effect};
use crate::{
    plan::Fault,
    service::{PORT, Service},
    stage::{NEIGHBOUR, Stage},
};

/// Ports that the victim's connections are given.
const PORTS: u16 = 2;
/// The first of them in the next run: those of the last one are kept for a while.
static NEXT: AtomicU16 = AtomicU16::new(40_000);

/// The victim's connections to the store leave through as few ports as others hold open:
/// there is none left.
///
/// # Errors
/// When the kernel has no address translation, or refuses.
pub fn exhausted(fault: &Fault, stage: &Stage) -> anyhow::Result<Active> {
    peers::need("iptables")?;
    let place = stage.network.place(fault.victim.name()).clone();
    let store = stage.network.place(Service::Store.name()).address;
    let first = NEXT.fetch_add(PORTS, Ordering::Relaxed);
    let last = first + PORTS - 1;
    let own = format!("-p tcp --sport {first}:{last} -j ACCEPT");
    let others = format!(
        "-p tcp -d {store} --dport {PORT} -j SNAT --to-source {}:{first}-{last}",
        place.address
    );
    let change = move |action: &str, rule: &str| {
        let line = format!("iptables -w -t nat {action} POSTROUTING {rule}");
        place.run(&line.split(' ').collect::<Vec<_>>())
    };
    // With this one the table is there, and what is opened from now on is in it.
    change("-A", &own)?;
    let pid = stage.service(fault.victim).pid;
    let read = move || failures(pid);
    let before = read()?;
    let active = Active::measured_by(move |_| {
        let failed = read()? - before;
        Ok(Effect {
            what: format!("nf_conntrack: {failed} entries that could not be inserted"),
            there: failed >= 2,
            ..Effect::default()
        })
    })
    .undone_by({
        let (change, own, others) = (change.clone(), own.clone(), others.clone());
        move || {
            // The namespace is gone only when the lab is ending.
            let _ = change("-D", &others);
            let _ = change("-D", &own);
        }
    });
    let mut hold = Command::new("ip");
    hold.args(&stage.network.place(fault.victim.name()).exec()[1..])
        .arg(&stage.program)
        .args(["hold", &format!("{store}:{PORT}")])
        .args([first.to_string(), PORTS.to_string()]);
    let procs = stage.groups.procs(NEIGHBOUR);
    let mut hold = Process::start_in("hold", &mut hold, &procs)?;
    hold.wait_for_line("holding")?;
    change("-A", &others)?;
    Ok(active.with(vec![hold]))
}

/// Entries that did not get into the table of the process's network namespace.
fn failures(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/net/stat/nf_conntrack");
    let text = fs::read_to_string(&path).context(path)?;
    insert_failed(&text).context("no column insert_failed")
}

/// Sum over CPUs: hexadecimal columns under their names.
fn insert_failed(text: &str) -> Option<u64> {
    let mut lines = text.lines();
    let names = lines.next()?.split_whitespace();
    let at = names.into_iter().position(|name| name == "insert_failed")?;
    let of = |line: &str| u64::from_str_radix(line.split_whitespace().nth(at)?, 16).ok();
    Some(lines.filter_map(of).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_file() {
        let text = "entries insert insert_failed drop\n03 00 0a 01\n03 00 02 01\n";
        assert_eq!(insert_failed(text), Some(12));
        assert_eq!(insert_failed("entries drop\n1 2\n"), None);
    }
}

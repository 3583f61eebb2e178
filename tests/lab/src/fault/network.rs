//! Faults of the network, all inside the lab's own namespaces or on its own devices.

use std::{fs, process::Command, thread, time::Duration};

use anyhow::Context as _;
use harness::{peers, process::Process};

use super::{Active, Effect, between};
use crate::{
    network::{DEVICE, output},
    plan::Fault,
    service::PORT,
    stage::{NEIGHBOUR, Stage},
};

/// Longest time that a request makes the victim take no connection, see `plan`.
const DEAF: Duration = Duration::from_millis(1_200);

/// A token bucket on what the victim sends: 2 to 8 Mbit/s.
///
/// # Errors
/// When the kernel refuses.
pub fn rate_limit(fault: &Fault, stage: &Stage) -> anyhow::Result<Active> {
    let rate = format!("{:.0}kbit", between(8_000.0, 2_000.0, fault.strength));
    let place = stage.network.place(fault.victim.name()).clone();
    place.run(&[
        "tc", "qdisc", "add", "dev", DEVICE, "root", "tbf", "rate", &rate, "burst", "16kb",
        "latency", "400ms",
    ])?;
    let undo = place.clone();
    let measure = move |_: &Stage| {
        let text = place.run(&["tc", "-s", "qdisc", "show", "dev", DEVICE])?;
        let held = count(&text, "overlimits ");
        Ok(Effect {
            what: format!("tc: {held} times over the limit of {rate}"),
            there: held >= 20,
            ..Effect::default()
        })
    };
    Ok(Active::measured_by(measure).undone_by(move || {
        // The namespace is gone only when the lab is ending.
        let _ = undo.run(&["tc", "qdisc", "del", "dev", DEVICE, "root"]);
    }))
}

/// Segments between the chain's services dropped at random on their way to the victim.
///
/// # Errors
/// When the kernel refuses.
pub fn loss(fault: &Fault, stage: &Stage) -> anyhow::Result<Active> {
    let probability = format!("{:.3}", between(0.15, 0.40, fault.strength));
    let rule = |side: &str| {
        let rule = format!(
            "-p tcp {side} {PORT} -m statistic --mode random --probability {probability} -j DROP"
        );
        rule.split(' ').map(str::to_owned).collect::<Vec<_>>()
    };
    filtered(
        fault,
        stage,
        &[rule("--dport"), rule("--sport")],
        3,
        "segments dropped",
    )
}

/// Connections to the victim refused at random.
///
/// # Errors
/// When the kernel refuses.
pub fn refused(fault: &Fault, stage: &Stage) -> anyhow::Result<Active> {
    let probability = between(0.5, 0.9, fault.strength);
    let rule = format!(
        "-p tcp --dport {PORT} --syn -m statistic --mode random --probability {probability:.3} \
         -j REJECT --reject-with tcp-reset"
    );
    let rule = rule.split(' ').map(str::to_owned).collect();
    filtered(fault, stage, &[rule], 5, "connections refused")
}

/// With rules on what comes to the victim, whose packets are counted.
fn filtered(
    fault: &Fault,
    stage: &Stage,
    rules: &[Vec<String>],
    least: u64,
    what: &'static str,
) -> anyhow::Result<Active> {
    peers::need("iptables")?;
    let place = stage.network.place(fault.victim.name()).clone();
    let undo = place.clone();
    let active_place = place.clone();
    let active = Active::measured_by(move |_| {
        let words = ["iptables", "-w", "-L", "INPUT", "-v", "-x", "-n"];
        let text = active_place.run(&words)?;
        let packets = text.lines().skip(2).filter_map(|line| {
            let first = line.split_whitespace().next()?;
            first.parse::<u64>().ok()
        });
        let packets: u64 = packets.sum();
        Ok(Effect {
            what: format!("iptables: {packets} {what}"),
            there: packets >= least,
            ..Effect::default()
        })
    })
    .undone_by(move || {
        // The namespace is gone only when the lab is ending.
        let _ = undo.run(&["iptables", "-w", "-F", "INPUT"]);
    });
    for rule in rules {
        let mut words = vec!["iptables", "-w", "-A", "INPUT"];
        words.extend(rule.iter().map(String::as_str));
        place.run(&words)?;
    }
    Ok(active)
}

/// A neighbour that floods the victim's veth with UDP, more than it is allowed to take. What
/// waits there is bounded in packets, as the receive queue of a network card is: a segment
/// finds no more room in it than a datagram.
///
/// # Errors
/// When the kernel refuses.
pub fn udp_flood(fault: &Fault, stage: &Stage) -> anyhow::Result<Active> {
    const MBIT: f64 = 60.0;
    const BYTES: f64 = 1_200.0;
    const PACKETS: &str = "400";
    let victim = stage.network.place(fault.victim.name()).clone();
    let over = between(1.1, 1.5, fault.strength);
    let rate = over * MBIT * 1e6 / 8.0 / BYTES;
    let (limit, veth) = (format!("{MBIT:.0}mbit"), victim.veth.clone());
    let qdisc = ["tc", "qdisc", "add", "dev", &veth];
    let bucket = [
        "root", "handle", "1:", "tbf", "rate", &limit, "burst", "32kb",
    ];
    let queue = ["parent", "1:1", "pfifo", "limit", PACKETS];
    output(&[&qdisc[..], &bucket, &["latency", "1s"]].concat())?;
    output(&[&qdisc[..], &queue].concat())?;
    let before = udp_received(stage, fault)?;
    let (undo, victim_of) = (veth.clone(), fault.clone());
    let active = Active::measured_by(move |stage| {
        let text = output(&["tc", "-s", "qdisc", "show", "dev", &veth])?;
        let (dropped, held) = (count(&text, "dropped "), count(&text, "overlimits "));
        let received = udp_received(stage, &victim_of)? - before;
        Ok(Effect {
            what: format!(
                "tc: {dropped} packets dropped, {held} times over the limit; snmp: {received} \
                 datagrams to no port"
            ),
            there: dropped >= 100 && received >= 1_000,
            ..Effect::default()
        })
    })
    .undone_by(move || {
        // The device is gone only when the lab is ending.
        let _ = output(&["tc", "qdisc", "del", "dev", &undo, "root"]);
    });
    let mut flood = Command::new("ip");
    flood
        .args(&stage.network.place(NEIGHBOUR).exec()[1..])
        .arg(&stage.program)
        .args(["flood", &format!("{}:9", victim.address)])
        .args([&format!("{rate:.0}"), &format!("{BYTES:.0}")]);
    let procs = stage.groups.procs(NEIGHBOUR);
    Ok(active.with(vec![Process::start_in("flood", &mut flood, &procs)?]))
}

/// The victim takes no connection for a while (the requests make it), and its queue of
/// connections runs over.
///
/// # Errors
/// When the kernel's counters cannot be read.
pub fn listen_overflow(fault: &Fault, stage: &Stage) -> anyhow::Result<Active> {
    let pid = stage.service(fault.victim).pid;
    let read = move || -> anyhow::Result<u64> {
        let text = fs::read_to_string(format!("/proc/{pid}/net/netstat"))?;
        named(&text, "TcpExt:", "ListenDrops")
    };
    let before = read()?;
    Ok(Active::measured_by(move |_| {
        let dropped = read()? - before;
        Ok(Effect {
            what: format!("netstat: {dropped} connections dropped before they were accepted"),
            there: dropped >= 1,
            ..Effect::default()
        })
    })
    // It still does not listen for as long as the last request made it.
    .undone_by(|| thread::sleep(DEAF)))
}

fn udp_received(stage: &Stage, fault: &Fault) -> anyhow::Result<u64> {
    let pid = stage.service(fault.victim).pid;
    let text = fs::read_to_string(format!("/proc/{pid}/net/snmp"))?;
    named(&text, "Udp:", "NoPorts")
}

/// A value of a file with a line of names and a line of values.
fn named(text: &str, of: &str, name: &str) -> anyhow::Result<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with(of));
    let (names, values) = (lines.next().context(of.to_owned())?, lines.next());
    let at = names.split(' ').position(|word| word == name);
    let value = at.and_then(|at| values?.split(' ').nth(at)?.parse().ok());
    value.with_context(|| format!("no {name} in {of}"))
}

/// The number after a word of `tc`'s.
fn count(text: &str, word: &str) -> u64 {
    let after = text.split(word).nth(1).unwrap_or_default();
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_counters() -> anyhow::Result<()> {
        let tc = "qdisc tbf 8001: root\n Sent 5 bytes 1 pkt (dropped 12, overlimits 34 requeues 0)";
        assert_eq!((count(tc, "dropped "), count(tc, "overlimits ")), (12, 34));
        let netstat = "TcpExt: A ListenDrops B\nTcpExt: 1 22 3\n";
        assert_eq!(named(netstat, "TcpExt:", "ListenDrops")?, 22);
        Ok(())
    }
}

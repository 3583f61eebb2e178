//! Who consumed what the victim waited for, in exactly the time that it waited: the neighbour
//! that had most of it, if the neighbours together had enough of it to be the reason.
//!
//! - A CPU: who had it while the victim was ready to run (`runqueue`). The neighbours had at
//!   least half of the time waited.
//! - A disk (`block_queue`, `block_device`): whose I/O was under way, added up over all of it, so
//!   that who has much of it under way at once counts for more than who waits for each. The
//!   neighbours had at least 40 %: the victim itself always has something under way while it
//!   waits. Where only the system call is known that waited (an `fsync` for the journal), the
//!   disk is the one that was busiest then.
//! - Memory (`memory_reclaim`, `oom_kill`): for whom it was freed. Where the host ran short, of
//!   all; where an enclosing group's limit was met, of those below that limit; where the
//!   victim's own was, of nobody. At least half.
//! - The network (`net_drop`, `tcp_retransmit`, `tcp_rtt`, `tcp_connect`): who sent UDP on the same
//!   slice, or on one that is not known, from 5 000 datagrams a second on. At least half of what was sent.
//!   Of a stuck queue (`virtqueue`), from 5 000 datagrams in all on, from 2 s before.
//!
//! Who encloses the victim or is enclosed by it is no neighbour. What the root's own processes had
//! counts as a neighbour's, but cannot be named; of what nobody knows whose it was, the
//! neighbours had nothing. Who had less than a quarter of all is not named.

use super::consumers::{Consumers, Had};
use crate::{
    event::{Flow, Neighbour, Particulars, Resource},
    process::Identity,
    vocabulary::Cause,
    workload::path::place::is_below,
};

/// UDP datagrams a second from which it is a flood.
const FLOOD_PER_S: f64 = 5_000.0;
/// Least part of all that somebody had who is named.
const LEAST_PART: f64 = 0.25;
/// How long before a moment (a kill, a drop, a retransmission) its reason is looked for.
const BEFORE_NS: u64 = 200_000_000;
/// How long before a request into a stuck queue what filled it is looked for. Once it is full, who
/// fills it cannot send either.
const BEFORE_STUCK_NS: u64 = 2_000_000_000;
/// Windows that are looked at one by one; of more, from the first to the last.
const MAX_WINDOWS: usize = 256;

/// A delay of the verdict's cause, as far as it lies in the span.
#[derive(Clone, Debug)]
pub struct Wait {
    /// First nanosecond, monotonic.
    pub start: u64,
    /// One past the last nanosecond.
    pub end: u64,
    /// What is known of it.
    pub particulars: Particulars,
}

/// The culprit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Culprit {
    /// Its name; empty where it is the victim itself, or not known.
    pub name: String,
    /// Its part of what all had, 0..1.
    pub part: f64,
}

/// Who it was; `heaviest` is what is known of the waits that took most of the time.
#[must_use]
pub fn find(
    cause: Cause,
    heaviest: &Particulars,
    waits: &[Wait],
    victim: &Identity,
    consumers: &Consumers,
) -> Culprit {
    match (cause, heaviest) {
        // Another CPU was idle: who had this one is not why.
        (Cause::Runqueue, Particulars::Confined(_)) => Culprit::default(),
        (Cause::Runqueue, _) => of_the_cpu(waits, victim),
        (Cause::BlockQueue | Cause::BlockDevice, Particulars::Disk(disk)) => {
            let resource = Resource::Disk(disk.clone());
            let had = consumers.within(&resource, &windows(waits));
            most(had, victim, 0.4, |_| true)
        }
        (Cause::BlockQueue, _) => {
            let windows = windows(waits);
            let Some(busiest) = consumers.busiest_disk(&windows) else {
                return Culprit::default();
            };
            most(consumers.within(busiest, &windows), victim, 0.4, |_| true)
        }
        (Cause::MemoryReclaim | Cause::OomKill, Particulars::Memory { memcg, limit, .. }) => {
            let below = match limit {
                Some(limit) if *memcg && limit.is_ancestor => &*limit.cgroup_path,
                _ if *memcg => return Culprit::default(),
                _ => "/",
            };
            let resource = Resource::Memory { memcg: *memcg };
            let had = consumers.within(&resource, &windows(waits));
            most(had, victim, 0.5, |n| is_within(&n.cgroup_path, below))
        }
        (
            Cause::NetDrop
            | Cause::Virtqueue
            | Cause::TcpRetransmit
            | Cause::TcpRtt
            | Cause::TcpConnect,
            Particulars::Flow(flow),
        ) => {
            if cause == Cause::NetDrop && !is_for_want_of_room(&flow.reason) {
                return Culprit::default();
            }
            let is_stuck = cause == Cause::Virtqueue;
            let mut windows = windows(waits);
            if is_stuck && let Some((start, _)) = windows.first_mut() {
                *start = start.saturating_sub(BEFORE_STUCK_NS);
            }
            let mut had = consumers.within(&Resource::Network(flow.slice), &windows);
            if flow.slice.is_some() {
                // Where a socket is not connected, which way it sends is not known.
                merge(
                    &mut had,
                    consumers.within(&Resource::Network(None), &windows),
                );
            }
            // A few datagrams within a short wait are no flood.
            let ns: u64 = windows.iter().map(|(start, end)| end - start).sum();
            let ns = match is_stuck {
                true => ns.min(BEFORE_STUCK_NS / 2),
                false => ns.max(BEFORE_NS),
            };
            let sent: f64 = had.iter().map(|had| had.amount).sum();
            if sent * 1e9 < FLOOD_PER_S * ns as f64 {
                return Culprit::default();
            }
            most(had, victim, 0.5, |_| true)
        }
        _ => Culprit::default(),
    }
}

/// Whether a packet was dropped as a queue was full, which a flood may fill, and not because a rule
/// or a protocol said so. Kernels before 5.17 give no reason.
fn is_for_want_of_room(reason: &str) -> bool {
    const FULL: [&str; 8] = [
        "QDISC",
        "CAKE",
        "FQ_",
        "FULL_RING",
        "CPU_BACKLOG",
        "NOMEM",
        Flow::TX_TIMEOUT,
        "NOT_SPECIFIED",
    ];
    reason.is_empty() || FULL.iter().any(|full| reason.contains(full))
}

/// Adds what each had more.
fn merge(had: &mut Vec<Had>, more: Vec<Had>) {
    for one in more {
        match had
            .iter_mut()
            .find(|known| known.cgroup_id == one.cgroup_id)
        {
            Some(known) => known.amount += one.amount,
            None => had.push(one),
        }
    }
}

/// Who had the CPU is said by each wait itself.
fn of_the_cpu(waits: &[Wait], victim: &Identity) -> Culprit {
    let mut had: Vec<Had> = Vec::new();
    for wait in waits {
        let amount = (wait.end - wait.start) as f64;
        let consumer = match &wait.particulars {
            Particulars::Neighbour(neighbour) => Some(neighbour),
            _ => None,
        };
        let cgroup_id = consumer.map_or(0, |neighbour| neighbour.cgroup_id);
        match had.iter_mut().find(|had| had.cgroup_id == cgroup_id) {
            Some(had) => had.amount += amount,
            None => had.push(Had {
                cgroup_id,
                consumer: consumer.cloned(),
                amount,
            }),
        }
    }
    most(had, victim, 0.5, |_| true)
}

/// The neighbour that had most and has a name, if those that count had at least `least` of all
/// (0..1).
fn most(
    had: Vec<Had>,
    victim: &Identity,
    least: f64,
    counts: impl Fn(&Neighbour) -> bool,
) -> Culprit {
    let all: f64 = had.iter().map(|had| had.amount).sum();
    let mut of_others = 0.0;
    let mut first: Option<(&Neighbour, f64)> = None;
    for had in &had {
        let Some(neighbour) = had.consumer.as_deref() else {
            continue;
        };
        let is_root = neighbour.cgroup_path == "/";
        if (!is_root && is_own(neighbour, victim)) || !counts(neighbour) {
            continue;
        }
        of_others += had.amount;
        if is_root || neighbour.name.is_empty() {
            continue; // somebody else, and nobody in particular
        }
        // Of equals the first, so that the same input gives the same answer.
        if first.is_none_or(|(_, amount)| had.amount > amount) {
            first = Some((neighbour, had.amount));
        }
    }
    match first {
        Some((neighbour, amount))
            if all > 0.0 && of_others >= least * all && amount >= LEAST_PART * all =>
        {
            Culprit {
                name: neighbour.name.clone(),
                part: amount / all,
            }
        }
        _ => Culprit::default(),
    }
}

/// Whether it is the victim, or one encloses the other.
fn is_own(neighbour: &Neighbour, victim: &Identity) -> bool {
    let (theirs, own) = (&neighbour.cgroup_path, &victim.cgroup_path);
    neighbour.cgroup_id == victim.cgroup_id
        || (!theirs.is_empty() && is_within(own, theirs))
        // Who lives in the root itself is not everybody.
        || (!own.trim_end_matches('/').is_empty() && is_within(theirs, own))
}

/// Whether a path is that of a group or of one below it; everybody is below the root.
fn is_within(path: &str, group: &str) -> bool {
    is_below(path, group.trim_end_matches('/'))
}

/// When somebody waited, in order and without overlaps: of what takes no time, the time before.
pub fn windows(waits: &[Wait]) -> Vec<(u64, u64)> {
    let from = |wait: &Wait| {
        if wait.end > wait.start {
            wait.start
        } else {
            wait.end.saturating_sub(BEFORE_NS)
        }
    };
    let mut all: Vec<(u64, u64)> = waits.iter().map(|w| (from(w), w.end)).collect();
    all.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (start, end) in all {
        match merged.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    if merged.len() > MAX_WINDOWS {
        let (first, last) = (merged[0].0, merged[merged.len() - 1].1);
        return vec![(first, last)];
    }
    merged
}

#[cfg(test)]
mod tests;

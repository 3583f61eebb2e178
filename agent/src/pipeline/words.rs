//! The sentences and numbers of a verdict. Names in them come from processes and cgroups:
//! what bends a terminal's or a page's line is taken out and lengths bounded; escaping is the output's part.

use super::{culprit::Culprit, kills};
use crate::{
    event::{Flow, Limiter, Particulars},
    knowledge::{self, sentence::Slot},
    process::Identity,
    stack::report::bends_output,
    verdict::Split,
    vocabulary::{Cause, Fault},
    workload::Workload,
};

/// Longest name in a sentence, in characters.
const MAX_NAME_CHARS: usize = 120;

/// What the raw intervals of the verdict's cause say beyond the split.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Single intervals that overlap the span, of all threads.
    pub intervals: usize,
    /// The longest of them inside the span, in nanoseconds.
    pub longest_ns: u64,
    /// Threads that had them.
    pub threads: usize,
    /// What is known of those that took the most time.
    pub particulars: Particulars,
    /// Who consumed what was waited for.
    pub culprit: Culprit,
    /// What the cause usually takes of this operation, in nanoseconds, where known.
    pub usual_ns: Option<u64>,
    /// It was another thread that met them, for which the span's own thread waited.
    pub is_behind: bool,
    /// An event loop met them that worked on other requests too.
    pub is_of_loop: bool,
    /// For most of the wait the callee had not begun with the request.
    pub is_until_begun: bool,
    /// Kernel events of that time that were lost: it may be more than this, or something else.
    pub lost_events: u64,
    /// Sensors that told less than they could at that time, to save cost.
    pub saving: Vec<&'static str>,
    /// Waits for memory to be read back from the swap space.
    pub swap_ins: Stalls,
    /// Waits for pages of mapped files to be read.
    pub major_faults: Stalls,
    /// These took at least half as long as what is blamed.
    pub is_for_faults: bool,
}

/// Waits of one kind, inside the span.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stalls {
    /// How many.
    pub count: usize,
    /// All together, in nanoseconds.
    pub ns: u64,
}

impl Evidence {
    /// For `cpu_throttle`: the cgroup whose quota took the most time.
    #[must_use]
    pub fn limiter(&self) -> Option<&Limiter> {
        self.particulars.limiter().map(AsRef::as_ref)
    }
}

/// One sentence that a person understands: `share` of `whole_ns`, and what took it.
#[must_use]
pub fn summary(
    cause: Cause,
    share: f64,
    whole_ns: u64,
    identity: &Identity,
    evidence: &Evidence,
) -> String {
    let (share, whole) = (share * 100.0, duration(whole_ns));
    let what = what(cause, identity, evidence);
    let incomplete = match evidence.lost_events {
        0 => String::new(),
        1 => "; 1 kernel event of that time was lost".to_owned(),
        lost => format!("; {lost} kernel events of that time were lost"),
    };
    let saving = match &evidence.saving[..] {
        [] => String::new(),
        all => format!("; to save cost, less is known by {}", all.join(", ")),
    };
    let behind = match evidence.is_behind {
        true => "waited for another thread of its process: ",
        false => "",
    };
    format!("{share:.0} % of {whole}: {behind}{what}{incomplete}{saving}")
}

/// What took the time.
fn what(cause: Cause, identity: &Identity, evidence: &Evidence) -> String {
    let particulars = &evidence.particulars;
    let by = |before: &str, after: &str| match &*evidence.culprit.name {
        "" => String::new(),
        name => format!("{before}{}{after}", printable(name)),
    };
    let usual = evidence
        .usual_ns
        .map_or_else(String::new, |ns| format!(" (usually {})", duration(ns)));
    match cause {
        Cause::CpuThrottle => throttled(identity, evidence.limiter()),
        Cause::Runqueue => format!(
            "ready to run and waiting for a CPU{}{}",
            confined(particulars),
            by(", which ", " had")
        ),
        Cause::Steal => "the hypervisor below gave the CPU to somebody else".to_owned(),
        Cause::KvmExit => format!(
            "the virtual CPU was out of guest mode{}",
            reason(particulars)
        ),
        Cause::MemoryReclaim if is_major_fault(particulars) => {
            "waited for pages of files to be read again that were pushed out of memory".to_owned()
        }
        Cause::MemoryReclaim if is_swap_in(particulars) => format!(
            "waited for memory to be read back from the swap space{}{}",
            limit(particulars, identity),
            by(", used up by ", "")
        ),
        Cause::MemoryReclaim if matches!(particulars, Particulars::SystemCall(_)) => {
            "waited for memory to be freed or read back".to_owned()
        }
        Cause::MemoryReclaim => format!(
            "had to free memory before it got any{}{}",
            limit(particulars, identity),
            by(", used up by ", "")
        ),
        Cause::OomKill => format!(
            "the kernel killed a process of {} for lack of memory{}{}",
            who(identity),
            limit(particulars, identity),
            by(", used up by ", "")
        ),
        Cause::BlockThrottle => format!(
            "held back by the I/O limit of {}{}",
            who(identity),
            on_disk(" on ", particulars)
        ),
        Cause::BlockQueue if is_major_fault(particulars) => format!(
            "waited in a page fault for the disk of a mapped file{}",
            by(", busy with I/O of ", "")
        ),
        // The journal's own wait is nobody's request: which queue it was in is not known.
        Cause::BlockQueue if matches!(particulars, Particulars::SystemCall(_)) => format!(
            "waited{} for the file system or its disk{}",
            call(" in ", particulars),
            by(", busy with I/O of ", "")
        ),
        Cause::BlockQueue => format!(
            "waited in the queue of {}{}",
            disk(particulars),
            by(", filled by ", "")
        ),
        Cause::BlockDevice => format!(
            "waited for {}{}{}{usual}",
            disk(particulars),
            match evidence.is_for_faults {
                true => " in page faults on mapped files",
                false => "",
            },
            by(", busy with I/O of ", "")
        ),
        Cause::TcpConnect => format!(
            "waited for a TCP connection to be established{}{}{usual}",
            through(particulars),
            by(", while ", " flooded the network")
        ),
        Cause::TcpRtt => format!(
            "the round trip of a connection took longer than its shortest{}{}",
            through(particulars),
            by(", while ", " flooded the network")
        ),
        Cause::TcpRetransmit => format!(
            "waited for lost TCP segments to be sent again{}{}",
            through(particulars),
            by(", while ", " flooded the network")
        ),
        Cause::NetDrop if is_stuck(particulars) => format!(
            "a transmit queue was stuck{}{}",
            through(particulars),
            by(", after ", " flooded the network")
        ),
        Cause::NetDrop => format!(
            "packets were dropped{}{}{}",
            through(particulars),
            reason(particulars),
            by(", while ", " flooded the network")
        ),
        Cause::Virtqueue => format!(
            "a queue of a paravirtual device was stuck{}{}",
            through(particulars),
            by(", after ", " flooded the network")
        ),
        Cause::Conntrack => {
            "connection tracking had no room, or no port left for address translation".to_owned()
        }
        Cause::SeccompDenied => match particulars {
            Particulars::SystemCall(call) if !call.name.is_empty() => format!(
                "a seccomp filter refused {} to {}",
                printable(&call.name),
                who(identity)
            ),
            _ => format!(
                "a seccomp filter refused a system call of {}",
                who(identity)
            ),
        },
        Cause::LockWait if kills::is_for_a_child(particulars) => {
            format!("waited for a child process of its own{usual}")
        }
        Cause::LockWait if evidence.is_of_loop => {
            format!("its event loop waited for a lock, for this request or another{usual}")
        }
        Cause::LockWait => format!("waited for a lock of its own process{usual}"),
        Cause::Sleep => format!("slept because its own code asked to{usual}"),
        Cause::SocketWait if evidence.is_until_begun => {
            format!("waited until a peer began with the request{usual}")
        }
        Cause::SocketWait => format!("waited for a peer's answer{usual}"),
        Cause::OnCpu if evidence.is_of_loop => {
            format!("its event loop was running code, of this request or another{usual}")
        }
        Cause::OnCpu => format!("its own code was running{usual}"),
        Cause::Downstream => format!("waited for requests that it made{usual}"),
        Cause::Unexplained => "no sensor saw what it did".to_owned(),
    }
}

pub(super) fn is_swap_in(particulars: &Particulars) -> bool {
    matches!(particulars, Particulars::Memory { is_swap_in, .. } if *is_swap_in)
}

pub(super) fn is_major_fault(particulars: &Particulars) -> bool {
    matches!(particulars, Particulars::SystemCall(call) if call.is_major_fault())
}

fn disk(particulars: &Particulars) -> String {
    match particulars {
        Particulars::Disk(disk) if !disk.name.is_empty() => {
            format!("the disk {}", printable(&disk.name))
        }
        _ => "the disk".to_owned(),
    }
}

fn call(before: &str, particulars: &Particulars) -> String {
    match particulars {
        Particulars::SystemCall(call) if !call.name.is_empty() => {
            format!("{before}{}", printable(&call.name))
        }
        _ => String::new(),
    }
}

fn on_disk(before: &str, particulars: &Particulars) -> String {
    match particulars {
        Particulars::Disk(_) => format!("{before}{}", disk(particulars)),
        _ => String::new(),
    }
}

/// Which way the packets went.
fn through(particulars: &Particulars) -> String {
    match particulars {
        Particulars::Flow(flow) if !flow.device.is_empty() => {
            format!(" through {}", printable(&flow.device))
        }
        _ => String::new(),
    }
}

/// Whether nothing was dropped, but waited in a queue of a device that stood still.
fn is_stuck(particulars: &Particulars) -> bool {
    matches!(particulars, Particulars::Flow(flow) if flow.reason == Flow::TX_TIMEOUT)
}

/// That a CPU was idle which it may not use.
fn confined(particulars: &Particulars) -> String {
    match particulars {
        Particulars::Confined(to) if to.cpus == 1 => {
            " while another was idle, as its cpuset or affinity leaves it one only".to_owned()
        }
        Particulars::Confined(to) => format!(
            " while another was idle, as its cpuset or affinity leaves it {} only",
            to.cpus
        ),
        _ => String::new(),
    }
}

/// The kernel's or processor's own word for it.
fn reason(particulars: &Particulars) -> String {
    let reason = match particulars {
        Particulars::Flow(flow) => &flow.reason,
        Particulars::VmExit(exit) => &exit.reason,
        _ => return String::new(),
    };
    if reason.is_empty() {
        return String::new();
    }
    format!(" ({})", printable(reason))
}

/// The workload's name, or else the process's.
fn who(identity: &Identity) -> String {
    let workload = identity.workload.display_name();
    printable(if workload.is_empty() {
        &identity.comm
    } else {
        &workload
    })
}

/// Whose quota it was, how large, and what it is set on.
fn throttled(identity: &Identity, limiter: Option<&Limiter>) -> String {
    let Some(limiter) = limiter else {
        let who = who(identity);
        return format!("held back by the CPU quota of {who} or of a group around it");
    };
    let workload = &identity.workload;
    let in_container = !workload.container.is_empty() || !workload.container_id.is_empty();
    let (whose, set_on) = if !limiter.is_ancestor && in_container {
        (who(identity), "the container")
    } else if !limiter.is_ancestor {
        (who(identity), "its own cgroup")
    } else if is_of_pod(workload, limiter) {
        (format!("pod {}", pod(workload)), "the pod")
    } else {
        (printable(&limiter.cgroup_path), "a cgroup around it")
    };
    let limit = cores(limiter.cores);
    format!("held back by the CPU quota of {whose} (limit {limit} set on {set_on})")
}

/// `namespace/pod`.
fn pod(workload: &Workload) -> String {
    let names = [&*workload.namespace, workload.pod_label()];
    let names: Vec<&str> = names.into_iter().filter(|name| !name.is_empty()).collect();
    printable(&names.join("/"))
}

/// Whose memory there was too little of.
fn limit(particulars: &Particulars, identity: &Identity) -> String {
    let Particulars::Memory { memcg, limit, .. } = particulars else {
        return String::new();
    };
    match limit {
        Some(limit) => {
            let whose = if limit.is_ancestor {
                printable(&limit.cgroup_path)
            } else {
                who(identity)
            };
            format!(
                ", below {} of {whose} ({})",
                limit.file,
                mebibytes(limit.bytes)
            )
        }
        None if *memcg => ", below a limit of its cgroup or of one around it".to_owned(),
        None => ", as the host was short of it".to_owned(),
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Whether the quota is set on the pod that the workload is in.
fn is_of_pod(workload: &Workload, limiter: &Limiter) -> bool {
    limiter.is_ancestor && !workload.pod_uid.is_empty() && is_pod(&limiter.cgroup_path)
}

/// Whether the last part of a cgroup's path is a pod's, by either cgroup driver's naming.
fn is_pod(path: &str) -> bool {
    let last = path.rsplit('/').next().unwrap_or("");
    last.starts_with("pod") || (last.starts_with("kubepods") && last.contains("-pod"))
}

/// One sentence of the knowledge: what to do.
#[must_use]
pub fn remedy(cause: Cause, fault: Fault, identity: &Identity, evidence: &Evidence) -> String {
    knowledge::remedy::remedy(cause, fault, |slot| known(slot, identity, evidence))
}

/// What is known of a case, for a sentence; `None` where it is not.
fn known(slot: Slot, identity: &Identity, evidence: &Evidence) -> Option<String> {
    let particulars = &evidence.particulars;
    let name = match (slot, particulars) {
        (Slot::Workload, _) => return Some(who(identity)).filter(|name| !name.is_empty()),
        (Slot::Setting, Particulars::Memory { limit, .. }) => {
            let limit = limit.as_ref()?;
            return Some(format!(
                "{} of {}",
                limit.file,
                printable(&limit.cgroup_path)
            ));
        }
        (Slot::Limit, Particulars::Memory { limit, .. }) => {
            return Some(mebibytes(limit.as_ref()?.bytes));
        }
        (Slot::Setting, _) => return Some(quota(&identity.workload, evidence.limiter()?)),
        (Slot::Limit, _) => return Some(cpus(evidence.limiter()?.cores)),
        (Slot::Device, Particulars::Disk(disk)) => &disk.name,
        (Slot::Device, Particulars::Flow(flow)) => &flow.device,
        (Slot::Reason, Particulars::Flow(flow)) => &flow.reason,
        (Slot::Reason, Particulars::VmExit(exit)) => &exit.reason,
        (Slot::Syscall, Particulars::SystemCall(call)) => &call.name,
        (Slot::Device | Slot::Reason | Slot::Syscall, _) => return None,
    };
    (!name.is_empty()).then(|| printable(name))
}

/// Where a person sets the quota: in the pod's manifest, the unit's properties, or the file.
fn quota(workload: &Workload, limiter: &Limiter) -> String {
    let own_pod = !workload.pod_uid.is_empty() && !limiter.is_ancestor;
    if is_of_pod(workload, limiter) {
        format!(
            "resources.limits.cpu of the containers of pod {}",
            printable(workload.pod_label())
        )
    } else if own_pod {
        format!(
            "resources.limits.cpu of {}",
            printable(&workload.display_name())
        )
    } else {
        format!(
            "{} of {}",
            limiter.quota_file,
            printable(&limiter.cgroup_path)
        )
    }
}

/// The numbers, each with its unit in the name.
#[must_use]
pub fn numbers(
    cause: Cause,
    cause_ns: u64,
    split: &Split,
    evidence: &Evidence,
) -> Vec<(String, f64)> {
    let mut numbers = vec![
        (format!("{cause}_ms"), millis(cause_ns)),
        (format!("{cause}_intervals"), evidence.intervals as f64),
        (format!("{cause}_longest_ms"), millis(evidence.longest_ns)),
        (format!("{cause}_threads"), evidence.threads as f64),
        ("self_time_ms".to_owned(), millis(split.self_time_ns)),
    ];
    if let Some(usual_ns) = evidence.usual_ns {
        numbers.push((format!("{cause}_usual_ms"), millis(usual_ns)));
    }
    if let Some(limiter) = evidence.limiter() {
        numbers.push(("cpu_limit_cores".to_owned(), limiter.cores));
    }
    if !evidence.culprit.name.is_empty() {
        numbers.push(("culprit_percent".to_owned(), evidence.culprit.part * 100.0));
    }
    for (stalls, time, count) in [
        (evidence.swap_ins, "swap_in_ms", "swap_ins"),
        (evidence.major_faults, "major_fault_ms", "major_faults"),
    ] {
        if stalls.count > 0 {
            numbers.push((time.to_owned(), millis(stalls.ns)));
            numbers.push((count.to_owned(), stalls.count as f64));
        }
    }
    if evidence.is_behind {
        numbers.push(("behind_another_thread".to_owned(), 1.0));
    }
    if evidence.is_of_loop {
        numbers.push(("of_event_loop".to_owned(), 1.0));
    }
    if evidence.lost_events > 0 {
        numbers.push(("events_lost".to_owned(), evidence.lost_events as f64));
    }
    if !evidence.saving.is_empty() {
        let sensors = evidence.saving.len() as f64;
        numbers.push(("sensors_saving".to_owned(), sensors));
    }
    numbers
}

fn millis(ns: u64) -> f64 {
    ns as f64 / 1e6
}

fn duration(ns: u64) -> String {
    match ns {
        0..10_000_000 => format!("{:.1} ms", millis(ns)),
        10_000_000..10_000_000_000 => format!("{:.0} ms", millis(ns)),
        _ => format!("{:.1} s", millis(ns) / 1e3),
    }
}

/// At most three decimals, without trailing zeros.
fn number(cores: f64) -> String {
    let text = format!("{cores:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn cores(cores: f64) -> String {
    let text = number(cores);
    let unit = if text == "1" { "core" } else { "cores" };
    format!("{text} {unit}")
}

fn cpus(cores: f64) -> String {
    let text = number(cores);
    let unit = if text == "1" { "CPU" } else { "CPUs" };
    format!("{text} {unit}")
}

/// A name as it may be shown anywhere: bounded, and nothing in it bends a line.
pub fn printable(name: &str) -> String {
    let clean = name
        .chars()
        .map(|c| if bends_output(c) { '\u{fffd}' } else { c });
    let mut text: String = clean.take(MAX_NAME_CHARS).collect();
    if name.chars().nth(MAX_NAME_CHARS).is_some() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests;

//! The sentences and numbers of a verdict. Names in them come from processes and cgroups:
//! what bends a terminal's or a page's line is taken out and lengths bounded; escaping is the output's part.

use crate::{
    event::{Limiter, MemoryLimit, Particulars},
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
    /// Who consumed what was waited for; empty where it is the victim itself, or not known.
    pub culprit: String,
    /// What the cause usually takes of this operation, in nanoseconds, where known.
    pub usual_ns: Option<u64>,
}

impl Evidence {
    /// For `cpu_throttle`: the cgroup whose quota took the most time.
    #[must_use]
    pub fn limiter(&self) -> Option<&Limiter> {
        self.particulars.limiter().map(AsRef::as_ref)
    }

    /// For `memory_reclaim` and `oom_kill`: the limit that was run into, where known.
    fn memory_limit(&self) -> Option<&MemoryLimit> {
        match &self.particulars {
            Particulars::Memory { limit, .. } => limit.as_deref(),
            _ => None,
        }
    }
}

/// One sentence that a person understands.
#[must_use]
pub fn summary(
    cause: Cause,
    share: f64,
    self_time_ns: u64,
    identity: &Identity,
    evidence: &Evidence,
) -> String {
    let who = who(identity);
    let what = match cause {
        Cause::CpuThrottle => throttled(&who, identity, evidence.limiter()),
        Cause::Runqueue if evidence.culprit.is_empty() => {
            format!("{who} was ready to run and waited for a CPU")
        }
        Cause::Runqueue => format!(
            "{who} was ready to run and waited for a CPU, which {} had",
            printable(&evidence.culprit)
        ),
        Cause::Steal => format!("the hypervisor took the CPU from {who}"),
        Cause::KvmExit => format!("the virtual CPUs of {who} were out of guest mode"),
        Cause::MemoryReclaim => format!(
            "{who} had to free memory before it got any{}",
            below(evidence.memory_limit())
        ),
        Cause::OomKill => format!(
            "the kernel killed a process of {who} for lack of memory{}",
            below(evidence.memory_limit())
        ),
        Cause::BlockThrottle => format!("the I/O limit held back requests of {who}"),
        Cause::BlockQueue => format!("disk requests of {who} waited in the scheduler's queue"),
        Cause::BlockDevice => format!("the disk took unusually long for requests of {who}"),
        Cause::TcpConnect => format!("{who} waited for a TCP connection to be established"),
        Cause::TcpRtt => format!("the round trip of a connection of {who} was longer than usual"),
        Cause::TcpRetransmit => format!("{who} waited for lost TCP segments to be sent again"),
        Cause::NetDrop => format!("packets of {who} were dropped"),
        Cause::Virtqueue => format!("a queue of a virtio device that {who} uses was stuck"),
        Cause::Conntrack => format!("the connection tracking table had no room for {who}"),
        Cause::SeccompDenied => format!("a seccomp filter refused a system call of {who}"),
        Cause::LockWait => format!("{who} waited for a lock"),
        Cause::Sleep => format!("{who} slept because it asked to"),
        Cause::SocketWait => format!("{who} waited for a peer"),
        Cause::OnCpu => format!("{who} was running"),
        Cause::Downstream => format!("{who} waited for a request it made"),
        Cause::Unexplained => format!("no sensor saw what {who} did"),
    };
    format!(
        "{:.0} % of {} self time: {what}",
        share * 100.0,
        duration(self_time_ns)
    )
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

fn throttled(who: &str, identity: &Identity, limiter: Option<&Limiter>) -> String {
    let Some(limiter) = limiter else {
        return format!("{who} was held back by its CPU quota or that of a group it is in");
    };
    let whose = if !limiter.is_ancestor {
        "its own CPU quota".to_owned()
    } else if is_of_pod(&identity.workload, limiter) {
        "the CPU quota of its pod".to_owned()
    } else {
        format!(
            "the CPU quota of the enclosing cgroup {}",
            printable(&limiter.cgroup_path)
        )
    };
    format!(
        "{who} was held back by {whose} (limit {})",
        cpus(limiter.cores)
    )
}

/// Whose memory limit it was.
fn below(limit: Option<&MemoryLimit>) -> String {
    limit.map_or_else(String::new, |limit| {
        let whose = if limit.is_ancestor {
            format!("of the enclosing cgroup {}", printable(&limit.cgroup_path))
        } else {
            "of its own".to_owned()
        };
        format!(", below a limit {whose} ({})", mebibytes(limit.bytes))
    })
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
fn cpus(cores: f64) -> String {
    let text = format!("{cores:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
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

//! The sentences and numbers of a verdict. Names in them come from processes and cgroups:
//! what bends a terminal's or a page's line is taken out and lengths bounded; escaping is the output's part.

use crate::{
    event::{Limiter, Particulars},
    process::Identity,
    stack::report::bends_output,
    verdict::Split,
    vocabulary::Cause,
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
    let who = printable(&identity.workload.display_name());
    let who = if who.is_empty() {
        printable(&identity.comm)
    } else {
        who
    };
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
        Cause::MemoryReclaim => format!("{who} had to free memory before it got any"),
        Cause::OomKill => format!("the kernel killed a process of {who} for lack of memory"),
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
    format!("{who} was held back by {whose} ({})", limit(limiter.cores))
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

/// One sentence: what to do.
#[must_use]
pub fn remedy(cause: Cause, identity: &Identity, evidence: &Evidence) -> String {
    let sentence = match cause {
        Cause::CpuThrottle => {
            return raise_quota(&identity.workload, evidence.limiter());
        }
        Cause::Runqueue => {
            "Give the workload a larger CPU weight or CPUs of its own, or move its busiest \
             neighbours to another node."
        }
        Cause::Steal => {
            "Ask for dedicated or more CPUs below this machine, or move it to a less loaded host."
        }
        Cause::KvmExit => {
            "Look at the exit reasons and give the guest the device or CPU feature \
                           that avoids the most frequent one."
        }
        Cause::MemoryReclaim => {
            "Raise memory.high and memory.max of the workload, or make it use less memory."
        }
        Cause::OomKill => "Raise the memory limit of the workload, or make it use less memory.",
        Cause::BlockThrottle => "Raise io.max of the workload, or make it do less I/O.",
        Cause::BlockQueue => {
            "Move the busiest user of the disk elsewhere, or give this workload a larger I/O weight."
        }
        Cause::BlockDevice => "Check the health and the load of the device, or use a faster one.",
        Cause::TcpConnect => {
            "Check that the peer listens with a long enough backlog and that no \
                              firewall drops its packets."
        }
        Cause::TcpRtt => "Look for a queue on the path: a rate limit or a saturated link.",
        Cause::TcpRetransmit => "Look for the device on the path that loses packets.",
        Cause::NetDrop => {
            "Look at the drop reason and the device in the metrics of dropped packets."
        }
        Cause::Virtqueue => {
            "Check the load of the back end of that virtio device on the host below."
        }
        Cause::Conntrack => "Raise net.netfilter.nf_conntrack_max or shorten its time-outs.",
        Cause::SeccompDenied => {
            "Allow the system call in the seccomp profile, or make the program do without it."
        }
        Cause::LockWait => "Find the holder of the lock in a profile of the program.",
        Cause::Sleep => "Find the call that sleeps in the program.",
        Cause::SocketWait | Cause::Downstream => "Look at the peer.",
        Cause::OnCpu => "Profile the program.",
        Cause::Unexplained => "Turn more sensors on.",
    };
    sentence.to_owned()
}

/// Where a person sets the quota: in the pod's manifest, the unit's properties, or the file.
fn raise_quota(workload: &Workload, limiter: Option<&Limiter>) -> String {
    let Some(limiter) = limiter else {
        return "Raise the CPU limit of the workload or of the group it is in, or use fewer \
                threads at once."
            .to_owned();
    };
    let own_pod = !workload.pod_uid.is_empty() && !limiter.is_ancestor;
    let setting = if is_of_pod(workload, limiter) {
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
    };
    format!(
        "Raise {setting} ({}), or run fewer threads at once.",
        limit(limiter.cores)
    )
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
fn limit(cores: f64) -> String {
    let text = format!("{cores:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    let unit = if text == "1" { "CPU" } else { "CPUs" };
    format!("limit {text} {unit}")
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

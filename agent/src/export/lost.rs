//! What each cgroup lost to which cause since the agent started: the kernel side's counters
//! under the words of the vocabulary. `isostack-agent top` shows how fast they grow.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::view;
use crate::{
    sensor::{Counted, Measured, Value},
    vocabulary::Cause,
};

/// One cgroup's sums.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Lost {
    /// Milliseconds by cause, of all threads together.
    pub lost_ms: BTreeMap<Cause, f64>,
    /// How often, of causes that have no length.
    pub happened: BTreeMap<Cause, u64>,
}

/// By cgroup id.
#[must_use]
pub fn by_cgroup(counted: &Counted) -> HashMap<u64, Lost> {
    let mut all: HashMap<u64, Lost> = HashMap::new();
    for cpu in &counted.cpu {
        let lost = all.entry(cpu.cgroup_id).or_default();
        lost.time(Cause::CpuThrottle, cpu.throttled.sum_ns);
        lost.time(Cause::Runqueue, cpu.runqueue.sum_ns);
    }
    for measured in &counted.measured {
        let Some(cause) = cause(measured) else {
            continue;
        };
        let lost = all.entry(measured.key.cgroup_id).or_default();
        match &measured.value {
            Value::Count(n) => *lost.happened.entry(cause).or_default() += n,
            Value::Histogram(histogram) => lost.time(cause, histogram.sum_ns),
        }
    }
    all
}

impl Lost {
    fn time(&mut self, cause: Cause, ns: u64) {
        if ns > 0 {
            *self.lost_ms.entry(cause).or_default() += view::ms(ns);
        }
    }
}

/// The cause that a series counts; none for what is no loss.
fn cause(measured: &Measured) -> Option<Cause> {
    let label = |name: &str| {
        let at = measured.family.labels.iter().position(|l| *l == name)?;
        measured.labels.get(at).map(String::as_str)
    };
    Some(match measured.family.name {
        "isostack_memory_reclaim_seconds" => Cause::MemoryReclaim,
        "isostack_oom_kills" => Cause::OomKill,
        "isostack_tcp_connect_seconds" => Cause::TcpConnect,
        "isostack_tcp_retransmits" => Cause::TcpRetransmit,
        "isostack_net_drops" => Cause::NetDrop,
        "isostack_seccomp_denials" => Cause::SeccompDenied,
        "isostack_kvm_exit_seconds" => Cause::KvmExit,
        "isostack_block_seconds" => match label("phase")? {
            "throttle" => Cause::BlockThrottle,
            "queue" => Cause::BlockQueue,
            "device" => Cause::BlockDevice,
            _ => return None,
        },
        "isostack_wait_seconds" => match label("kind")? {
            "lock" => Cause::LockWait,
            "socket" => Cause::SocketWait,
            "sleep" => Cause::Sleep,
            _ => return None,
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use agent_common::series::SeriesKey;

    use super::*;
    use crate::sensor::{CgroupCpu, KernelHistogram, families};

    /// Each family that is a loss is known by its name and labels, whatever sensor has it.
    #[test]
    fn every_measured_loss_has_its_word() {
        let histogram = KernelHistogram {
            slots: vec![1],
            sum_ns: 2_000_000,
        };
        let mut words = Vec::new();
        for (_, family) in families() {
            for value in ["throttle", "queue", "device", "lock", "socket", "sleep"] {
                let key = SeriesKey {
                    cgroup_id: 7,
                    family: family.id,
                    a: 0,
                    b: 0,
                };
                let counted = Counted {
                    measured: vec![Measured {
                        key,
                        family,
                        labels: family.labels.iter().map(|_| value.to_owned()).collect(),
                        value: Value::Histogram(histogram.clone()),
                    }],
                    ..Counted::default()
                };
                let lost = by_cgroup(&counted).remove(&7).unwrap_or_default();
                words.extend(lost.lost_ms.into_keys());
            }
        }
        words.sort_unstable();
        words.dedup();
        let said: Vec<_> = words.iter().map(|w| w.as_str()).collect();
        assert_eq!(
            said,
            [
                "kvm_exit",
                "memory_reclaim",
                "oom_kill",
                "block_throttle",
                "block_queue",
                "block_device",
                "tcp_connect",
                "tcp_retransmit",
                "net_drop",
                "seccomp_denied",
                "lock_wait",
                "sleep",
                "socket_wait"
            ]
        );
    }

    #[test]
    fn the_cpu_sensors_sums_are_of_their_cgroup() {
        let sum_ns = |sum_ns| KernelHistogram {
            slots: Vec::new(),
            sum_ns,
        };
        let counted = Counted {
            cpu: vec![CgroupCpu {
                cgroup_id: 3,
                throttled: sum_ns(5_000_000),
                runqueue: sum_ns(0),
            }],
            ..Counted::default()
        };
        let lost = by_cgroup(&counted);
        assert_eq!(
            lost[&3].lost_ms,
            BTreeMap::from([(Cause::CpuThrottle, 5.0)])
        );
    }
}

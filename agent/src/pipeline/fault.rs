//! Where a mechanism lives: the fault of each cause, as the design's table has it.

use crate::{
    event::{Particulars, Slice},
    vocabulary::{Cause, Fault, Layer},
};

/// What the fault of some causes depends on, beside the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Circumstances {
    /// The layer of the process that suffered.
    pub emitter: Layer,
    /// Reclaim or OOM was bound by a memory cgroup's limit.
    pub memcg_bound: bool,
    /// The block device is a virtio or xen one.
    pub paravirtual_disk: bool,
    /// The virtual machine's exit was an EPT or NPT violation.
    pub nested_page_fault: bool,
    /// Where the flow leaves; `None` where unknown.
    pub slice: Option<Slice>,
    /// The thread's own cpuset kept it from a CPU that was idle.
    pub confined: bool,
    /// Only the system call is known in which the thread was blocked, not what kept it.
    pub is_only_a_call: bool,
    /// No disk had as much to do at that time as the thread is said to have waited for one.
    pub is_beyond_disks: bool,
}

impl Circumstances {
    /// Nothing known but the layer of the process.
    #[must_use]
    pub const fn of(emitter: Layer) -> Self {
        Self {
            emitter,
            memcg_bound: false,
            paravirtual_disk: false,
            nested_page_fault: false,
            slice: None,
            confined: false,
            is_only_a_call: false,
            is_beyond_disks: false,
        }
    }

    /// With what is known of the delay.
    #[must_use]
    pub fn with(self, particulars: &Particulars) -> Self {
        match particulars {
            Particulars::Memory { memcg, .. } => Self {
                memcg_bound: *memcg,
                ..self
            },
            Particulars::Disk(disk) => Self {
                paravirtual_disk: disk.paravirtual,
                ..self
            },
            Particulars::Flow(flow) => Self {
                slice: flow.slice,
                ..self
            },
            Particulars::VmExit(exit) => Self {
                nested_page_fault: exit.nested_page_fault,
                ..self
            },
            Particulars::None
            | Particulars::QuotaOf(_)
            | Particulars::Limiter(_)
            | Particulars::CpuWentTo(_)
            | Particulars::Neighbour(_) => self,
            Particulars::Confined(_) => Self {
                confined: true,
                ..self
            },
            Particulars::SystemCall(_) => Self {
                is_only_a_call: true,
                ..self
            },
        }
    }
}

/// The fault of a cause; `None` for `unexplained`, and for a flow whose device is unknown.
#[must_use]
pub fn fault_of(cause: Cause, at: &Circumstances) -> Option<Fault> {
    Some(match cause {
        Cause::CpuThrottle | Cause::BlockThrottle | Cause::Conntrack => Fault::L3,
        Cause::Runqueue if at.confined => Fault::L3,
        Cause::Runqueue | Cause::BlockQueue => Fault::Host,
        Cause::Steal => Fault::L1,
        Cause::KvmExit if at.nested_page_fault => Fault::L0,
        Cause::KvmExit => Fault::L1,
        Cause::MemoryReclaim | Cause::OomKill if at.memcg_bound => Fault::L3,
        Cause::MemoryReclaim | Cause::OomKill => Fault::Host,
        Cause::BlockDevice if at.paravirtual_disk => Fault::L2,
        Cause::BlockDevice => Fault::Host,
        Cause::TcpConnect | Cause::TcpRtt | Cause::TcpRetransmit | Cause::NetDrop => {
            match at.slice? {
                Slice::Container => Fault::L3,
                Slice::Paravirtual => Fault::L2,
                Slice::Vmm => Fault::L1,
                Slice::VirtualFunction => Fault::L0,
                Slice::Physical => Fault::Host,
                Slice::Beyond => Fault::Network,
            }
        }
        Cause::Virtqueue => Fault::L2,
        Cause::SeccompDenied if at.emitter == Layer::Container => Fault::L3,
        Cause::SeccompDenied => Fault::L4,
        Cause::LockWait | Cause::Sleep | Cause::OnCpu => Fault::App,
        Cause::SocketWait | Cause::Downstream => Fault::Downstream,
        Cause::Unexplained => return None,
    })
}

/// Every fault that a cause can have, whatever the circumstances.
#[must_use]
pub fn possible_faults(cause: Cause) -> Vec<Fault> {
    let mut possible = Vec::new();
    for emitter in Layer::ALL {
        for slice in Slice::ALL {
            for one_way in [false, true] {
                let at = Circumstances {
                    emitter: *emitter,
                    memcg_bound: one_way,
                    paravirtual_disk: one_way,
                    nested_page_fault: one_way,
                    slice: Some(*slice),
                    confined: one_way,
                    is_only_a_call: false,
                    is_beyond_disks: false,
                };
                possible.extend(fault_of(cause, &at));
            }
        }
    }
    possible.sort();
    possible.dedup();
    possible
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_design() {
        let host = Circumstances::of(Layer::HardwareAssist);
        let container = Circumstances::of(Layer::Container);
        let sandbox = Circumstances::of(Layer::Sandbox);
        let memcg = Circumstances {
            memcg_bound: true,
            ..container
        };
        let confined = Circumstances {
            confined: true,
            ..container
        };
        let virtio = Circumstances {
            paravirtual_disk: true,
            ..container
        };
        let npt = Circumstances {
            nested_page_fault: true,
            ..host
        };
        let through = |slice| Circumstances {
            slice: Some(slice),
            ..container
        };
        let table = [
            (Cause::CpuThrottle, host, Some(Fault::L3)),
            (Cause::CpuThrottle, container, Some(Fault::L3)),
            (Cause::Runqueue, container, Some(Fault::Host)),
            (Cause::Runqueue, confined, Some(Fault::L3)),
            (Cause::Steal, container, Some(Fault::L1)),
            (Cause::KvmExit, host, Some(Fault::L1)),
            (Cause::KvmExit, npt, Some(Fault::L0)),
            (Cause::MemoryReclaim, memcg, Some(Fault::L3)),
            (Cause::MemoryReclaim, container, Some(Fault::Host)),
            (Cause::OomKill, memcg, Some(Fault::L3)),
            (Cause::OomKill, host, Some(Fault::Host)),
            (Cause::BlockThrottle, container, Some(Fault::L3)),
            (Cause::BlockQueue, container, Some(Fault::Host)),
            (Cause::BlockDevice, virtio, Some(Fault::L2)),
            (Cause::BlockDevice, container, Some(Fault::Host)),
            (
                Cause::TcpConnect,
                through(Slice::Container),
                Some(Fault::L3),
            ),
            (Cause::TcpRtt, through(Slice::Paravirtual), Some(Fault::L2)),
            (Cause::TcpRetransmit, through(Slice::Vmm), Some(Fault::L1)),
            (
                Cause::NetDrop,
                through(Slice::VirtualFunction),
                Some(Fault::L0),
            ),
            (Cause::NetDrop, through(Slice::Physical), Some(Fault::Host)),
            (
                Cause::TcpRetransmit,
                through(Slice::Beyond),
                Some(Fault::Network),
            ),
            (Cause::TcpRtt, container, None),
            (Cause::Virtqueue, host, Some(Fault::L2)),
            (Cause::Conntrack, container, Some(Fault::L3)),
            (Cause::SeccompDenied, sandbox, Some(Fault::L4)),
            (Cause::SeccompDenied, container, Some(Fault::L3)),
            (Cause::SeccompDenied, host, Some(Fault::L4)),
            (Cause::LockWait, container, Some(Fault::App)),
            (Cause::Sleep, container, Some(Fault::App)),
            (Cause::SocketWait, container, Some(Fault::Downstream)),
            (Cause::OnCpu, container, Some(Fault::App)),
            (Cause::Downstream, container, Some(Fault::Downstream)),
            (Cause::Unexplained, container, None),
        ];
        for (cause, at, fault) in table {
            assert_eq!(fault_of(cause, &at), fault, "{cause} at {at:?}");
        }
        for cause in Cause::ALL {
            let mut faults: Vec<_> = table
                .iter()
                .filter(|(c, ..)| c == cause)
                .filter_map(|(_, _, fault)| *fault)
                .collect();
            assert!(
                table.iter().any(|(c, ..)| c == cause),
                "{cause} is not in the table"
            );
            faults.sort();
            assert!(
                faults.iter().all(|f| possible_faults(*cause).contains(f)),
                "{cause}: {faults:?}"
            );
        }
        let words = |cause| {
            let words = possible_faults(cause).into_iter().map(Fault::as_str);
            words.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(words(Cause::SeccompDenied), "L-3 L-4");
        assert_eq!(words(Cause::TcpRtt), "L-0 L-1 L-2 L-3 host network");
        assert_eq!(possible_faults(Cause::Unexplained), []);
    }
}

//! `net`: packets dropped, stuck transmit queues, full connection tracking, senders of UDP.

mod reason;
mod refusals;

use std::sync::Arc;

use agent_common::{
    consumption::KIND_CONSUMED,
    event::{
        Record,
        net::{KIND_DROP, KIND_DROP_WAIT, KIND_STUCK_WAIT, KIND_TX_TIMEOUT},
        sensor,
    },
    series::{SeriesKey, family},
};

use self::{reason::Reasons, refusals::Refusals};
use super::{
    DecodeError, Family, FamilyKind, Hook, Interpreter, Kernel, Meaning, Probe, Sensor,
    decode::{consumption, delay},
};
use crate::{
    event::{Event, Flow, Particulars, Resource},
    host::{
        conntrack::Conntrack,
        devices::{DeviceKind, Devices},
    },
    vocabulary::Cause,
};

/// The sensor.
pub struct Net;

const PROBES: &[Probe] = &[
    Probe::optional(
        &[Hook::raw_tp("net_drop", "kfree_skb")],
        "packet drops and their reasons",
    ),
    Probe::essential(&[Hook::raw_tp("net_tx_timeout", "net_dev_xmit_timeout")]),
    Probe::optional(
        &[
            Hook::raw_tp("net_sent", "sock_send_length"),
            Hook::fentry("net_send_function", "security_socket_sendmsg"),
        ],
        "who sends how much UDP",
    ),
];

const FAMILIES: &[Family] = &[
    Family {
        id: family::NET_DROPS,
        name: "isostack_net_drops",
        help: "Packets dropped, by the kernel's reason.",
        kind: FamilyKind::Counter,
        labels: &["device_kind", "reason"],
    },
    Family {
        id: family::NET_TX_TIMEOUTS,
        name: "isostack_net_tx_timeouts",
        help: "Times that a transmit queue was found stuck.",
        kind: FamilyKind::Counter,
        labels: &["device_kind"],
    },
    Family {
        id: family::NET_UDP_SENDS,
        name: "isostack_net_udp_sends",
        help: "Calls that sent UDP datagrams.",
        kind: FamilyKind::Counter,
        labels: &["device_kind"],
    },
];

impl Sensor for Net {
    fn id(&self) -> u32 {
        sensor::NET
    }

    fn name(&self) -> &'static str {
        "net"
    }

    fn probes(&self) -> &'static [Probe] {
        PROBES
    }

    fn constants(&self, kernel: &Kernel<'_>) -> Vec<(&'static str, u64)> {
        let normal = Reasons::read(kernel.types).normal();
        vec![
            ("DROPS_NORMAL_LOW", normal as u64),
            ("DROPS_NORMAL_HIGH", (normal >> 64) as u64),
            ("JIFFY_NS", jiffy_ns()),
            (
                "NETDEV_QUEUE_BYTES",
                kernel.types.size_of("netdev_queue").unwrap_or(0).into(),
            ),
        ]
    }

    fn interpreter(&self, kernel: &Kernel<'_>) -> Box<dyn Interpreter> {
        Box::new(NetInterpreter {
            devices: kernel.devices.clone(),
            reasons: Reasons::read(kernel.types),
            conntrack: Conntrack::new(&kernel.roots.procfs),
            no_room: Refusals::default(),
        })
    }

    fn families(&self) -> &'static [Family] {
        FAMILIES
    }
}

/// Nanoseconds of a tick of the kernel's clock (`TICK_NSEC`): as finely as the coarse clock goes.
fn jiffy_ns() -> u64 {
    let tick = rustix::time::clock_getres(rustix::time::ClockId::MonotonicCoarse);
    u64::try_from(tick.tv_nsec).unwrap_or(0)
}

struct NetInterpreter {
    devices: Arc<Devices>,
    reasons: Reasons,
    conntrack: Conntrack,
    no_room: Refusals,
}

impl NetInterpreter {
    /// Whether connection tracking refused the packet. The table's counters say so at the moment
    /// of the drop; of the wait that follows, what was found then.
    fn had_no_room(&mut self, record: &Record) -> bool {
        if record.kind == KIND_DROP_WAIT {
            return self.no_room.began(record);
        }
        let failed = self.conntrack.failed(record.pid);
        if failed {
            self.no_room.note(record);
        }
        failed
    }
}

impl Interpreter for NetInterpreter {
    fn record(&mut self, record: &Record) -> Result<Meaning, DecodeError> {
        let device = self.devices.get(record.detail);
        let (cause, reason) = match record.kind {
            KIND_DROP | KIND_DROP_WAIT => {
                let reason = self.reasons.name(record.extra);
                let cause = if reason == reason::NETFILTER && self.had_no_room(record) {
                    Cause::Conntrack
                } else {
                    Cause::NetDrop
                };
                (cause, reason)
            }
            KIND_TX_TIMEOUT | KIND_STUCK_WAIT => match device.kind {
                DeviceKind::Virtio | DeviceKind::Paravirtual => (Cause::Virtqueue, String::new()),
                _ => (Cause::NetDrop, Flow::TX_TIMEOUT.to_owned()),
            },
            kind => {
                return Err(DecodeError::Unknown {
                    sensor: record.sensor,
                    kind,
                });
            }
        };
        let flow = Flow {
            slice: device.kind.slice(),
            device: device.name.clone(),
            reason,
        };
        Ok(Meaning {
            cause,
            particulars: Particulars::Flow(Arc::new(flow)),
        })
    }

    fn event(&mut self, record: &Record) -> Result<Event, DecodeError> {
        if record.kind != KIND_CONSUMED {
            return delay(self, record);
        }
        let kind = self.devices.get(record.detail).kind;
        let resource = match kind {
            DeviceKind::Loopback => Resource::Loopback,
            _ => Resource::Network(kind.slice()),
        };
        Ok(consumption(record, resource, record.cgroup_id))
    }

    fn labels(&mut self, key: &SeriesKey) -> Vec<String> {
        let kind = self.devices.get(key.b).kind.as_str().to_owned();
        if key.family == family::NET_DROPS {
            vec![kind, self.reasons.name(key.a)]
        } else {
            vec![kind]
        }
    }
}

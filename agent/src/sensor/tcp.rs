//! `tcp`: round trips, connection set-ups, retransmissions and resets by the process that
//! uses the connection.

use std::sync::Arc;

use agent_common::{
    event::{
        Record, sensor,
        tcp::{KIND_ASK, KIND_CONNECT, KIND_RETRANSMIT, KIND_RTT, KIND_TURN},
    },
    series::{SeriesKey, family},
};

use super::{
    DecodeError, Family, FamilyKind, Hook, Interpreter, Kernel, Meaning, Probe, Sensor, decode,
};
use crate::{
    event::{Ask, Event, Flow, Particulars, Turn},
    host::devices::Devices,
    time::MonoNs,
    vocabulary::Cause,
};

/// The sensor.
pub struct Tcp;

const PROBES: &[Probe] = &[
    Probe::essential(&[Hook::raw_tp("tcp_state", "inet_sock_set_state")]),
    Probe::essential(&[Hook::raw_tp("tcp_read", "tcp_rcv_space_adjust")]),
    Probe::essential(&[Hook::raw_tp("tcp_retransmit", "tcp_retransmit_skb")]),
    Probe::optional(
        &[
            Hook::raw_tp("tcp_send", "tcp_sendmsg_locked"),
            Hook::fentry("tcp_send_function", "tcp_sendmsg_locked"),
            Hook {
                loses: "round trips of connections that are only written to, until they are closed",
                ..Hook::raw_tp("tcp_sent", "sock_send_length")
            },
        ],
        "who owns a connection that was handed over and is only written to, and which thread answered a request",
    ),
    Probe::optional(
        &[Hook::raw_tp("tcp_reset_received", "tcp_receive_reset")],
        "resets received",
    ),
    Probe::optional(
        &[Hook::raw_tp("tcp_reset_sent", "tcp_send_reset")],
        "resets sent",
    ),
];

const FAMILIES: &[Family] = &[
    Family {
        id: family::TCP_RTT,
        name: "isostack_tcp_rtt_seconds",
        help: "Smoothed round trips, as TCP itself measures them, each time that they were looked at.",
        kind: FamilyKind::Histogram,
        labels: SLICE,
    },
    Family {
        id: family::TCP_CONNECT,
        name: "isostack_tcp_connect_seconds",
        help: "From a connection's SYN until it was established.",
        kind: FamilyKind::Histogram,
        labels: SLICE,
    },
    Family {
        id: family::TCP_RETRANSMITS,
        name: "isostack_tcp_retransmits",
        help: "Segments sent again.",
        kind: FamilyKind::Counter,
        labels: SLICE,
    },
    Family {
        id: family::TCP_RESETS,
        name: "isostack_tcp_resets",
        help: "Resets sent and received.",
        kind: FamilyKind::Counter,
        labels: SLICE,
    },
    Family {
        id: family::TCP_CONNECT_FAILURES,
        name: "isostack_tcp_connect_failures",
        help: "Connections that were refused, timed out or were given up before they were established.",
        kind: FamilyKind::Counter,
        labels: SLICE,
    },
    Family {
        id: family::TCP_WINDOW_LIMITED,
        name: "isostack_tcp_window_limited_seconds",
        help: "Time in which there was data to send, but no room in the other end's window.",
        kind: FamilyKind::Histogram,
        labels: SLICE,
    },
    Family {
        id: family::TCP_ZERO_WINDOWS,
        name: "isostack_tcp_zero_windows",
        help: "Times that a process read and the other end could send nothing until then, at most one a tick of the kernel's clock.",
        kind: FamilyKind::Counter,
        labels: SLICE,
    },
    Family {
        id: family::TCP_LISTEN_DROPS,
        name: "isostack_tcp_listen_drops",
        help: "Connections that a listening socket did not take, mostly as its queue was full.",
        kind: FamilyKind::Counter,
        labels: &[],
    },
];

const SLICE: &[&str] = &["slice"];

impl Sensor for Tcp {
    fn id(&self) -> u32 {
        sensor::TCP
    }

    fn name(&self) -> &'static str {
        "tcp"
    }

    fn probes(&self) -> &'static [Probe] {
        PROBES
    }

    fn interpreter(&self, kernel: &Kernel<'_>) -> Box<dyn Interpreter> {
        Box::new(TcpInterpreter {
            devices: kernel.devices.clone(),
        })
    }

    fn families(&self) -> &'static [Family] {
        FAMILIES
    }
}

/// The reason shown for a connection that was refused, timed out or given up.
const NOT_ESTABLISHED: &str = "not established";

struct TcpInterpreter {
    devices: Arc<Devices>,
}

impl Interpreter for TcpInterpreter {
    fn event(&mut self, record: &Record) -> Result<Event, DecodeError> {
        if !matches!(record.kind, KIND_TURN | KIND_ASK) {
            return decode::delay(self, record);
        }
        if record.pid == 0 || record.tid == 0 {
            return Err(DecodeError::Impossible("process id 0"));
        }
        if record.kind == KIND_ASK {
            return Ok(Event::Ask(Ask {
                process: decode::process_of(record),
                tid: record.tid,
                request: MonoNs(record.detail),
                start: MonoNs(record.start_ns),
                end: MonoNs(record.end_ns),
            }));
        }
        Ok(Event::Turn(Turn {
            process: decode::process_of(record),
            tid: record.tid,
            read: MonoNs(record.start_ns),
            written: MonoNs(record.end_ns),
            is_whole: record.extra == 0,
        }))
    }

    fn record(&mut self, record: &Record) -> Result<Meaning, DecodeError> {
        if record.pid == 0 || record.tid == 0 {
            return Err(DecodeError::Impossible("process id 0"));
        }
        let cause = match record.kind {
            KIND_CONNECT => Cause::TcpConnect,
            KIND_RETRANSMIT => Cause::TcpRetransmit,
            KIND_RTT => Cause::TcpRtt,
            kind => {
                return Err(DecodeError::Unknown {
                    sensor: record.sensor,
                    kind,
                });
            }
        };
        let device = self.devices.get(record.detail);
        let flow = Flow {
            slice: device.kind.slice(),
            device: device.name.clone(),
            reason: if record.kind == KIND_CONNECT && record.extra != 0 {
                NOT_ESTABLISHED.to_owned()
            } else {
                String::new()
            },
        };
        Ok(Meaning {
            cause,
            particulars: Particulars::Flow(Arc::new(flow)),
        })
    }

    fn labels(&mut self, key: &SeriesKey) -> Vec<String> {
        if key.family == family::TCP_LISTEN_DROPS {
            return Vec::new();
        }
        vec![self.devices.get(key.b).kind.slice_word().to_owned()]
    }
}

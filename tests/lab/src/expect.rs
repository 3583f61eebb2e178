//! The right answers, by the table of causes in the design.

use crate::{
    plan::{Fault, Kind},
    service::Service,
    stage::NEIGHBOUR,
};

/// What may be answered to a fault.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Whose spans suffer: one of them has to be named.
    pub services: Vec<Service>,
    /// Fault and cause, the best first. More than one where the mechanism has two faces
    /// (a lost segment is a drop and a retransmission).
    pub answers: Vec<(&'static str, &'static str)>,
    /// Who may be named as the culprit; empty text for nobody.
    pub culprits: Vec<&'static str>,
}

/// The right answers to a fault; `paravirtual` says of the disk that it is a virtio device.
#[must_use]
pub fn expected(fault: &Fault, paravirtual: bool) -> Expected {
    use Service::{Front, Orders, Rates, Store};
    let caller = |victim| match victim {
        Front | Orders => Front,
        Store => Orders,
        Rates => Store,
    };
    let device = if paravirtual {
        ("L-2", "block_device")
    } else {
        ("host", "block_device")
    };
    let either_end = vec![caller(fault.victim), fault.victim];
    let disk = vec![("host", "block_queue"), device];
    // What meets a lost or late segment of a new connection waits for the connection.
    let network = vec![
        ("L-3", "tcp_retransmit"),
        ("L-3", "net_drop"),
        ("L-3", "tcp_rtt"),
        ("L-3", "tcp_connect"),
    ];
    let (services, answers, culprits) = match fault.kind {
        Kind::OwnQuota | Kind::ClientQuota => {
            (vec![fault.victim], vec![("L-3", "cpu_throttle")], vec![""])
        }
        Kind::ParentQuota => (
            vec![Front, Orders],
            vec![("L-3", "cpu_throttle")],
            // The quota is shared: the other service in it may well be who used it up.
            vec!["", "front", "orders"],
        ),
        Kind::CpuNeighbour => (
            vec![fault.victim],
            vec![("host", "runqueue")],
            vec![NEIGHBOUR],
        ),
        Kind::RateLimit | Kind::Loss => (either_end, network, vec![""]),
        Kind::Refused | Kind::ListenOverflow => (
            either_end,
            vec![
                ("L-3", "tcp_connect"),
                ("L-3", "net_drop"),
                ("L-3", "tcp_retransmit"),
            ],
            vec![""],
        ),
        // Its connections wait for their SYN to be sent again; who refuses it is the table.
        Kind::SnatExhausted => (vec![Orders], vec![("L-3", "conntrack")], vec![""]),
        Kind::UdpFlood => (either_end, network, vec![NEIGHBOUR]),
        Kind::IoLimit => (vec![Store], vec![("L-3", "block_throttle")], vec![""]),
        Kind::DiskNeighbour | Kind::Writeback | Kind::FsyncStorm => {
            (vec![Store], disk, vec![NEIGHBOUR])
        }
        // A loop device: nobody's paravirtual one.
        Kind::SlowDevice => (vec![Store], vec![("host", "block_device")], vec![""]),
        Kind::MemoryLimit => (vec![Store], vec![("L-3", "memory_reclaim")], vec![""]),
        Kind::MemoryNeighbour => (
            vec![Store],
            vec![("L-3", "memory_reclaim")],
            vec![NEIGHBOUR],
        ),
        Kind::OomKill => (vec![Store], vec![("L-3", "oom_kill")], vec![""]),
        Kind::SeccompSandbox | Kind::SeccompContainer => (
            vec![fault.victim],
            vec![(fault.victim.filter_layer(), "seccomp_denied")],
            vec![""],
        ),
        Kind::LockConvoy => (vec![fault.victim], vec![("app", "lock_wait")], vec![""]),
        // The requests of a collecting JVM wait at its safepoint while its own thread runs.
        Kind::GcPause => (
            vec![Front],
            vec![("app", "on_cpu"), ("app", "lock_wait")],
            vec![""],
        ),
        Kind::SlowCode => (vec![fault.victim], vec![("app", "on_cpu")], vec![""]),
        Kind::SlowStore => (vec![Store], vec![("app", "sleep")], vec![""]),
        Kind::SlowPeer => (
            vec![Orders],
            vec![("downstream", "socket_wait"), ("downstream", "downstream")],
            vec![""],
        ),
    };
    Expected {
        services,
        answers,
        culprits,
    }
}

/// Whether the fault makes somebody wait for a CPU, for the disk or for a lock: what the kernel's
/// books say of such waits is then the fault's own.
#[must_use]
pub const fn is_about(kind: Kind, cause: &str) -> bool {
    match cause.as_bytes() {
        b"runqueue" | b"steal" => matches!(kind, Kind::CpuNeighbour),
        b"lock_wait" => matches!(kind, Kind::LockConvoy | Kind::GcPause),
        _ => matches!(
            kind,
            Kind::DiskNeighbour
                | Kind::Writeback
                | Kind::FsyncStorm
                | Kind::IoLimit
                | Kind::SlowDevice
        ),
    }
}

/// Whether the fault is the application's own: nobody else may be blamed for it.
#[must_use]
pub const fn is_own(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::LockConvoy | Kind::GcPause | Kind::SlowCode | Kind::SlowStore | Kind::SlowPeer
    )
}

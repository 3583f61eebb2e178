//! The closed lists of words that leave the agent: layers, faults, causes, confidences.
//!
//! Users, dashboards and tests rely on every string here; none is ever renamed.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Declares an enum whose variants have one stable word each.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vmeta])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// Every member, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The stable word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// An isolation layer: what a process runs inside.
    Layer {
        /// Hardware assist; a plain process on bare metal.
        HardwareAssist = "L-0",
        /// Full virtualisation.
        FullVirtualisation = "L-1",
        /// Paravirtualisation.
        Paravirtualisation = "L-2",
        /// Container.
        Container = "L-3",
        /// Sandbox.
        Sandbox = "L-4",
    }
}

words! {
    /// Where the mechanism that cost the time lives.
    Fault {
        /// Hardware assist.
        L0 = "L-0",
        /// Full virtualisation.
        L1 = "L-1",
        /// Paravirtualisation.
        L2 = "L-2",
        /// Container.
        L3 = "L-3",
        /// Sandbox.
        L4 = "L-4",
        /// The host kernel or its hardware.
        Host = "host",
        /// Beyond this host.
        Network = "network",
        /// On-CPU or waiting on itself.
        App = "app",
        /// A child span.
        Downstream = "downstream",
    }
}

impl Fault {
    /// The layer of that name, for a fault in one.
    #[must_use]
    pub fn layer(self) -> Option<Layer> {
        let of_that_name = |layer: &&Layer| layer.as_str() == self.as_str();
        Layer::ALL.iter().find(of_that_name).copied()
    }
}

words! {
    /// The mechanism that cost the time.
    Cause {
        /// Runnable but held back by a CFS quota.
        CpuThrottle = "cpu_throttle",
        /// Runnable, waiting for a CPU, throttle time subtracted.
        Runqueue = "runqueue",
        /// The hypervisor below took the CPU.
        Steal = "steal",
        /// A vCPU thread out of guest mode.
        KvmExit = "kvm_exit",
        /// Direct reclaim, memory.high throttling.
        MemoryReclaim = "memory_reclaim",
        /// A victim was killed.
        OomKill = "oom_kill",
        /// Bio held by io.max or blkio.throttle.
        BlockThrottle = "block_throttle",
        /// Request waiting in the scheduler queue.
        BlockQueue = "block_queue",
        /// Device service time.
        BlockDevice = "block_device",
        /// SYN to ESTABLISHED.
        TcpConnect = "tcp_connect",
        /// Smoothed RTT above the flow's baseline.
        TcpRtt = "tcp_rtt",
        /// RTO or fast retransmit wait.
        TcpRetransmit = "tcp_retransmit",
        /// Packet dropped.
        NetDrop = "net_drop",
        /// Transmit timeout, full or stuck queue on a virtio device.
        Virtqueue = "virtqueue",
        /// Insert failures, table full.
        Conntrack = "conntrack",
        /// A system call refused by a filter.
        SeccompDenied = "seccomp_denied",
        /// Blocked in futex.
        LockWait = "lock_wait",
        /// Blocked in nanosleep and its kin.
        Sleep = "sleep",
        /// Blocked reading or polling a socket.
        SocketWait = "socket_wait",
        /// Running.
        OnCpu = "on_cpu",
        /// Child spans.
        Downstream = "downstream",
        /// The rest.
        Unexplained = "unexplained",
    }
}

words! {
    /// How a span was joined to kernel events, strongest first.
    Confidence {
        /// The span's own thread.
        Thread = "thread",
        /// The thread that read the request and wrote the answer.
        ThreadInferred = "thread_inferred",
        /// The span's socket.
        Socket = "socket",
        /// The process that sent the span.
        Process = "process",
        /// The container that sent the span.
        Container = "container",
        /// Nothing but the host; never blames a workload.
        Host = "host",
    }
}

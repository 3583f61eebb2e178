//! Why the kernel dropped a packet, by the names of its `enum skb_drop_reason`; their numbers
//! differ from kernel to kernel.
//!
//! <https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/include/net/dropreason-core.h?h=v6.18>

use std::collections::HashMap;

use crate::host::btf::KernelTypes;

/// What a rule of netfilter, or connection tracking, refused.
pub const NETFILTER: &str = "NETFILTER_DROP";

/// Reasons that are no loss of anything that somebody waits for.
const NORMAL: &[&str] = &[
    // Not a drop by definition.
    "NOT_DROPPED_YET",
    "CONSUMED",
    // The end of a packet that has done its work.
    "TCP_RESET",
    "TCP_OFOMERGE",
    "TCP_FASTOPEN",
    "TCP_OLD_ACK",
    // The other end sent it twice; the first one arrived.
    "TCP_OLD_DATA",
    "TCP_OLD_SEQUENCE",
    "DUP_FRAG",
    // The socket is being closed, and what was in its queue with it.
    "SOCKET_CLOSE",
    "TCP_CLOSE",
    "QUEUE_PURGE",
    // Between two processes, on no network.
    "UNIX_DISCONNECT",
    "UNIX_SKIP_OOB",
    // A program asked for it: a socket filter, a capture that does not keep up (its copy).
    "SOCKET_FILTER",
    "PACKET_SOCK_ERROR",
    "TAP_FILTER",
    "TAP_TXFILTER",
    // Frames that were never meant for this host, or for a protocol that it does not speak:
    // what any shared or bridged network floods.
    "OTHERHOST",
    "UNHANDLED_PROTO",
    "IPV6DISABLED",
    "LOCAL_MAC",
    "UNICAST_IN_L2_MULTICAST",
    "MAC_IEEE_MAC_CONTROL",
];

/// The kernel's names by number.
pub struct Reasons {
    names: HashMap<u32, String>,
    subsystems: HashMap<u32, String>,
}

impl Reasons {
    /// Those of the running kernel; none before 5.17.
    pub fn read(types: &KernelTypes) -> Self {
        let short = |(name, value): (String, u32)| (value, short(&name).to_owned());
        let of = |name| types.enumerators(name).into_iter().map(short).collect();
        Self {
            names: of("skb_drop_reason"),
            subsystems: of("skb_drop_reason_subsys"),
        }
    }

    /// The name without its prefix, e.g. `NO_SOCKET`.
    pub fn name(&self, reason: u32) -> String {
        if let Some(name) = self.names.get(&reason) {
            return name.clone();
        }
        // Other subsystems number theirs from 0, with their own number above.
        match self.subsystems.get(&(reason >> 16)) {
            Some(subsystem) if reason >> 16 != 0 => subsystem.clone(),
            _ => "UNKNOWN".to_owned(),
        }
    }

    /// A bit for each reason below 128 that is normal life.
    pub fn normal(&self) -> u128 {
        self.names
            .iter()
            .filter(|(value, name)| **value < 128 && NORMAL.contains(&name.as_str()))
            .fold(0, |mask, (value, _)| mask | 1 << *value)
    }
}

fn short(name: &str) -> &str {
    name.strip_prefix("SKB_DROP_REASON_")
        .or_else(|| name.strip_prefix("SKB_"))
        .unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_kernels_own_names_are_found_and_normal_life_told_apart() {
        let types = KernelTypes::read(Path::new("/sys")).expect("the test machine has BTF");
        let reasons = Reasons::read(&types);
        let number = |wanted: &str| {
            let mut all = reasons.names.iter();
            *all.find(|(_, name)| *name == wanted)
                .unwrap_or_else(|| panic!("no {wanted}"))
                .0
        };
        assert_eq!(reasons.name(number("NO_SOCKET")), "NO_SOCKET");
        assert_eq!(reasons.name(u32::MAX), "UNKNOWN");
        let is_normal = |name| reasons.normal() >> number(name) & 1 != 0;
        for name in ["NOT_DROPPED_YET", "SOCKET_FILTER", "OTHERHOST"] {
            assert!(is_normal(name), "{name}");
        }
        for name in [NETFILTER, "NO_SOCKET", "SOCKET_RCVBUFF", "QDISC_DROP"] {
            assert!(!is_normal(name), "{name}");
        }
    }
}

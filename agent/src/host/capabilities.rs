//! What this process may do, and what it lacks.

use caps::{CapSet, Capability};

/// One capability and what the agent needs it for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// The capability.
    pub capability: Capability,
    /// What for, as the end of "needed to ...".
    pub purpose: &'static str,
    /// No sensor can be loaded without it.
    pub essential: bool,
}

/// Everything the agent can make use of.
pub const NEEDS: &[Need] = &[
    Need {
        capability: Capability::CAP_BPF,
        purpose: "load eBPF programs",
        essential: true,
    },
    Need {
        capability: Capability::CAP_PERFMON,
        purpose: "attach them to the kernel's tracepoints",
        essential: true,
    },
    Need {
        capability: Capability::CAP_SYS_PTRACE,
        purpose: "see which process belongs to which container and socket",
        essential: false,
    },
    Need {
        capability: Capability::CAP_DAC_READ_SEARCH,
        purpose: "read the files of other users' processes",
        essential: false,
    },
];

/// The needs that this process's effective capabilities do not meet. `CAP_SYS_ADMIN` stands
/// in for the first two, as in the kernel. If the process cannot even be asked: none, the
/// kernel will say it itself.
#[must_use]
pub fn missing() -> Vec<Need> {
    missing_from(|capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(true))
}

fn missing_from(has: impl Fn(Capability) -> bool) -> Vec<Need> {
    NEEDS
        .iter()
        .copied()
        .filter(|need| !(has(need.capability) || need.essential && has(Capability::CAP_SYS_ADMIN)))
        .collect()
}

/// One sentence naming `needs`, for an error or a status; empty for none.
#[must_use]
pub fn sentence(needs: &[Need]) -> String {
    needs
        .iter()
        .map(|need| format!("{} is needed to {}", need.capability, need.purpose))
        .collect::<Vec<_>>()
        .join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_administrator_may_load() {
        let lacks = missing_from(|c| c == Capability::CAP_SYS_ADMIN);
        assert!(lacks.iter().all(|need| !need.essential), "{lacks:?}");
        assert_eq!(lacks.len(), 2);
    }

    #[test]
    fn without_any_every_need_is_named() {
        let text = sentence(&missing_from(|_| false));
        for need in NEEDS {
            assert!(text.contains(&need.capability.to_string()), "{text}");
        }
    }
}

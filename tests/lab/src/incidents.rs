//! The reference incidents, each as faults in certain places, as far as they can be made here.

use crate::{
    plan::Kind::{self, OwnQuota, SeccompSandbox, UdpFlood, Writeback},
    service::Service,
};

/// A reference incident.
#[derive(Clone, Copy, Debug)]
pub struct Incident {
    /// What `--kind` calls it.
    pub name: &'static str,
    /// What the knowledge calls it (`isostack-agent layers`, `localisation.toml`).
    pub id: &'static str,
    /// What it is made of.
    pub faults: &'static [(Kind, Service)],
    /// Clients at once, where that matters.
    pub clients: Option<usize>,
}

/// In the order of the knowledge.
pub const INCIDENTS: [Incident; 3] = [
    // A quota too small, and a sandbox that refuses and makes the caller try again. (The full
    // virtio queue behind it takes a guest: agent/tests/net_sensor/incident.rs.)
    Incident {
        name: "incident_1",
        id: "throttle-and-virtio",
        faults: &[
            (OwnQuota, Service::Store),
            (SeccompSandbox, Service::Orders),
        ],
        clients: None,
    },
    // A neighbour's datagrams fill the queue of the victim's device: round trips grow, and
    // segments are lost until a timer sends them again.
    Incident {
        name: "incident_2",
        id: "rtt-storm",
        faults: &[(UdpFlood, Service::Store)],
        clients: None,
    },
    // A collector of logs that writes without limit to the disk of everybody.
    Incident {
        name: "incident_3",
        id: "disk-and-log-storm",
        faults: &[(Writeback, Service::Store)],
        // Of two, one would wait for the other's lock on the database, not for the disk.
        clients: Some(1),
    },
];

impl Incident {
    /// By either name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        let mut all = INCIDENTS.iter();
        all.find(|incident| [incident.name, incident.id].contains(&name))
    }
}

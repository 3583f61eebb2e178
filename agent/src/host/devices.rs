//! Network devices of every network namespace: their kind, and which slice of the path it is.
//!
//! The kernel side describes each device that it meets, so that no namespace has to be
//! entered; what bus a hardware device is on is looked up in `/sys/bus`, which all
//! namespaces share.

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use agent_common::device::DeviceFacts;
use parking_lot::Mutex;

use crate::event::Slice;

/// Devices remembered.
const MAX_KNOWN: usize = 4096;
/// How long: a device may be renamed, and its index given to another.
const LIFETIME: Duration = Duration::from_secs(60);
/// Devices stacked on each other (a VLAN on a bond on a card): more is a loop.
const MAX_STACKED: usize = 4;

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// `lo`.
    Loopback,
    /// One end of a pair.
    Veth,
    /// A software switch.
    Bridge,
    /// A further address of another device, given to a container.
    Macvlan,
    /// Likewise, with the same hardware address.
    Ipvlan,
    /// A tunnel: vxlan, geneve, gre, ipip, WireGuard.
    Tunnel,
    /// virtio-net.
    Virtio,
    /// Xen's or Hyper-V's network, or VMware's, or Google's.
    Paravirtual,
    /// tap or tun: a process is at the other end.
    Tap,
    /// Open vSwitch.
    OpenVswitch,
    /// A virtual function of a card.
    VirtualFunction,
    /// A card.
    Physical,
    /// Other software.
    Software,
    /// Not known.
    Unknown,
}

impl DeviceKind {
    /// Value of the label `device_kind`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Veth => "veth",
            Self::Bridge => "bridge",
            Self::Macvlan => "macvlan",
            Self::Ipvlan => "ipvlan",
            Self::Tunnel => "tunnel",
            Self::Virtio => "virtio",
            Self::Paravirtual => "paravirtual",
            Self::Tap => "tap",
            Self::OpenVswitch => "openvswitch",
            Self::VirtualFunction => "vf",
            Self::Physical => "physical",
            Self::Software => "software",
            Self::Unknown => "unknown",
        }
    }

    /// Where a flow is that leaves through it; `None` for loopback, which leaves nothing, and
    /// where it is not known.
    #[must_use]
    pub const fn slice(self) -> Option<Slice> {
        match self {
            Self::Veth | Self::Bridge | Self::Macvlan | Self::Ipvlan | Self::Tunnel => {
                Some(Slice::Container)
            }
            Self::Virtio | Self::Paravirtual => Some(Slice::Paravirtual),
            Self::Tap | Self::OpenVswitch => Some(Slice::Vmm),
            Self::VirtualFunction => Some(Slice::VirtualFunction),
            Self::Physical => Some(Slice::Physical),
            Self::Loopback | Self::Software | Self::Unknown => None,
        }
    }

    /// Value of the label `slice`.
    #[must_use]
    pub const fn slice_word(self) -> &'static str {
        match (self, self.slice()) {
            (_, Some(Slice::Container)) => "container",
            (_, Some(Slice::Paravirtual)) => "paravirtual",
            (_, Some(Slice::Vmm)) => "vmm",
            (_, Some(Slice::VirtualFunction)) => "vf",
            (_, Some(Slice::Physical)) => "physical",
            (_, Some(Slice::Beyond)) => "beyond",
            (Self::Loopback, None) => "loopback",
            (_, None) => "unknown",
        }
    }
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name in its own namespace; empty where not known.
    pub name: String,
    /// What it is.
    pub kind: DeviceKind,
}

/// What the kernel side knows of the device of an id.
pub type Describe = Box<dyn Fn(u64) -> Option<DeviceFacts> + Send + Sync>;

/// The devices by id (`agent_common::device::device_id`); thread-safe, bounded.
pub struct Devices {
    describe: Describe,
    sysfs: PathBuf,
    known: Mutex<HashMap<u64, (Instant, Arc<Device>)>>,
}

impl fmt::Debug for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Devices").finish_non_exhaustive()
    }
}

impl Devices {
    /// Asks `describe` what the kernel side saw, and `sysfs` for the rest.
    #[must_use]
    pub fn new(sysfs: &Path, describe: Describe) -> Self {
        Self {
            describe,
            sysfs: sysfs.to_owned(),
            known: Mutex::default(),
        }
    }

    /// For those who ask before any device was met.
    #[must_use]
    pub fn none(sysfs: &Path) -> Self {
        Self::new(sysfs, Box::new(|_| None))
    }

    /// The device of an id.
    #[must_use]
    pub fn get(&self, id: u64) -> Arc<Device> {
        let now = Instant::now();
        if let Some((since, device)) = self.known.lock().get(&id)
            && now.duration_since(*since) < LIFETIME
        {
            return device.clone();
        }
        let Some(facts) = (self.describe)(id) else {
            return Arc::new(Device {
                name: String::new(),
                kind: DeviceKind::Unknown,
            });
        };
        let device = Arc::new(Device {
            name: text(&facts.name),
            kind: self.kind(&facts),
        });
        let mut known = self.known.lock();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(id, (now, device.clone()));
        device
    }

    fn kind(&self, facts: &DeviceFacts) -> DeviceKind {
        if facts.hardware == u32::from(libc::ARPHRD_LOOPBACK) {
            return DeviceKind::Loopback;
        }
        let parent = text(&facts.parent);
        if !parent.is_empty() {
            return self.of_bus(&parent);
        }
        match text(&facts.kind).as_str() {
            // Those lie on another device; it is the one that matters.
            "vlan" | "bond" | "team" => self.below(&text(&facts.name), MAX_STACKED),
            kind => of_software(kind),
        }
    }

    /// Of a device with this bus device behind it.
    fn of_bus(&self, parent: &str) -> DeviceKind {
        let on = |bus: &str| {
            let path = self.sysfs.join("bus").join(bus).join("devices");
            path.join(parent).symlink_metadata().is_ok()
        };
        if parent.contains('/') || parent.starts_with('.') {
            return DeviceKind::Unknown; // no name that sysfs gives
        }
        if on("virtio") {
            return DeviceKind::Virtio;
        }
        if on("xen") || on("vmbus") {
            return DeviceKind::Paravirtual;
        }
        let pci = self.sysfs.join("bus/pci/devices").join(parent);
        if pci.join("physfn").symlink_metadata().is_ok() {
            return DeviceKind::VirtualFunction;
        }
        let driver = pci.join("driver").read_link().ok();
        let driver = driver.as_deref().and_then(Path::file_name);
        match driver.and_then(|name| name.to_str()) {
            // A guest does not see whose function it was given.
            Some("iavf" | "igbvf" | "ixgbevf" | "ena" | "mana" | "hinicvf") => {
                DeviceKind::VirtualFunction
            }
            Some("vmxnet3" | "gve") => DeviceKind::Paravirtual,
            _ => DeviceKind::Physical,
        }
    }

    /// Of the device that this one of the agent's own namespace lies on.
    fn below(&self, name: &str, depth: usize) -> DeviceKind {
        if name.is_empty() || name.contains('/') || name.starts_with('.') || depth == 0 {
            return DeviceKind::Software;
        }
        let directory = self.sysfs.join("class/net").join(name);
        let lower = directory.read_dir().ok().and_then(|entries| {
            entries
                .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
                .find_map(|name| Some(name.strip_prefix("lower_")?.to_owned()))
        });
        let Some(lower) = lower else {
            return DeviceKind::Software;
        };
        let device = self.sysfs.join("class/net").join(&lower).join("device");
        let parent = device.read_link().ok();
        match parent.as_deref().and_then(Path::file_name) {
            Some(parent) => self.of_bus(&parent.to_string_lossy()),
            None => self.below(&lower, depth - 1),
        }
    }
}

/// Of a software device, by what `ip link add type` calls it.
fn of_software(kind: &str) -> DeviceKind {
    match kind {
        "veth" | "netkit" => DeviceKind::Veth,
        "bridge" => DeviceKind::Bridge,
        "macvlan" | "macvtap" => DeviceKind::Macvlan,
        "ipvlan" | "ipvtap" => DeviceKind::Ipvlan,
        "tun" => DeviceKind::Tap,
        "openvswitch" => DeviceKind::OpenVswitch,
        "vxlan" | "geneve" | "gre" | "gretap" | "ip6gre" | "ip6gretap" | "erspan" | "ipip"
        | "sit" | "ip6tnl" | "wireguard" | "vti" | "xfrm" => DeviceKind::Tunnel,
        _ => DeviceKind::Software,
    }
}

/// Up to the terminating 0; the kernel's names are ASCII, but nothing relies on it.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests;

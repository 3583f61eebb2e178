//! Devices that say something about isolation: those of paravirtual buses, and PCI devices
//! that a hypervisor makes, that are parts of others, or that are given away.

use std::{fs::DirEntry, path::Path};

use serde::{Deserialize, Serialize};

use super::text;

/// A device on a bus and the driver bound to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    /// `virtio`, `xen`, `vmbus`, `vdpa`, `pci`.
    pub bus: String,
    /// Its name on the bus, e.g. `virtio2`.
    pub name: String,
    /// The driver, e.g. `virtio_net`; empty when none is bound.
    pub driver: String,
    /// The device's number on the virtio bus, e.g. `0x0001` for a network device.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// It is an SR-IOV virtual function of a device that is here too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub virtual_function: bool,
    /// SR-IOV virtual functions that it is split into.
    #[serde(skip_serializing_if = "is_zero")]
    pub functions: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form serde asks for")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// PCI drivers of devices that only a hypervisor makes.
pub const PARAVIRTUAL_PCI_DRIVERS: &[&str] = &["ena", "gvnic", "gve", "vmxnet3", "vmw_pvscsi"];
/// PCI drivers of nothing but virtual functions, and of devices given to a guest.
pub const FUNCTION_DRIVERS: &[&str] = &["iavf", "ixgbevf", "igbvf", "fm10k_vf", "cxgb4vf"];
/// Drivers that hand a device to user space or to a guest.
pub const HANDED_OVER: &[&str] = &["vfio-pci", "mlx5_vfio_pci", "pciback"];
/// Devices kept.
const MAX_DEVICES: usize = 256;
/// Devices of a bus looked at.
const MAX_LOOKED_AT: usize = 4096;

/// Devices of the paravirtual buses, and PCI devices that say something.
pub(super) fn devices(sys: &Path) -> Vec<Device> {
    let mut devices = Vec::new();
    for bus in ["virtio", "xen", "vmbus", "vdpa", "pci"] {
        let Ok(entries) = std::fs::read_dir(sys.join("bus").join(bus).join("devices")) else {
            continue;
        };
        devices.extend(
            entries
                .flatten()
                .take(MAX_LOOKED_AT)
                .map(|entry| device(bus, &entry))
                .filter(|device| bus != "pci" || says_something(device)),
        );
    }
    devices.sort_by(|a, b| (&a.bus, &a.name).cmp(&(&b.bus, &b.name)));
    devices.truncate(MAX_DEVICES);
    devices
}

fn device(bus: &str, entry: &DirEntry) -> Device {
    let dir = entry.path();
    let driver = std::fs::read_link(dir.join("driver"))
        .ok()
        .and_then(|link| Some(link.file_name()?.to_string_lossy().into_owned()))
        .unwrap_or_default();
    let mut device = Device {
        bus: bus.to_owned(),
        name: entry.file_name().to_string_lossy().into_owned(),
        driver,
        ..Device::default()
    };
    match bus {
        "virtio" => device.kind = text(&dir.join("device")),
        "pci" => {
            device.virtual_function = std::fs::read_link(dir.join("physfn")).is_ok();
            device.functions = text(&dir.join("sriov_numvfs")).parse().unwrap_or(0);
        }
        _ => {}
    }
    device
}

fn says_something(device: &Device) -> bool {
    let driver = &&*device.driver;
    device.virtual_function
        || device.functions > 0
        || [PARAVIRTUAL_PCI_DRIVERS, FUNCTION_DRIVERS, HANDED_OVER]
            .iter()
            .any(|drivers| drivers.contains(driver))
}

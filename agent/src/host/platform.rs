//! What the machine is: CPUID, DMI, ACPI, buses, devices. Only collects facts; what they
//! mean is decided by `stack::host`, which does no I/O.

mod cpu;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::host::{
    proc::{ProcDir, is_live, own_pid, read_bounded},
    roots::Roots,
};

/// A device on a bus and the driver bound to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// `virtio`, `xen`, `vmbus`, `pci`.
    pub bus: String,
    /// Its name on the bus, e.g. `virtio2`.
    pub name: String,
    /// The driver, e.g. `virtio_net`; empty when none is bound.
    pub driver: String,
}

/// Inodes of a process's namespaces; `None` where not readable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// Mounts.
    pub mnt: Option<u64>,
    /// Process ids.
    pub pid: Option<u64>,
    /// Users.
    pub user: Option<u64>,
}

impl Namespaces {
    /// Reads the links of a process.
    #[must_use]
    pub fn read(process: &ProcDir) -> Self {
        Self {
            mnt: process.namespace("mnt"),
            pid: process.namespace("pid"),
            user: process.namespace("user"),
        }
    }
}

/// Everything that the host's isolation stack is inferred from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostFacts {
    /// As `uname -m` has it; `x86_64`, `aarch64`.
    pub arch: String,
    /// CPUID leaf 0 or `vendor_id` of cpuinfo, e.g. `AuthenticAMD`.
    pub cpu_vendor: String,
    /// The `svm` flag.
    pub svm: bool,
    /// The `vmx` flag.
    pub vmx: bool,
    /// The `hypervisor` flag: a guest.
    pub hypervisor_flag: bool,
    /// CPUID leaf 0x40000000, e.g. `KVMKVMKVM`; empty on bare metal, off x86 and where the
    /// facts are another machine's.
    pub hypervisor_signature: String,
    /// `/sys/class/dmi/id/sys_vendor`.
    pub dmi_vendor: String,
    /// `/sys/class/dmi/id/product_name`.
    pub dmi_product: String,
    /// OEM id of the ACPI FADT, e.g. `FIRECK`.
    pub acpi_oem: String,
    /// `/sys/hypervisor/type`, e.g. `xen`.
    pub sys_hypervisor: String,
    /// `hypervisor/compatible` of the device tree, e.g. `linux,kvm`.
    pub device_tree_hypervisor: String,
    /// Clock sources that the kernel offers.
    pub clocksources: Vec<String>,
    /// Devices of paravirtual buses, and PCI devices whose driver is a paravirtual one.
    pub devices: Vec<Device>,
    /// Namespaces of pid 1, or of the kernel's threads where pid 1 may not be looked at.
    pub init_namespaces: Namespaces,
}

/// PCI drivers of devices that only a hypervisor makes.
pub const PARAVIRTUAL_PCI_DRIVERS: &[&str] = &["ena", "gvnic", "gve", "vmxnet3", "vmw_pvscsi"];
/// Devices kept.
const MAX_DEVICES: usize = 256;

impl HostFacts {
    /// Reads them all; what cannot be read stays empty.
    #[must_use]
    pub fn read(roots: &Roots) -> Self {
        let sys = &roots.sysfs;
        let mut facts = Self {
            dmi_vendor: text(&sys.join("class/dmi/id/sys_vendor")),
            dmi_product: text(&sys.join("class/dmi/id/product_name")),
            acpi_oem: acpi_oem(&sys.join("firmware/acpi/tables/FACP")),
            sys_hypervisor: text(&sys.join("hypervisor/type")),
            device_tree_hypervisor: text(
                &sys.join("firmware/devicetree/base/hypervisor/compatible"),
            ),
            clocksources: text(
                &sys.join("devices/system/clocksource/clocksource0/available_clocksource"),
            )
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
            devices: devices(sys),
            init_namespaces: init_namespaces(roots),
            ..Self::default()
        };
        facts.read_cpu(&roots.procfs.join("cpuinfo"), is_live(roots));
        facts
    }
}

/// Pid 1's links ask for every capability that pid 1 has; kernel threads never leave the
/// initial namespaces, and theirs can be read by any root.
fn init_namespaces(roots: &Roots) -> Namespaces {
    let init = Namespaces::read(&ProcDir::new(roots, 1));
    if init.pid.is_some() {
        return init;
    }
    let kernel = ProcDir::new(roots, 2);
    if kernel.comm().is_ok_and(|comm| comm == "kthreadd") && kernel.exe().is_none() {
        return Namespaces::read(&kernel);
    }
    init
}

/// The host's root directory, through pid 1's or the agent's own where that is the same;
/// `None` when the agent is confined and may not look.
#[must_use]
pub fn host_root(roots: &Roots, facts: &HostFacts) -> Option<PathBuf> {
    let init = roots.procfs.join("1/root");
    if std::fs::read_dir(&init).is_ok() {
        return Some(init);
    }
    let own = ProcDir::new(roots, own_pid(roots)?).namespace("mnt")?;
    (facts.init_namespaces.mnt == Some(own)).then(|| "/".into())
}

/// Devices of the paravirtual buses, and PCI devices with a paravirtual driver.
fn devices(sys: &Path) -> Vec<Device> {
    let mut devices = Vec::new();
    for bus in ["virtio", "xen", "vmbus", "pci"] {
        let Ok(entries) = std::fs::read_dir(sys.join("bus").join(bus).join("devices")) else {
            continue;
        };
        for entry in entries.flatten().take(4096) {
            let driver = std::fs::read_link(entry.path().join("driver"))
                .ok()
                .and_then(|link| Some(link.file_name()?.to_string_lossy().into_owned()))
                .unwrap_or_default();
            if bus == "pci" && !PARAVIRTUAL_PCI_DRIVERS.contains(&&*driver) {
                continue;
            }
            devices.push(Device {
                bus: bus.to_owned(),
                name: entry.file_name().to_string_lossy().into_owned(),
                driver,
            });
        }
    }
    devices.sort_by(|a, b| (&a.bus, &a.name).cmp(&(&b.bus, &b.name)));
    devices.truncate(MAX_DEVICES);
    devices
}

/// The OEM id in an ACPI table's header: bytes 10 to 15.
fn acpi_oem(path: &Path) -> String {
    let header = read_bounded(path, 16).unwrap_or_default();
    clean(header.get(10..16).unwrap_or_default())
}

/// A short sysfs file as one clean line; empty when absent.
fn text(path: &Path) -> String {
    clean(&read_bounded(path, 1024).unwrap_or_default())
}

fn clean(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .replace(|c: char| c.is_control(), " ")
        .trim()
        .to_owned()
}

//! What the machine is: CPUID, DMI, ACPI, buses, devices. Only collects facts; what they
//! mean is decided by `stack::host`, which does no I/O.

mod cpu;
mod devices;
mod modules;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::host::{
    proc::{ProcDir, is_live, own_pid, read_bounded},
    roots::Roots,
};

pub use devices::{Device, FUNCTION_DRIVERS, HANDED_OVER, PARAVIRTUAL_PCI_DRIVERS};

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

    /// The same with one look less. `pids` is `NSpid` of its `status`, which begins in the pid
    /// namespace of this proc file system: where it ends there, too, that is the namespace of
    /// pid 1.
    #[must_use]
    pub fn read_with(process: &ProcDir, pids: &[u32], init: &Self) -> Self {
        Self {
            mnt: process.namespace("mnt"),
            pid: match pids {
                [_] if init.pid.is_some() => init.pid,
                _ => process.namespace("pid"),
            },
            user: process.namespace("user"),
        }
    }
}

/// CPU flags that are kept.
pub const FLAGS: &[&str] = &[
    "svm",
    "vmx",
    "npt",
    "ept",
    "hypervisor",
    "sev",
    "sev_es",
    "sev_snp",
    "tdx_guest",
    "tdx_host_platform",
    "kvm_pvm_guest",
];

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
    /// `/sys/class/dmi/id/board_vendor`.
    pub dmi_board_vendor: String,
    /// `/sys/class/dmi/id/bios_version`: that of Xen instances of EC2 names Amazon.
    pub dmi_bios_version: String,
    /// `/sys/class/dmi/id/chassis_asset_tag`: Azure's machines all have the same.
    pub dmi_asset_tag: String,
    /// `/sys/hypervisor/guest_type` of Xen: `PV`, `HVM`, `PVH`.
    pub xen_guest_type: String,
    /// `/proc/xen/capabilities`: `control_d` in the privileged domain.
    pub xen_capabilities: String,
    /// CPUID 0x40000003 of Hyper-V allows making partitions: the root partition, no guest.
    pub hyperv_root: bool,
    /// CPUID 0x40000001 of KVM: the paravirtual features offered.
    pub kvm_features: u32,
    /// CPUID 0x40000002 of PVM names it.
    pub pvm_signature: bool,
    /// CPU flags that say something about isolation; see [`FLAGS`].
    pub cpu_flags: Vec<String>,
    /// Parameters of the machine modules (`kvm_amd.npt` = `1`), and the modules' names alone
    /// where they have none.
    pub modules: BTreeMap<String, String>,
    /// Devices below `/sys/class/misc` that offer or prove isolation: `kvm`, `sev-guest`.
    pub misc_devices: Vec<String>,
    /// IOMMUs by name, e.g. `ivhd0`, `dmar0`.
    pub iommus: Vec<String>,
    /// Groups of devices that an IOMMU keeps apart.
    pub iommu_groups: u32,
    /// The hypervisor's steal time was above 0 since boot (`/proc/stat`).
    pub steal_seen: bool,
    /// `/sys/kernel/security/lsm`.
    pub lsm: String,
    /// Clock sources that the kernel offers.
    pub clocksources: Vec<String>,
    /// The one in use.
    pub clocksource: String,
    /// Devices of paravirtual buses, and PCI devices whose driver is a paravirtual one.
    pub devices: Vec<Device>,
    /// Namespaces of pid 1, or of the kernel's threads where pid 1 may not be looked at.
    pub init_namespaces: Namespaces,
}

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
            clocksource: text(
                &sys.join("devices/system/clocksource/clocksource0/current_clocksource"),
            ),
            dmi_board_vendor: text(&sys.join("class/dmi/id/board_vendor")),
            dmi_bios_version: text(&sys.join("class/dmi/id/bios_version")),
            dmi_asset_tag: text(&sys.join("class/dmi/id/chassis_asset_tag")),
            xen_guest_type: text(&sys.join("hypervisor/guest_type")),
            xen_capabilities: text(&roots.procfs.join("xen/capabilities")),
            modules: modules::modules(sys),
            misc_devices: modules::misc_devices(sys),
            iommus: modules::names(&sys.join("class/iommu")),
            iommu_groups: modules::count(&sys.join("kernel/iommu_groups")),
            steal_seen: steal_seen(&roots.procfs.join("stat")),
            lsm: text(&sys.join("kernel/security/lsm")),
            devices: devices::devices(sys),
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

/// Whether field 8 of the first line of `/proc/stat` is above 0.
fn steal_seen(path: &Path) -> bool {
    let bytes = read_bounded(path, 1024).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let total = text.lines().next().filter(|line| line.starts_with("cpu "));
    total
        .and_then(|line| line.split_ascii_whitespace().nth(8)?.parse::<u64>().ok())
        .is_some_and(|ticks| ticks > 0)
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

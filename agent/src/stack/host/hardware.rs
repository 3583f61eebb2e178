//! L-0: hardware assist, and what is missing of it. In a guest only what can be seen or must
//! be: never a guess dressed as a fact.

use super::entry;
use crate::{
    host::platform::{FUNCTION_DRIVERS, HANDED_OVER, HostFacts},
    stack::StackEntry,
    vocabulary::Layer,
};

/// Hypervisors that cannot run a guest without hardware assist. (Xen can, as PV; QEMU can,
/// as TCG; PVM always does.)
const NEEDS_HARDWARE: &[&str] = &[
    "kvm",
    "hyperv",
    "vmware",
    "nitro",
    "bhyve",
    "acrn",
    "virtualbox",
];

/// Devices named in a sentence.
const MAX_NAMED: usize = 4;

pub(super) fn hardware(facts: &HostFacts, hypervisors: &[StackEntry]) -> Vec<StackEntry> {
    let layer = Layer::HardwareAssist;
    let mut found: Vec<StackEntry> = assist(facts, hypervisors).into_iter().collect();
    found.extend(memory_encryption(facts));
    if facts.iommu_groups > 0 || !facts.iommus.is_empty() {
        let names = named(facts.iommus.iter().map(String::as_str));
        let text = format!("/sys/class/iommu: {names}; {} groups", facts.iommu_groups);
        found.push(entry(layer, "iommu", text));
    }
    let given: Vec<&str> = facts
        .devices
        .iter()
        .filter(|d| HANDED_OVER.contains(&&*d.driver))
        .map(|d| &*d.name)
        .collect();
    if !given.is_empty() {
        let text = format!("given away to user space or guests: {}", named(given));
        found.push(entry(layer, "vfio", text));
    }
    found.extend(virtual_functions(facts));
    found
}

fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let shown = names.iter().take(MAX_NAMED).copied().collect::<Vec<_>>();
    let more = names.len() - shown.len();
    match more {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn assist(facts: &HostFacts, hypervisors: &[StackEntry]) -> Option<StackEntry> {
    let layer = Layer::HardwareAssist;
    let guest = !hypervisors.is_empty();
    let kvm_device = facts.misc_devices.iter().any(|d| d == "kvm");
    if facts.arch == "aarch64" {
        let el2 = match (kvm_device, guest) {
            (true, false) => "; /dev/kvm is there: the kernel has EL2",
            (true, true) => "; /dev/kvm is there: EL2 is passed on to this guest (nested)",
            (false, true) => "; EL2 belongs to the hypervisor below",
            (false, false) => "; no /dev/kvm: EL2 is absent or not used",
        };
        let text = format!("architecture aarch64{el2}");
        return Some(entry(layer, "arm64", text));
    }
    let seen = if facts.svm {
        Some("svm")
    } else if facts.vmx {
        Some("vmx")
    } else {
        None
    };
    if let Some(flag) = seen {
        let nested = if guest {
            ", passed on to this guest (nested)"
        } else {
            ""
        };
        let text = format!("CPU flag {flag}{nested}{}", details(facts, flag, guest));
        return Some(entry(layer, flag, text));
    }
    let has = |technology: &str| hypervisors.iter().any(|e| e.technology == technology);
    if has("pvm") {
        let text = "hardware assist is absent: PVM runs machines without it".to_owned();
        return Some(entry(layer, &facts.arch, text));
    }
    let implied = match &*facts.cpu_vendor {
        "AuthenticAMD" | "HygonGenuine" => Some("svm"),
        "GenuineIntel" | "CentaurHauls" => Some("vmx"),
        _ => None,
    };
    let xen_needs_it = matches!(&*facts.xen_guest_type, "HVM" | "PVH");
    let by = hypervisors.iter().find(|e| {
        NEEDS_HARDWARE.contains(&&*e.technology) || (e.technology == "xen" && xen_needs_it)
    });
    if let (Some(technology), Some(by)) = (implied, by) {
        let pvm = if facts.modules.contains_key("kvm_pvm") {
            "; machines inside it run by PVM, without hardware assist"
        } else {
            ""
        };
        let text = format!(
            "implied, not seen: {} below and CPU vendor {}; the flag is hidden from this guest{pvm}",
            by.technology, facts.cpu_vendor
        );
        return Some(entry(layer, technology, text));
    }
    if !guest && !facts.arch.is_empty() {
        let text = format!(
            "architecture {}; no svm or vmx flag: hardware assist is absent or off in firmware",
            facts.arch
        );
        return Some(entry(layer, &facts.arch, text));
    }
    None
}

/// Second-level paging, nesting and what guests may be given; what is off is said.
fn details(facts: &HostFacts, flag: &str, guest: bool) -> String {
    let (module, paging, name) = match flag {
        "svm" => ("kvm_amd", "npt", "NPT"),
        _ => ("kvm_intel", "ept", "EPT"),
    };
    let parameter = |name: &str| {
        let value = facts.modules.get(&format!("{module}.{name}"))?;
        Some(matches!(&**value, "Y" | "1"))
    };
    let mut text = String::new();
    let on_cpu = facts.cpu_flags.iter().any(|f| f == paging);
    match parameter(paging) {
        Some(true) => text.push_str(&format!(", {name} on")),
        Some(false) => text.push_str(&format!(", degraded: {module}.{paging} is off")),
        None if on_cpu => text.push_str(&format!(", {name} offered by the CPU")),
        None if !facts.cpu_flags.is_empty() => {
            text.push_str(&format!(", degraded: no {name} flag"));
        }
        None => {}
    }
    if !facts.modules.contains_key(module) && !facts.cpu_flags.is_empty() {
        text.push_str(&format!(", {module} not loaded"));
    }
    for (parameter_name, shown) in [
        ("nested", "nested machines allowed"),
        ("sev_snp", "SEV-SNP for guests"),
        ("tdx", "TDX for guests"),
    ] {
        if parameter(parameter_name) == Some(true) {
            text.push_str(&format!(", {shown}"));
        }
    }
    if parameter("sev_snp") != Some(true) && parameter("sev") == Some(true) {
        text.push_str(if parameter("sev_es") == Some(true) {
            ", SEV-ES for guests"
        } else {
            ", SEV for guests"
        });
    }
    if !guest && !facts.cpu_flags.is_empty() && facts.iommu_groups == 0 {
        text.push_str(", no IOMMU on");
    }
    text
}

/// The memory of this very guest is encrypted.
fn memory_encryption(facts: &HostFacts) -> Option<StackEntry> {
    let layer = Layer::HardwareAssist;
    let device = |name: &str| facts.misc_devices.iter().any(|d| d == name);
    if facts.cpu_flags.iter().any(|f| f == "tdx_guest") || device("tdx_guest") {
        let text = "CPU flag or device tdx_guest: a trust domain".to_owned();
        return Some(entry(layer, "tdx", text));
    }
    (device("sev-guest") || device("sev_guest")).then(|| {
        let text = "/sys/class/misc/sev-guest: memory encrypted for this guest".to_owned();
        entry(layer, "sev-snp", text)
    })
}

/// Slices of a device that pass the host's kernel by.
fn virtual_functions(facts: &HostFacts) -> Option<StackEntry> {
    let layer = Layer::HardwareAssist;
    let split: Vec<String> = facts
        .devices
        .iter()
        .filter(|d| d.functions > 0)
        .map(|d| format!("{} ({} functions)", d.name, d.functions))
        .collect();
    if !split.is_empty() {
        let text = format!("split: {}", named(split.iter().map(String::as_str)));
        return Some(entry(layer, "sr-iov", text));
    }
    let functions: Vec<&str> = facts
        .devices
        .iter()
        .filter(|d| d.virtual_function || FUNCTION_DRIVERS.contains(&&*d.driver))
        .map(|d| &*d.name)
        .collect();
    (!functions.is_empty()).then(|| {
        let text = format!("virtual functions: {}", named(functions));
        entry(layer, "sr-iov", text)
    })
}

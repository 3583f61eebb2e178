//! From facts about the machine to the layers below every process on it. Pure.

#[cfg(test)]
mod tests;

use super::{Stack, StackEntry};
use crate::{
    host::platform::{Device, HostFacts},
    vocabulary::Layer,
};

/// CPUID signatures of leaf 0x40000000.
const SIGNATURES: &[(&str, &str)] = &[
    ("KVMKVMKVM", "kvm"),
    ("Linux KVM Hv", "kvm"),
    ("Microsoft Hv", "hyperv"),
    ("VMwareVMware", "vmware"),
    ("XenVMMXenVMM", "xen"),
    ("bhyve bhyve", "bhyve"),
    ("TCGTCGTCGTCG", "qemu"),
    ("ACRNACRNACRN", "acrn"),
    ("QNXQVMBSQG", "qnx"),
    ("VBoxVBoxVBox", "virtualbox"),
    (" lrpepyh vr", "parallels"),
    ("prl hyperv", "parallels"),
];

/// Machines that DMI names: vendor or product begins with, the technology.
const DMI: &[(&str, &str)] = &[
    ("Amazon EC2", "nitro"),
    ("Firecracker", "firecracker"),
    ("Cloud Hypervisor", "cloud-hypervisor"),
    ("QEMU", "qemu"),
    ("Google Compute Engine", "google-compute-engine"),
    ("VMware", "vmware"),
    ("Xen", "xen"),
    ("HVM domU", "xen"),
    ("innotek GmbH", "virtualbox"),
    ("BHYVE", "bhyve"),
    ("OpenStack", "qemu"),
    ("KubeVirt", "qemu"),
    ("Virtual Machine", "hyperv"),
];

/// OEM ids that virtual machine monitors write into the ACPI tables that they make.
const ACPI: &[(&str, &str)] = &[
    ("FIRECK", "firecracker"),
    ("CLOUDH", "cloud-hypervisor"),
    ("BOCHS", "qemu"),
];

/// Hypervisors that cannot run a guest without hardware assist. (Xen can, as PV; QEMU can,
/// as TCG.)
const NEEDS_HARDWARE: &[&str] = &["kvm", "hyperv", "vmware", "nitro", "bhyve", "acrn"];

/// The host's layers, innermost first: paravirtual devices, hypervisor, hardware assist.
#[must_use]
pub fn host_stack(facts: &HostFacts) -> Stack {
    let hypervisors = hypervisors(facts);
    let mut stack = Vec::new();
    if !hypervisors.is_empty() {
        stack.extend(paravirtual(facts));
    }
    let hardware = hardware(facts, &hypervisors);
    stack.extend(hypervisors);
    stack.extend(hardware);
    Stack(stack)
}

fn entry(layer: Layer, technology: &str, evidence: String) -> StackEntry {
    StackEntry {
        layer,
        technology: technology.to_owned(),
        evidence,
    }
}

/// L-1, the machine monitor before the hypervisor that it uses; empty on bare metal.
fn hypervisors(facts: &HostFacts) -> Vec<StackEntry> {
    let mut found: Vec<StackEntry> = Vec::new();
    let mut add = |technology: &str, evidence: String| match found
        .iter_mut()
        .find(|e| e.technology == technology)
    {
        Some(known) => known.evidence = format!("{}; {evidence}", known.evidence),
        None => found.push(entry(Layer::FullVirtualisation, technology, evidence)),
    };
    // x86 hypervisors announce themselves; DMI alone also names the bare-metal instances of
    // a cloud, so there the flag must agree. Elsewhere there is no such flag.
    let x86 = facts.arch == "x86_64";
    let bare_product = facts.dmi_product.contains(".metal");
    let guest = facts.hypervisor_flag || (!x86 && !bare_product);
    if guest {
        if let Some((_, technology)) = ACPI.iter().find(|(oem, _)| facts.acpi_oem == *oem) {
            add(technology, format!("ACPI OEM id {:?}", facts.acpi_oem));
        }
        let dmi = |(prefix, _): &&(&str, &str)| {
            facts.dmi_product.starts_with(prefix) || facts.dmi_vendor.starts_with(prefix)
        };
        if let Some((_, technology)) = DMI.iter().find(dmi) {
            // "Virtual Machine" is a product of many; only Microsoft's is Hyper-V.
            if *technology != "hyperv" || facts.dmi_vendor.starts_with("Microsoft") {
                let text = format!("DMI {:?} {:?}", facts.dmi_vendor, facts.dmi_product);
                add(technology, text);
            }
        }
    }
    let signature = &facts.hypervisor_signature;
    if let Some((_, technology)) = SIGNATURES.iter().find(|(s, _)| s.trim() == signature) {
        add(technology, format!("CPUID leaf 0x40000000 {signature:?}"));
    }
    if !facts.sys_hypervisor.is_empty() {
        add(&facts.sys_hypervisor, "/sys/hypervisor/type".to_owned());
    }
    match &*facts.device_tree_hypervisor {
        "" => {}
        "linux,kvm" => add("kvm", "device tree hypervisor \"linux,kvm\"".to_owned()),
        text if text.starts_with("xen,") => add("xen", format!("device tree hypervisor {text:?}")),
        _ => {}
    }
    let clock = |name: &str| facts.clocksources.iter().any(|c| c == name);
    if clock("kvm-clock") {
        add("kvm", "clock source kvm-clock".to_owned());
    }
    if clock("hyperv_clocksource_tsc_page") {
        add(
            "hyperv",
            "clock source hyperv_clocksource_tsc_page".to_owned(),
        );
    }
    if found.is_empty() && facts.hypervisor_flag {
        let text = format!("CPUID hypervisor flag; unknown signature {signature:?}");
        found.push(entry(Layer::FullVirtualisation, "hypervisor", text));
    }
    if found.is_empty() && !x86 && facts.devices.iter().any(|d| d.bus == "virtio") {
        let text = "virtio devices; the hypervisor does not name itself".to_owned();
        found.push(entry(Layer::FullVirtualisation, "hypervisor", text));
    }
    found
}

/// L-2: one entry for each family of paravirtual devices.
fn paravirtual(facts: &HostFacts) -> Vec<StackEntry> {
    let mut families: Vec<(&str, Vec<String>)> = Vec::new();
    for device in &facts.devices {
        let Some(technology) = family(device) else {
            continue;
        };
        let text = if device.driver.is_empty() {
            device.name.clone()
        } else {
            format!("{} ({})", device.driver, device.name)
        };
        match families.iter_mut().find(|(known, _)| *known == technology) {
            Some((_, devices)) => devices.push(text),
            None => families.push((technology, vec![text])),
        }
    }
    // virtio first: on a mixed machine it is what most loads go through.
    families.sort_by_key(|(technology, _)| (*technology != "virtio", *technology));
    families
        .into_iter()
        .map(|(technology, devices)| {
            let more = devices.len().saturating_sub(8);
            let mut text = devices.into_iter().take(8).collect::<Vec<_>>().join(", ");
            if more > 0 {
                text.push_str(&format!(" and {more} more"));
            }
            entry(Layer::Paravirtualisation, technology, text)
        })
        .collect()
}

/// The family of a device that the guest kernel co-operates with.
fn family(device: &Device) -> Option<&'static str> {
    Some(match (&*device.bus, &*device.driver) {
        ("virtio", _) => "virtio",
        ("xen", _) => "xen",
        ("vmbus", _) => "vmbus",
        (_, "ena") => "ena",
        (_, "gvnic" | "gve") => "gvnic",
        (_, "vmxnet3") => "vmxnet3",
        (_, "vmw_pvscsi") => "pvscsi",
        _ => return None,
    })
}

/// L-0. In a guest only what can be seen or must be: never a guess dressed as a fact.
fn hardware(facts: &HostFacts, hypervisors: &[StackEntry]) -> Option<StackEntry> {
    let layer = Layer::HardwareAssist;
    if facts.arch == "aarch64" {
        return Some(entry(layer, "arm64", "architecture aarch64".to_owned()));
    }
    let seen = if facts.svm {
        Some("svm")
    } else if facts.vmx {
        Some("vmx")
    } else {
        None
    };
    if let Some(flag) = seen {
        let nested = if hypervisors.is_empty() {
            ""
        } else {
            ", passed on to this guest"
        };
        return Some(entry(layer, flag, format!("CPU flag {flag}{nested}")));
    }
    let implied = match &*facts.cpu_vendor {
        "AuthenticAMD" | "HygonGenuine" => Some("svm"),
        "GenuineIntel" | "CentaurHauls" => Some("vmx"),
        _ => None,
    };
    let by = hypervisors
        .iter()
        .find(|e| NEEDS_HARDWARE.contains(&&*e.technology));
    if let (Some(technology), Some(by)) = (implied, by) {
        let text = format!(
            "implied, not seen: {} below and CPU vendor {}; the flag is hidden from this guest",
            by.technology, facts.cpu_vendor
        );
        return Some(entry(layer, technology, text));
    }
    if hypervisors.is_empty() && !facts.arch.is_empty() {
        let text = format!(
            "architecture {}; no svm or vmx flag: hardware assist is absent or off in firmware",
            facts.arch
        );
        return Some(entry(layer, &facts.arch, text));
    }
    None
}

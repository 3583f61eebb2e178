//! L-1: what this machine runs on, by what the hypervisor says of itself and by the names
//! that it gives to the machine. Empty on bare metal.

use super::entry;
use crate::{host::platform::HostFacts, stack::StackEntry, vocabulary::Layer};

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
    ("Alibaba Cloud", "alibaba-cloud"),
    ("VMware", "vmware"),
    ("Xen", "xen"),
    ("HVM domU", "xen"),
    ("innotek GmbH", "virtualbox"),
    ("BHYVE", "bhyve"),
    ("OpenStack", "qemu"),
    ("KubeVirt", "qemu"),
    ("Parallels", "parallels"),
    ("Virtual Machine", "hyperv"),
];

/// OEM ids that virtual machine monitors write into the ACPI tables that they make.
const ACPI: &[(&str, &str)] = &[
    ("FIRECK", "firecracker"),
    ("CLOUDH", "cloud-hypervisor"),
    ("BOCHS", "qemu"),
];

/// Chassis asset tag of every Azure machine.
const AZURE: &str = "7783-7084-3265-9085-8269-3286-77";

/// L-1, the machine monitor before the hypervisor that it uses; empty on bare metal.
pub(super) fn hypervisors(facts: &HostFacts) -> Vec<StackEntry> {
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
                if *technology == "hyperv" && facts.dmi_asset_tag == AZURE {
                    add("azure", format!("DMI chassis asset tag {AZURE}"));
                }
                let text = format!("DMI {:?} {:?}", facts.dmi_vendor, facts.dmi_product);
                add(technology, text);
            }
        }
        if facts.pvm_signature || facts.cpu_flags.iter().any(|f| f == "kvm_pvm_guest") {
            let by = if facts.pvm_signature {
                "CPUID leaf 0x40000002 \"PVM\""
            } else {
                "CPU flag kvm_pvm_guest"
            };
            add("pvm", by.to_owned());
        }
    }
    let stands_in_for_kvm = guest && is_from(facts, &["innotek", "Parallels"]);
    let signature = &facts.hypervisor_signature;
    if let Some((_, technology)) = SIGNATURES.iter().find(|(s, _)| s.trim() == signature) {
        let mut text = format!("CPUID leaf 0x40000000 {signature:?}");
        if *technology == "hyperv" && facts.hyperv_root {
            text.push_str("; may make partitions: this is the root partition");
        }
        if signature == "TCGTCGTCGTCG" {
            text.push_str("; emulation: no hardware assist");
        }
        // VirtualBox and Parallels speak KVM's paravirtual interface to Linux.
        if !(*technology == "kvm" && stands_in_for_kvm) {
            add(technology, text);
        }
    }
    if !facts.sys_hypervisor.is_empty() {
        let mut text = "/sys/hypervisor/type".to_owned();
        if !facts.xen_guest_type.is_empty() {
            text.push_str(&format!(", guest type {}", facts.xen_guest_type));
        }
        if facts.xen_guest_type == "PV" {
            text.push_str("; without hardware assist");
        }
        if facts.xen_capabilities.contains("control_d") {
            text.push_str("; /proc/xen/capabilities control_d: this is dom0");
        }
        if facts.dmi_bios_version.contains("amazon") {
            text.push_str("; firmware of EC2");
        }
        add(&facts.sys_hypervisor, text);
    }
    match &*facts.device_tree_hypervisor {
        "" => {}
        "linux,kvm" => add("kvm", "device tree hypervisor \"linux,kvm\"".to_owned()),
        text if text.starts_with("xen,") => add("xen", format!("device tree hypervisor {text:?}")),
        _ => {}
    }
    let clock = |name: &str| facts.clocksources.iter().any(|c| c == name);
    if clock("kvm-clock") && !stands_in_for_kvm {
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

fn is_from(facts: &HostFacts, vendors: &[&str]) -> bool {
    vendors.iter().any(|v| facts.dmi_vendor.starts_with(v))
}

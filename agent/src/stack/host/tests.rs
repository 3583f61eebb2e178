use super::*;
use crate::host::platform::Device;

fn guest(signature: &str) -> HostFacts {
    HostFacts {
        arch: "x86_64".into(),
        cpu_vendor: "GenuineIntel".into(),
        hypervisor_flag: true,
        hypervisor_signature: signature.into(),
        ..HostFacts::default()
    }
}

fn device(bus: &str, driver: &str) -> Device {
    Device {
        bus: bus.into(),
        name: format!("{bus}0"),
        driver: driver.into(),
        ..Device::default()
    }
}

#[test]
fn machines() {
    let metal = HostFacts {
        arch: "x86_64".into(),
        cpu_vendor: "AuthenticAMD".into(),
        svm: true,
        ..HostFacts::default()
    };
    let table = [
        (metal.clone(), "L-0:svm"),
        (
            HostFacts {
                // A bare-metal instance: EC2's name and device, but no hypervisor.
                dmi_vendor: "Amazon EC2".into(),
                dmi_product: "m5.metal".into(),
                devices: vec![device("pci", "ena")],
                ..metal.clone()
            },
            "L-0:svm",
        ),
        (
            HostFacts {
                svm: false,
                ..metal
            },
            "L-0:x86_64",
        ),
        (guest("KVMKVMKVM"), "L-1:kvm/L-0:vmx"),
        (
            HostFacts {
                dmi_vendor: "QEMU".into(),
                devices: vec![
                    device("virtio", "virtio_net"),
                    device("virtio", "virtio_blk"),
                ],
                ..guest("KVMKVMKVM")
            },
            "L-2:virtio/L-1:qemu/L-1:kvm/L-0:vmx",
        ),
        (
            HostFacts {
                dmi_vendor: "Amazon EC2".into(),
                dmi_product: "m5.large".into(),
                devices: vec![device("pci", "ena")],
                ..guest("KVMKVMKVM")
            },
            "L-2:ena/L-1:nitro/L-1:kvm/L-0:vmx",
        ),
        (
            HostFacts {
                acpi_oem: "FIRECK".into(),
                devices: vec![device("virtio", "virtio_blk")],
                ..guest("KVMKVMKVM")
            },
            "L-2:virtio/L-1:firecracker/L-1:kvm/L-0:vmx",
        ),
        (
            HostFacts {
                dmi_vendor: "Google".into(),
                dmi_product: "Google Compute Engine".into(),
                devices: vec![device("pci", "gvnic"), device("virtio", "virtio_scsi")],
                ..guest("KVMKVMKVM")
            },
            "L-2:virtio/L-2:gvnic/L-1:google-compute-engine/L-1:kvm/L-0:vmx",
        ),
        (
            HostFacts {
                dmi_vendor: "Microsoft Corporation".into(),
                dmi_product: "Virtual Machine".into(),
                devices: vec![device("vmbus", "hv_netvsc")],
                ..guest("Microsoft Hv")
            },
            "L-2:vmbus/L-1:hyperv/L-0:vmx",
        ),
        (
            HostFacts {
                dmi_vendor: "VMware, Inc.".into(),
                devices: vec![device("pci", "vmxnet3")],
                ..guest("VMwareVMware")
            },
            "L-2:vmxnet3/L-1:vmware/L-0:vmx",
        ),
        (
            HostFacts {
                sys_hypervisor: "xen".into(),
                devices: vec![device("xen", "vif")],
                ..guest("XenVMMXenVMM")
            },
            "L-2:xen/L-1:xen",
        ),
        // Emulation: no hardware assist is in play.
        (
            HostFacts {
                devices: vec![device("virtio", "virtio_net")],
                ..guest("TCGTCGTCGTCG")
            },
            "L-2:virtio/L-1:qemu",
        ),
        (guest("SomethingNew"), "L-1:hypervisor"),
        (
            HostFacts {
                arch: "aarch64".into(),
                ..HostFacts::default()
            },
            "L-0:arm64",
        ),
        (
            HostFacts {
                arch: "aarch64".into(),
                dmi_vendor: "QEMU".into(),
                devices: vec![device("virtio", "virtio_net")],
                ..HostFacts::default()
            },
            "L-2:virtio/L-1:qemu/L-0:arm64",
        ),
        (HostFacts::default(), ""),
    ];
    for (facts, expected) in table {
        assert_eq!(host_stack(&facts).to_string(), expected, "{facts:?}");
    }
}

#[test]
fn every_entry_carries_what_it_was_inferred_from() {
    let stack = host_stack(&HostFacts {
        clocksources: vec!["tsc".into(), "kvm-clock".into()],
        devices: vec![device("virtio", "virtio_net")],
        ..guest("KVMKVMKVM")
    });
    let evidence: Vec<&str> = stack.0.iter().map(|e| &*e.evidence).collect();
    assert_eq!(
        evidence,
        [
            "virtio_net (virtio0); kvm-clock offered",
            "CPUID leaf 0x40000000 \"KVMKVMKVM\"; clock source kvm-clock",
            "implied, not seen: kvm below and CPU vendor GenuineIntel; the flag is hidden from \
             this guest",
        ]
    );
}

//! The CPU's own word: CPUID where it runs on this machine, `/proc/cpuinfo` else.

use std::path::Path;

use super::{FLAGS, HostFacts};
use crate::host::proc::read_bounded;

impl HostFacts {
    pub(super) fn read_cpu(&mut self, cpuinfo: &Path, live: bool) {
        let bytes = read_bounded(cpuinfo, 64 * 1024).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let value = |key: &str| {
            text.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                (name.trim() == key).then(|| value.trim().to_owned())
            })
        };
        self.cpu_vendor = value("vendor_id").unwrap_or_default();
        let flags = value("flags").unwrap_or_default();
        let has = |flag: &str| flags.split_whitespace().any(|f| f == flag);
        self.svm = has("svm");
        self.vmx = has("vmx");
        self.hypervisor_flag = has("hypervisor");
        self.cpu_flags = FLAGS
            .iter()
            .filter(|flag| has(flag))
            .map(|flag| (*flag).to_owned())
            .collect();
        self.arch = if live {
            std::env::consts::ARCH.to_owned()
        } else if !flags.is_empty() {
            "x86_64".to_owned()
        } else if value("CPU implementer").is_some() {
            "aarch64".to_owned()
        } else {
            String::new()
        };
        if live {
            self.read_cpuid();
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn read_cpuid(&mut self) {
        let cpuid = raw_cpuid::CpuId::new();
        if let Some(vendor) = cpuid.get_vendor_info() {
            vendor.as_str().clone_into(&mut self.cpu_vendor);
        }
        if let Some(features) = cpuid.get_feature_info() {
            self.vmx |= features.has_vmx();
            self.hypervisor_flag |= features.has_hypervisor();
        }
        if let Some(features) = cpuid.get_extended_processor_and_feature_identifiers() {
            self.svm |= features.has_svm();
        }
        if self.hypervisor_flag {
            let leaf = raw_cpuid::cpuid!(0x4000_0000);
            self.hypervisor_signature = super::clean(&bytes([leaf.ebx, leaf.ecx, leaf.edx]));
            // Bare KVM says 0 where the highest leaf belongs.
            let has = |number: u32| leaf.eax == 0 || leaf.eax >= number;
            if self.hypervisor_signature == "KVMKVMKVM" && has(0x4000_0001) {
                self.kvm_features = raw_cpuid::cpuid!(0x4000_0001).eax;
                self.pvm_signature =
                    leaf.eax >= 0x4000_0002 && raw_cpuid::cpuid!(0x4000_0002).eax == PVM;
            }
            if self.hypervisor_signature == "Microsoft Hv" && leaf.eax >= 0x4000_0003 {
                self.hyperv_root = raw_cpuid::cpuid!(0x4000_0003).ebx & 1 != 0;
            }
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn read_cpuid(&mut self) {}
}

/// `PVM` in a register.
#[cfg(target_arch = "x86_64")]
const PVM: u32 = 0x004d_5650;

#[cfg(target_arch = "x86_64")]
fn bytes(registers: [u32; 3]) -> Vec<u8> {
    registers.iter().flat_map(|r| r.to_le_bytes()).collect()
}

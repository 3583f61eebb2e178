//! `kvm`: time of virtual CPUs out of guest mode, on hosts of virtual machines.

mod reasons;

use std::{collections::HashMap, sync::Arc};

use agent_common::{
    event::{
        Record,
        kvm::{
            ISA_ARM64, ISA_SVM, ISA_VMX, KIND_EXIT, LAYOUT_FIRST, LAYOUT_ISA, LAYOUT_LEN,
            LAYOUT_REASON, LAYOUT_SECOND, REASON_ARGUMENT, REASON_MEMBER, REASON_POINTED,
        },
        sensor,
    },
    kernel_fields::{KernelArgument, KernelField, NOBODY},
    series::{SeriesKey, family},
};

use super::{
    DecodeError, Family, FamilyKind, Hook, Interpreter, Kernel, Meaning, Probe, Sensor, WhyNot,
};
use crate::{
    event::{Particulars, VmExit},
    host::{btf::KernelTypes, roots::Roots},
    vocabulary::Cause,
};

/// The sensor.
pub struct Kvm;

const PROBES: &[Probe] = &[
    Probe::essential(&[Hook::raw_tp("kvm_exit", "kvm_exit")]),
    Probe::essential(&[Hook::raw_tp("kvm_entry", "kvm_entry")]),
    Probe::optional(
        &[Hook::raw_tp("kvm_wakeup", "kvm_vcpu_wakeup")],
        "how long halted virtual CPUs were polled and slept for",
    ),
];

const FAMILIES: &[Family] = &[Family {
    id: family::KVM_EXIT,
    name: "isostack_kvm_exit_seconds",
    help: "Stretches in which a virtual CPU was out of guest mode, from exit to entry.",
    kind: FamilyKind::Histogram,
    labels: &["reason"],
}];

/// The part of KVM that knows the processor, by its module.
const VENDORS: &[(&str, u32)] = &[("kvm_intel", ISA_VMX), ("kvm_amd", ISA_SVM)];

/// Different exits remembered.
const MAX_REMEMBERED: usize = 4096;

impl Sensor for Kvm {
    fn id(&self) -> u32 {
        sensor::KVM
    }

    fn name(&self) -> &'static str {
        "kvm"
    }

    fn probes(&self) -> &'static [Probe] {
        PROBES
    }

    fn check(&self, kernel: &Kernel<'_>) -> Result<(), WhyNot> {
        if is_there(kernel.roots) {
            return Ok(());
        }
        Err(WhyNot {
            reason: if kernel.roots.sysfs.join("module/kvm").exists() {
                "KVM has no module for this processor's virtualisation, and so tells of no exits"
            } else {
                "the module kvm is not loaded"
            }
            .to_owned(),
            fix: "nothing, unless virtual machines run here: load kvm_intel or kvm_amd, and the \
                  sensor starts by itself"
                .to_owned(),
        })
    }

    fn interpreter(&self, _: &Kernel<'_>) -> Box<dyn Interpreter> {
        Box::new(KvmInterpreter::default())
    }

    fn families(&self) -> &'static [Family] {
        FAMILIES
    }

    fn has_appeared(&self, roots: &Roots) -> bool {
        is_there(roots)
    }

    fn arrays(&self, kernel: &Kernel<'_>) -> Vec<(&'static str, Vec<u32>)> {
        vec![("KVM_LAYOUT", layout(kernel).to_vec())]
    }
}

fn is_there(roots: &Roots) -> bool {
    let modules = roots.sysfs.join("module");
    cfg!(target_arch = "aarch64") || VENDORS.iter().any(|(name, _)| modules.join(name).exists())
}

/// Where the reason of an exit is; all 0 where that is not known, and then it is `unknown`.
fn layout(kernel: &Kernel<'_>) -> [u32; LAYOUT_LEN as usize] {
    let fill = |isa, reason, first, second| {
        let mut layout = [0; LAYOUT_LEN as usize];
        layout[LAYOUT_ISA as usize] = isa;
        layout[LAYOUT_REASON as usize] = reason;
        layout[LAYOUT_FIRST as usize] = first;
        layout[LAYOUT_SECOND as usize] = second;
        layout
    };
    if cfg!(target_arch = "aarch64") {
        return fill(ISA_ARM64, REASON_ARGUMENT, 1, 0);
    }
    let sysfs = &kernel.roots.sysfs;
    let vendor = VENDORS
        .iter()
        .find(|(name, _)| sysfs.join("module").join(name).exists());
    let Some((name, isa)) = vendor else {
        return fill(0, 0, 0, 0);
    };
    // Built in, they are among the kernel's own types.
    let of_module = |name| kernel.types.module(sysfs, name);
    let common = of_module("kvm");
    let vcpu_is_first = common
        .as_ref()
        .unwrap_or(kernel.types)
        .has_argument(&KernelArgument {
            symbol: "",
            tracepoint: "kvm_exit",
            index: 0,
            structure: "kvm_vcpu",
        });
    if !vcpu_is_first {
        return fill(*isa, REASON_ARGUMENT, 0, 0);
    }
    let own = of_module(name);
    let types = own.as_ref().unwrap_or(kernel.types);
    let found = match *isa {
        ISA_SVM => offset(types, "vcpu_svm", &["vmcb"], 8)
            .zip(
                offset(types, "vmcb", &["control.exit_code"], 4)
                    .or_else(|| offset(types, "vmcb", &["control.exit_code"], 8)),
            )
            .map(|(first, second)| fill(*isa, REASON_POINTED, first << 8, second)),
        _ => offset(types, "vcpu_vmx", &["exit_reason", "vt.exit_reason"], 4)
            .map(|first| fill(*isa, REASON_MEMBER, first << 8, 0)),
    };
    found.unwrap_or(fill(*isa, 0, 0, 0))
}

/// Offset of the first of `paths` that the structure has.
fn offset(
    types: &KernelTypes,
    structure: &'static str,
    paths: &[&'static str],
    size: u32,
) -> Option<u32> {
    paths.iter().find_map(|path| {
        types.offset(&KernelField {
            symbol: "",
            structure,
            path,
            size,
            needed_by: NOBODY,
        })
    })
}

#[derive(Default)]
struct KvmInterpreter(HashMap<(u32, u32), Arc<VmExit>>);

impl Interpreter for KvmInterpreter {
    fn record(&mut self, record: &Record) -> Result<Meaning, DecodeError> {
        if record.kind != KIND_EXIT {
            return Err(DecodeError::Unknown {
                sensor: record.sensor,
                kind: record.kind,
            });
        }
        let reason = record.detail as u32;
        if self.0.len() >= MAX_REMEMBERED {
            self.0.clear();
        }
        let exit = self.0.entry((reason, record.extra)).or_insert_with(|| {
            Arc::new(VmExit {
                reason: reasons::name(record.extra, reason),
                nested_page_fault: reasons::is_nested_page_fault(record.extra, reason),
            })
        });
        // A halted virtual CPU is idle: it waits for its own guest.
        let cause = if reasons::is_halt(record.extra, reason) {
            Cause::Sleep
        } else {
            Cause::KvmExit
        };
        Ok(Meaning {
            cause,
            particulars: Particulars::VmExit(Arc::clone(exit)),
        })
    }

    fn labels(&mut self, key: &SeriesKey) -> Vec<String> {
        vec![reasons::name(key.b as u32, key.a)]
    }
}

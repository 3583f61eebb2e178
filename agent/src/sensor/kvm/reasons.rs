//! Names of the reasons for which a virtual CPU leaves guest mode, as the processors' manuals
//! and the kernel's own trace events have them.

use agent_common::event::kvm::{HALT_POLL, HALT_WAIT, ISA_ARM64, ISA_NONE, ISA_SVM, ISA_VMX};

/// Basic exit reasons, appendix C of volume 3 of Intel's manual.
const VMX: &[(u32, &str)] = &[
    (0, "EXCEPTION_NMI"),
    (1, "EXTERNAL_INTERRUPT"),
    (2, "TRIPLE_FAULT"),
    (3, "INIT_SIGNAL"),
    (4, "SIPI_SIGNAL"),
    (7, "INTERRUPT_WINDOW"),
    (8, "NMI_WINDOW"),
    (9, "TASK_SWITCH"),
    (10, "CPUID"),
    (12, "HLT"),
    (13, "INVD"),
    (14, "INVLPG"),
    (15, "RDPMC"),
    (16, "RDTSC"),
    (18, "VMCALL"),
    (19, "VMCLEAR"),
    (20, "VMLAUNCH"),
    (21, "VMPTRLD"),
    (22, "VMPTRST"),
    (23, "VMREAD"),
    (24, "VMRESUME"),
    (25, "VMWRITE"),
    (26, "VMOFF"),
    (27, "VMON"),
    (28, "CR_ACCESS"),
    (29, "DR_ACCESS"),
    (30, "IO_INSTRUCTION"),
    (31, "MSR_READ"),
    (32, "MSR_WRITE"),
    (33, "INVALID_STATE"),
    (34, "MSR_LOAD_FAIL"),
    (36, "MWAIT_INSTRUCTION"),
    (37, "MONITOR_TRAP_FLAG"),
    (39, "MONITOR_INSTRUCTION"),
    (40, "PAUSE_INSTRUCTION"),
    (41, "MCE_DURING_VMENTRY"),
    (43, "TPR_BELOW_THRESHOLD"),
    (44, "APIC_ACCESS"),
    (45, "EOI_INDUCED"),
    (46, "GDTR_IDTR"),
    (47, "LDTR_TR"),
    (48, "EPT_VIOLATION"),
    (49, "EPT_MISCONFIG"),
    (50, "INVEPT"),
    (51, "RDTSCP"),
    (52, "PREEMPTION_TIMER"),
    (53, "INVVPID"),
    (54, "WBINVD"),
    (55, "XSETBV"),
    (56, "APIC_WRITE"),
    (57, "RDRAND"),
    (58, "INVPCID"),
    (59, "VMFUNC"),
    (60, "ENCLS"),
    (61, "RDSEED"),
    (62, "PML_FULL"),
    (63, "XSAVES"),
    (64, "XRSTORS"),
    (67, "UMWAIT"),
    (68, "TPAUSE"),
    (74, "BUS_LOCK"),
    (75, "NOTIFY"),
    (77, "TDCALL"),
];

/// Intercept codes, appendix C of volume 2 of AMD's manual; ranges are in [`svm`].
const SVM: &[(u32, &str)] = &[
    (0x060, "INTR"),
    (0x061, "NMI"),
    (0x062, "SMI"),
    (0x063, "INIT"),
    (0x064, "VINTR"),
    (0x065, "CR0_SEL_WRITE"),
    (0x066, "IDTR_READ"),
    (0x067, "GDTR_READ"),
    (0x068, "LDTR_READ"),
    (0x069, "TR_READ"),
    (0x06a, "IDTR_WRITE"),
    (0x06b, "GDTR_WRITE"),
    (0x06c, "LDTR_WRITE"),
    (0x06d, "TR_WRITE"),
    (0x06e, "RDTSC"),
    (0x06f, "RDPMC"),
    (0x070, "PUSHF"),
    (0x071, "POPF"),
    (0x072, "CPUID"),
    (0x073, "RSM"),
    (0x074, "IRET"),
    (0x075, "SWINT"),
    (0x076, "INVD"),
    (0x077, "PAUSE"),
    (0x078, "HLT"),
    (0x079, "INVLPG"),
    (0x07a, "INVLPGA"),
    (0x07b, "IOIO"),
    (0x07c, "MSR"),
    (0x07d, "TASK_SWITCH"),
    (0x07e, "FERR_FREEZE"),
    (0x07f, "SHUTDOWN"),
    (0x080, "VMRUN"),
    (0x081, "VMMCALL"),
    (0x082, "VMLOAD"),
    (0x083, "VMSAVE"),
    (0x084, "STGI"),
    (0x085, "CLGI"),
    (0x086, "SKINIT"),
    (0x087, "RDTSCP"),
    (0x089, "WBINVD"),
    (0x08a, "MONITOR"),
    (0x08b, "MWAIT"),
    (0x08c, "MWAIT_COND"),
    (0x08d, "XSETBV"),
    (0x08e, "RDPRU"),
    (0x0a2, "INVPCID"),
    (0x0a5, "BUS_LOCK"),
    (0x400, "NPF"),
    (0x401, "AVIC_INCOMPLETE_IPI"),
    (0x402, "AVIC_UNACCELERATED_ACCESS"),
    (0x403, "VMGEXIT"),
];

/// Exception classes of `ESR_ELx`, section D24.2.45 of Arm's manual.
const ARM64: &[(u32, &str)] = &[
    (0x00, "UNKNOWN"),
    (0x01, "WFx"),
    (0x03, "CP15_32"),
    (0x04, "CP15_64"),
    (0x07, "FP_ASIMD"),
    (0x12, "HVC32"),
    (0x13, "SMC32"),
    (0x16, "HVC64"),
    (0x17, "SMC64"),
    (0x18, "SYS64"),
    (0x19, "SVE"),
    (0x1c, "PAC"),
    (0x20, "IABT_LOW"),
    (0x24, "DABT_LOW"),
    (0x2f, "SERROR"),
    (0x30, "BREAKPT_LOW"),
    (0x32, "SOFTSTP_LOW"),
    (0x34, "WATCHPT_LOW"),
    (0x3c, "BRK64"),
];

/// Of Intel's number only the low half is the reason; the rest are flags.
const VMX_BASIC: u32 = 0xffff;

/// The reason's name.
pub fn name(isa: u32, reason: u32) -> String {
    let known = match isa {
        ISA_VMX => find(VMX, reason & VMX_BASIC),
        ISA_SVM => find(SVM, reason),
        ISA_ARM64 => find(ARM64, reason),
        ISA_NONE if reason == HALT_POLL => Some("halt_poll"),
        ISA_NONE if reason == HALT_WAIT => Some("halt_wait"),
        ISA_NONE => Some("unknown"),
        _ => None,
    };
    match known {
        Some(name) => name.to_owned(),
        None if isa == ISA_SVM => svm(reason),
        None => format!("reason_{reason:#x}"),
    }
}

fn find(table: &[(u32, &'static str)], reason: u32) -> Option<&'static str> {
    let row = table.iter().find(|(number, _)| *number == reason)?;
    Some(row.1)
}

fn svm(reason: u32) -> String {
    match reason {
        0x00..=0x0f => format!("READ_CR{reason}"),
        0x10..=0x1f => format!("WRITE_CR{}", reason - 0x10),
        0x20..=0x2f => format!("READ_DR{}", reason - 0x20),
        0x30..=0x3f => format!("WRITE_DR{}", reason - 0x30),
        0x40..=0x5f => format!("EXCP_{}", reason - 0x40),
        _ => format!("reason_{reason:#x}"),
    }
}

/// The guest had nothing to do.
pub fn is_halt(isa: u32, reason: u32) -> bool {
    match isa {
        ISA_VMX => [12, 36, 67, 68].contains(&(reason & VMX_BASIC)),
        ISA_SVM => [0x078, 0x08b, 0x08c].contains(&reason),
        ISA_ARM64 => reason == 0x01,
        _ => false,
    }
}

/// The second level of address translation had no entry.
pub fn is_nested_page_fault(isa: u32, reason: u32) -> bool {
    match isa {
        ISA_VMX => [48, 49].contains(&(reason & VMX_BASIC)),
        ISA_SVM => reason == 0x400,
        ISA_ARM64 => [0x20, 0x24].contains(&reason),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_processor() {
        assert_eq!(name(ISA_VMX, 48), "EPT_VIOLATION");
        assert_eq!(name(ISA_VMX, 0x8000_0021), "INVALID_STATE", "with a flag");
        assert_eq!(name(ISA_SVM, 0x07b), "IOIO");
        assert_eq!(name(ISA_SVM, 0x4e), "EXCP_14");
        assert_eq!(name(ISA_SVM, 0x13), "WRITE_CR3");
        assert_eq!(name(ISA_ARM64, 0x24), "DABT_LOW");
        assert_eq!(name(ISA_VMX, 999), "reason_0x3e7");
        assert_eq!(name(ISA_NONE, HALT_POLL), "halt_poll");
        assert_eq!(name(ISA_NONE, 0), "unknown");
    }

    #[test]
    fn an_idle_guest_and_a_nested_fault_are_told_apart() {
        assert!(is_halt(ISA_SVM, 0x078) && !is_nested_page_fault(ISA_SVM, 0x078));
        assert!(is_nested_page_fault(ISA_SVM, 0x400) && !is_halt(ISA_SVM, 0x400));
        assert!(is_halt(ISA_VMX, 12) && is_nested_page_fault(ISA_VMX, 48));
    }
}

//! The `kvm` sensor in the running kernel against a virtual machine that knows how often it
//! leaves guest mode. Needs root and a KVM that has the trace events (kvm_intel, kvm_amd).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(target_arch = "x86_64")]

#[allow(dead_code, reason = "limits are for other test programs")]
#[path = "support/cgroup.rs"]
mod cgroup;
#[allow(dead_code, reason = "its pid is for other test programs")]
#[path = "support/child.rs"]
mod child;
#[allow(dead_code, reason = "counters are for other test programs")]
#[path = "support/observed.rs"]
mod observed;

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use cgroup::Group;
use child::Child;
use isostack_agent::{
    doctor,
    host::{identify::Identifier, roots::Roots},
    load::Settings,
    metrics::AgentMetrics,
    sensor::SensorState,
    vocabulary::{Cause, Layer},
};
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VcpuExit};
use observed::Observed;

/// Port writes of the guest.
const OUTS: u16 = 500;
/// Where its code lies.
const CODE: u64 = 0x1000;
const MEMORY: usize = 0x4000;

/// A guest in real mode that writes `OUTS` times to a port, and halts. Returns how often the
/// host's program was asked.
fn guest() -> Result<(u16, u16), kvm_ioctls::Error> {
    let [low, high] = OUTS.to_le_bytes();
    let code = [
        0xb9, low, high, // mov cx, OUTS
        0xe6, 0x10, // again: out 0x10, al
        0xe2, 0xfc, // loop again
        0xf4, // hlt
    ];
    let kvm = Kvm::new()?;
    let vm = kvm.create_vm()?;
    // SAFETY: anonymous memory of that size, which stays mapped as long as this process runs.
    let memory = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            MEMORY,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_ANONYMOUS | libc::MAP_SHARED,
            -1,
            0,
        )
    };
    if memory == libc::MAP_FAILED {
        return Err(kvm_ioctls::Error::last());
    }
    // SAFETY: the code fits into the memory, which nobody else uses; it outlives the guest.
    unsafe {
        memory
            .cast::<u8>()
            .copy_from_nonoverlapping(code.as_ptr(), code.len());
        vm.set_user_memory_region(kvm_userspace_memory_region {
            slot: 0,
            guest_phys_addr: CODE,
            memory_size: MEMORY as u64,
            userspace_addr: memory as u64,
            flags: 0,
        })?;
    }
    let mut vcpu = vm.create_vcpu(0)?;
    let mut special = vcpu.get_sregs()?;
    special.cs.base = 0;
    special.cs.selector = 0;
    vcpu.set_sregs(&special)?;
    let mut registers = vcpu.get_regs()?;
    registers.rip = CODE;
    registers.rflags = 2;
    vcpu.set_regs(&registers)?;
    let (mut outs, mut halts) = (0, 0);
    while halts == 0 {
        match vcpu.run()? {
            VcpuExit::IoOut(..) => outs += 1,
            VcpuExit::Hlt => halts += 1,
            _ => break,
        }
    }
    Ok((outs, halts))
}

/// Whether the sensor can run here; says why not.
fn can_run() -> bool {
    let report = doctor::examine(&Roots::default());
    let kvm = report.sensors.iter().find(|s| s.name == "kvm").unwrap();
    if kvm.state == SensorState::Off {
        println!("not here, but in the VM suite: {}", kvm.reason);
    }
    kvm.state != SensorState::Off
}

#[test]
fn every_exit_is_counted_by_its_reason() {
    if !can_run() {
        return;
    }
    let group = Group::new();
    let observed = Observed::start("kvm", &Settings::default());
    let child = Child::start(&group, || {
        if !matches!(guest(), Ok((OUTS, 1))) {
            // SAFETY: ends this process.
            unsafe { libc::_exit(1) };
        }
    });
    assert_eq!(child.wait(), 0, "the guest itself counts so many");
    let seen = observed.finish(group.id());
    let count = |reasons: &[&str]| {
        let histograms = seen.histograms("isostack_kvm_exit_seconds");
        let of = histograms
            .iter()
            .filter(|(labels, _)| reasons.contains(&labels[0].as_str()));
        of.map(|(_, histogram)| histogram.count()).sum::<u64>()
    };
    let all = seen.histograms("isostack_kvm_exit_seconds");
    // The last of them, HLT, is followed by no entry.
    assert_eq!(
        count(&["IOIO", "IO_INSTRUCTION"]),
        u64::from(OUTS),
        "{all:?}"
    );
    assert_eq!(count(&["unknown"]), 0, "{all:?}");
    assert!(
        seen.delays.iter().all(|d| d.cause != Cause::Sleep),
        "it never waits"
    );
}

/// Set in the process that only holds a machine.
const HOLDS: &str = "ISOSTACK_TEST_HOLDS_A_MACHINE";

/// A machine with one virtual CPU, until somebody takes the process away.
fn hold() -> ! {
    let kvm = Kvm::new().unwrap();
    let vm = kvm.create_vm().unwrap();
    let _vcpu = vm.create_vcpu(0).unwrap();
    println!("held");
    loop {
        std::thread::park();
    }
}

/// In the guests of the VM suite: a machine that itself runs a machine.
#[test]
fn the_monitor_of_a_machine_has_it_on_its_stack() {
    if std::env::var_os(HOLDS).is_some() {
        hold();
    }
    if !can_run() {
        return;
    }
    // A monitor is known by its name and by the machine that it holds.
    let dir = tempfile::tempdir().unwrap();
    let monitor = dir.path().join("qemu-system-x86_64");
    std::fs::copy(std::env::current_exe().unwrap(), &monitor).unwrap();
    let mut held = Monitor(
        Command::new(&monitor)
            .args(["--exact", "the_monitor_of_a_machine_has_it_on_its_stack"])
            .arg("--nocapture")
            .env(HOLDS, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let said = BufReader::new(held.0.stdout.take().unwrap());
    assert!(said.lines().any(|line| line.unwrap().contains("held")));

    let identifier = Identifier::new(Roots::default(), AgentMetrics::default());
    let identity = identifier.look_up_pid(held.0.id()).unwrap();
    let stack = &identity.stack.0;
    let [qemu, machine, ..] = &stack[..] else {
        panic!("{stack:?}");
    };
    assert_eq!((qemu.layer, &*qemu.technology), (L1, "qemu"), "{stack:?}");
    assert_eq!((machine.layer, &*machine.technology), (L1, "kvm"));
    assert!(
        machine.evidence.contains("kvm-vm, 1 vCPU"),
        "{}",
        machine.evidence
    );
    // What it runs by; and where this is a guest itself, that it was passed on.
    let assist = ["svm", "vmx"];
    let assist = stack.iter().find(|e| assist.contains(&&*e.technology));
    let assist = assist.unwrap_or_else(|| panic!("{stack:?}"));
    let is_guest = identifier.host_stack().0.iter().any(|e| e.layer == L1);
    assert_eq!(
        assist.evidence.contains("passed on to this guest (nested)"),
        is_guest,
        "{}",
        assist.evidence
    );
}

const L1: Layer = Layer::FullVirtualisation;

/// Killed at the end.
struct Monitor(std::process::Child);

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

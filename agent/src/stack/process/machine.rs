//! L-1 and the micro-VMs of L-4: processes that are a machine's monitor, and the kernel's
//! threads that serve one.

use super::{ProcessFacts, base_name, entry};
use crate::{stack::StackEntry, vocabulary::Layer};

/// Whether the executable is a virtual machine monitor, and which.
#[must_use]
pub fn machine_monitor(exe_name: &str) -> Option<&'static str> {
    Some(match exe_name {
        "firecracker" => "firecracker",
        "cloud-hypervisor" => "cloud-hypervisor",
        "crosvm" => "crosvm",
        "qemu-kvm" | "qemu-kvm-core" => "qemu",
        "VBoxHeadless" | "VirtualBoxVM" => "virtualbox",
        "vmware-vmx" => "vmware",
        name if name.starts_with("qemu-system-") => "qemu",
        _ => return None,
    })
}

/// Names read off a command line are cut here.
const MAX_NAME: usize = 128;

/// The monitor that a process is: called so, and proven by a KVM machine it holds or by the
/// executable being root's.
pub(super) fn monitor_of(facts: &ProcessFacts) -> Option<&'static str> {
    let technology = machine_monitor(facts.exe_name())?;
    (facts.descriptors.kvm_machine || facts.exe_is_roots()).then_some(technology)
}

/// The micro-VM that is the sandbox of a container or of one workload.
pub(super) fn sandbox(facts: &ProcessFacts) -> Vec<StackEntry> {
    let layer = Layer::Sandbox;
    let mut found = Vec::new();
    let shim = facts
        .ancestors
        .iter()
        .find(|a| a.exe_name().starts_with("containerd-shim-kata") && a.is_what_it_is_called());
    let kata_files =
        |arg: &String| arg.contains("/run/vc/") || arg.contains("/run/kata-containers/");
    let by_files = facts.exe_is_roots() && facts.cmdline.iter().any(kata_files);
    let monitor = monitor_of(facts);
    if monitor.is_some() || facts.exe_name() == "virtiofsd" {
        let helper = if monitor.is_some() {
            ""
        } else {
            " (its file server)"
        };
        if let Some(shim) = shim {
            let text = format!("parent {} (pid {}){helper}", shim.exe, shim.pid);
            found.push(entry(layer, "kata", text));
        } else if by_files {
            let text = format!("exe {} with files of Kata Containers{helper}", facts.exe);
            found.push(entry(layer, "kata", text));
        }
    }
    if monitor == Some("firecracker") {
        let id = after(&facts.cmdline, "--id").map_or(String::new(), |id| format!(", id {id}"));
        found.push(entry(
            layer,
            "firecracker",
            format!("exe {}{id}", facts.exe),
        ));
        if let Some(jail) = jail(facts) {
            found.push(entry(layer, "jailer", jail));
        }
    }
    found
}

/// What Firecracker's jailer leaves behind: its groups, its chroot, the flags it adds.
fn jail(facts: &ProcessFacts) -> Option<String> {
    let flags = [
        "--start-time-us",
        "--start-time-cpu-us",
        "--parent-cpu-time-us",
    ];
    let flagged = facts
        .cmdline
        .iter()
        .any(|arg| flags.iter().any(|flag| arg.starts_with(flag)));
    let chrooted = facts.exe == "/firecracker" || facts.exe.contains("/root/firecracker");
    (flagged && chrooted).then(|| {
        format!(
            "exe {} in a root of its own, started with the jailer's flags",
            facts.exe
        )
    })
}

/// L-2 and L-1 of a process that serves a machine.
pub(super) fn machine(facts: &ProcessFacts) -> Vec<StackEntry> {
    let mut entries = Vec::new();
    if facts.kernel_thread {
        entries.extend(kernel_thread(facts));
        return entries;
    }
    let Some(technology) = monitor_of(facts) else {
        return entries;
    };
    let layer = Layer::FullVirtualisation;
    if technology != "firecracker" {
        let mut text = format!("exe {}", facts.exe);
        if let Some(name) = machine_name(facts) {
            text.push_str(&format!(", machine {name:?}"));
        }
        if technology == "qemu" && !facts.descriptors.kvm_machine {
            text.push_str(", no kvm-vm descriptor: emulation");
        }
        entries.push(entry(layer, technology, text));
    }
    if facts.descriptors.kvm_machine {
        entries.push(entry(layer, "kvm", kvm(facts)));
    }
    if facts.descriptors.vfio_groups > 0 {
        let text = format!(
            "/proc/{}/fd: {} groups of /dev/vfio given to the machine",
            facts.pid, facts.descriptors.vfio_groups
        );
        entries.push(entry(Layer::HardwareAssist, "vfio", text));
    }
    entries
}

fn kvm(facts: &ProcessFacts) -> String {
    let mut text = format!("/proc/{}/fd: anon_inode:kvm-vm", facts.pid);
    match facts.descriptors.vcpus {
        0 => {}
        1 => text.push_str(", 1 vCPU"),
        n => text.push_str(&format!(", {n} vCPUs")),
    }
    let threads: Vec<&str> = facts
        .threads
        .iter()
        .filter(|t| is_vcpu(t))
        .map(|t| &**t)
        .collect();
    if let [first, ..] = threads[..] {
        text.push_str(&format!(", thread {first:?}"));
        if threads.len() > 1 {
            text.push_str(&format!(" and {} more", threads.len() - 1));
        }
    }
    if facts.descriptors.vhost {
        text.push_str(", virtqueues served by the host's kernel (vhost)");
    }
    if facts.descriptors.vdpa {
        text.push_str(", virtqueues served by a device (vDPA)");
    }
    text
}

/// Whether a thread of a monitor is a virtual CPU, by the names the monitors give.
#[must_use]
pub fn is_vcpu(name: &str) -> bool {
    (name.starts_with("CPU ") && name.ends_with("/KVM"))
        || name.starts_with("fc_vcpu")
        || name.starts_with("crosvm_vcpu")
        || name
            .strip_prefix("vcpu")
            .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()))
}

/// The kernel's own threads for a machine; a program cannot be one.
fn kernel_thread(facts: &ProcessFacts) -> Option<StackEntry> {
    if let Some(pid) = facts.comm.strip_prefix("vhost-") {
        let text = format!(
            "kernel thread {:?}: virtqueues of process {pid}",
            facts.comm
        );
        return Some(entry(Layer::Paravirtualisation, "vhost", text));
    }
    let of_kvm = ["kvm-nx-lpage-re", "kvm-pit/", "kvm-nx-recovery"];
    of_kvm
        .iter()
        .any(|prefix| facts.comm.starts_with(prefix))
        .then(|| {
            let text = format!("kernel thread {:?}", facts.comm);
            entry(Layer::FullVirtualisation, "kvm", text)
        })
}

/// The machine's name: of libvirt's group, else of the monitor's command line.
pub(super) fn machine_name(facts: &ProcessFacts) -> Option<String> {
    libvirt_name(&facts.cgroup_path).or_else(|| {
        let argument = after(&facts.cmdline, "-name").or_else(|| after(&facts.cmdline, "--id"))?;
        // `guest=vm1,debug-threads=on` or `vm1,process=...`.
        let first = argument.split(',').next()?;
        let name = first.strip_prefix("guest=").unwrap_or(first);
        (!name.is_empty()).then(|| name.chars().take(MAX_NAME).collect())
    })
}

/// The machine that libvirt's group names: `machine-qemu\x2d3\x2dvm1.scope`, or
/// `qemu-3-vm1.libvirt-qemu` without systemd.
pub(super) fn libvirt_name(path: &str) -> Option<String> {
    // A user may call a group of its own so, but only root makes one there.
    if !path.starts_with("/machine.slice/") && !path.starts_with("/machine/") {
        return None;
    }
    path.split('/').find_map(|component| {
        let unescaped = component.replace("\\x2d", "-");
        let machine = unescaped
            .strip_prefix("machine-")
            .and_then(|m| m.strip_suffix(".scope"))
            .or_else(|| unescaped.strip_suffix(".libvirt-qemu"))?;
        let numbered = ["qemu-", "ch-", "xen-"]
            .iter()
            .find_map(|prefix| machine.strip_prefix(prefix))?;
        let (number, name) = numbered.split_once('-')?;
        let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        (is_number && !name.is_empty()).then(|| name.chars().take(MAX_NAME).collect())
    })
}

fn after<'a>(cmdline: &'a [String], flag: &str) -> Option<&'a str> {
    let at = cmdline.iter().position(|arg| arg == flag)?;
    cmdline.get(at + 1).map(|arg| &**arg)
}

/// Whether the path is that of a monitor.
#[must_use]
pub fn is_monitor(exe: &str) -> bool {
    machine_monitor(base_name(exe)).is_some()
}

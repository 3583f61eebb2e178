//! From facts about a process to its isolation stack and its workload. Pure: whatever is
//! needed is in [`ProcessFacts`], so that frozen facts give the same answer anywhere.

mod container;

use serde::{Deserialize, Serialize};

use self::container::Runtimes;
use super::{Stack, StackEntry, host::host_stack};
use crate::{
    host::platform::{HostFacts, Namespaces},
    vocabulary::Layer,
    workload::{
        Workload,
        path::{PathKind, PathNames},
    },
};

/// Everything that a process's stack and workload are inferred from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessFacts {
    /// Pid as the host sees it, 0 when only a cgroup is known.
    pub pid: u32,
    /// `comm`.
    pub comm: String,
    /// Target of the `exe` link; empty for kernel threads and when not readable.
    pub exe: String,
    /// Path in the CPU controller's hierarchy.
    pub cgroup_path: String,
    /// Inode of that directory.
    pub cgroup_id: u64,
    /// Its namespaces.
    pub namespaces: Namespaces,
    /// `Seccomp` of `status`: 2 is a filter.
    pub seccomp_mode: u32,
    /// One of its descriptors is a KVM machine (looked at only for machine monitors).
    pub kvm_machine: bool,
    /// Parents, nearest first (read only for what may be in a container or sandbox).
    pub ancestors: Vec<Ancestor>,
    /// What a low-level runtime keeps about the container.
    pub runtime_state: Option<RuntimeState>,
    /// What the node's container logs are called.
    pub log_names: LogNames,
}

/// A parent, grandparent, ... of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ancestor {
    /// Pid as the host sees it.
    pub pid: u32,
    /// Target of its `exe` link.
    pub exe: String,
    /// Its command line, bounded.
    pub cmdline: Vec<String>,
}

/// A state directory that a low-level runtime made for a container of this name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeState {
    /// `runc`, `crun`, `youki`.
    pub technology: String,
    /// The container's id as the runtime knows it.
    pub id: String,
    /// Where the state is.
    pub path: String,
}

/// Names that the kubelet gave to a container's log files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogNames {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Pod name.
    pub pod: String,
    /// Container name; empty for the pod's sandbox.
    pub container: String,
}

impl ProcessFacts {
    /// Last component of the executable's path.
    #[must_use]
    pub fn exe_name(&self) -> &str {
        base_name(&self.exe)
    }

    /// Whether its mounts and its pids are not those of pid 1: somebody confined it.
    #[must_use]
    pub fn has_own_view(&self, host: &HostFacts) -> bool {
        let init = &host.init_namespaces;
        let differs = |own: Option<u64>, init: Option<u64>| matches!((own, init), (Some(own), Some(init)) if own != init);
        differs(self.namespaces.mnt, init.mnt) && differs(self.namespaces.pid, init.pid)
    }
}

/// Whether the executable is a virtual machine monitor, and which.
#[must_use]
pub fn machine_monitor(exe_name: &str) -> Option<&'static str> {
    Some(match exe_name {
        "firecracker" => "firecracker",
        "cloud-hypervisor" => "cloud-hypervisor",
        "qemu-kvm" => "qemu",
        name if name.starts_with("qemu-system-") => "qemu",
        _ => return None,
    })
}

/// The layers a process runs inside, innermost first.
#[must_use]
pub fn process_stack(facts: &ProcessFacts, host: &HostFacts) -> Stack {
    let names = PathNames::parse(&facts.cgroup_path);
    let runtimes = Runtimes::find(facts, &names, host);
    let mut stack = Vec::new();
    stack.extend(sandbox(facts, host, runtimes.is_container()));
    stack.extend(monitor(facts));
    stack.extend(runtimes.entries());
    if facts.seccomp_mode == 2 && runtimes.is_container() {
        stack.push(seccomp(facts, Layer::Container));
    }
    stack.extend(host_stack(host).0);
    Stack(stack)
}

/// What a person recognises behind the process.
#[must_use]
pub fn process_workload(facts: &ProcessFacts, host: &HostFacts) -> Workload {
    let names = PathNames::parse(&facts.cgroup_path);
    let runtimes = Runtimes::find(facts, &names, host);
    let mut workload = Workload {
        namespace: facts.log_names.namespace.clone(),
        pod: facts.log_names.pod.clone(),
        pod_uid: names.pod_uid,
        container: names.container,
        container_id: names.container_id,
        unit: names.unit,
        runtime: runtimes.name().to_owned(),
        process: facts.comm.clone(),
        cgroup_id: facts.cgroup_id,
    };
    if workload.container.is_empty() {
        workload.container.clone_from(&facts.log_names.container);
    }
    if workload.container_id.is_empty()
        && workload.container.is_empty()
        && let Some(id) = runtimes.container_id()
    {
        id.clone_into(&mut workload.container_id);
        workload.unit.clear();
    }
    if workload.runtime.is_empty() && names.kind == PathKind::Unit {
        workload.runtime = "systemd".to_owned();
    }
    workload
}

/// L-4: what filters its system calls or stands in for its kernel.
fn sandbox(facts: &ProcessFacts, host: &HostFacts, in_container: bool) -> Option<StackEntry> {
    let exe = &facts.exe;
    match facts.exe_name() {
        "runsc" => return Some(entry(Layer::Sandbox, "gvisor", format!("exe {exe}"))),
        "firecracker" => return Some(entry(Layer::Sandbox, "firecracker", format!("exe {exe}"))),
        _ => {}
    }
    if facts.has_own_view(host) {
        let wrapper = facts
            .ancestors
            .iter()
            .map(|ancestor| (ancestor.pid, &*ancestor.exe))
            .chain([(facts.pid, &**exe)])
            .find(|(_, exe)| base_name(exe) == "bwrap");
        if let Some((pid, exe)) = wrapper {
            let text = format!("own pid and mount namespaces made by {exe} (pid {pid})");
            return Some(entry(Layer::Sandbox, "bubblewrap", text));
        }
    }
    // The filter of a container is the container's (L-3), that of a machine monitor guards
    // the host from it.
    let filtered = facts.seccomp_mode == 2 && !in_container;
    (filtered && machine_monitor(facts.exe_name()).is_none())
        .then(|| seccomp(facts, Layer::Sandbox))
}

/// L-1: the process is a machine's monitor.
fn monitor(facts: &ProcessFacts) -> Vec<StackEntry> {
    let mut entries = Vec::new();
    let Some(technology) = machine_monitor(facts.exe_name()) else {
        return entries;
    };
    let layer = Layer::FullVirtualisation;
    if technology != "firecracker" {
        entries.push(entry(layer, technology, format!("exe {}", facts.exe)));
    }
    if facts.kvm_machine {
        let text = format!("/proc/{}/fd: anon_inode:kvm-vm", facts.pid);
        entries.push(entry(layer, "kvm", text));
    }
    entries
}

fn seccomp(facts: &ProcessFacts, layer: Layer) -> StackEntry {
    let text = format!("/proc/{}/status: Seccomp 2 (filter)", facts.pid);
    entry(layer, "seccomp", text)
}

fn entry(layer: Layer, technology: &str, evidence: String) -> StackEntry {
    StackEntry {
        layer,
        technology: technology.to_owned(),
        evidence,
    }
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

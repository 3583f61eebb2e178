//! What a process's stack and workload are inferred from. Everything in it can be written
//! down and read back, so that the same answer comes out on another machine.

use serde::{Deserialize, Serialize};

use crate::{
    host::platform::{HostFacts, Namespaces},
    workload::path::Circumstances,
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
    /// Who can change that file; read only where its name says something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exe_file: Option<ExeFile>,
    /// Command line, bounded; read only where the executable's name says something.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cmdline: Vec<String>,
    /// A thread of the kernel (`PF_KTHREAD` in `stat`): its `comm` is the kernel's word.
    #[serde(skip_serializing_if = "is_default")]
    pub kernel_thread: bool,
    /// Path in the CPU controller's hierarchy.
    pub cgroup_path: String,
    /// Inode of that directory.
    pub cgroup_id: u64,
    /// Owner of the directory that the outermost container's or pod's group was made in.
    #[serde(skip_serializing_if = "is_default")]
    pub cgroup_maker: u32,
    /// Owner of the directory that the unit or group around them was made in.
    #[serde(skip_serializing_if = "is_default")]
    pub unit_maker: u32,
    /// Ids of containers and pods in the path that are another's on this host (looked for only
    /// where that matters).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub foreign_ids: Vec<String>,
    /// Groups besides `/` in which kubelets of this host keep their pods.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kubelet_roots: Vec<String>,
    /// Its namespaces.
    pub namespaces: Namespaces,
    /// Effective uid as the host sees it.
    #[serde(skip_serializing_if = "is_default")]
    pub uid: u32,
    /// The first line of `uid_map`, where the user namespace is not that of pid 1.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid_map: String,
    /// `NoNewPrivs` of `status`.
    #[serde(skip_serializing_if = "is_default")]
    pub no_new_privs: bool,
    /// `Seccomp` of `status`: 1 is strict, 2 is a filter.
    pub seccomp_mode: u32,
    /// `Seccomp_filters` of `status`; 0 where the kernel does not say.
    #[serde(skip_serializing_if = "is_default")]
    pub seccomp_filters: u32,
    /// What its descriptors say (looked at only where they can say something).
    #[serde(skip_serializing_if = "is_default")]
    pub descriptors: Descriptors,
    /// Names of its threads (read only for machine monitors), bounded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub threads: Vec<String>,
    /// Mapped libraries that are byte-code engines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub libraries: Vec<String>,
    /// Parents, nearest first (read only for what may be in a container or sandbox).
    pub ancestors: Vec<Ancestor>,
    /// What a low-level runtime keeps about the container.
    pub runtime_state: Option<RuntimeState>,
    /// What the node's container logs are called.
    pub log_names: LogNames,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Who can change an executable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExeFile {
    /// Owner's uid as the host sees it.
    pub owner: u32,
    /// Group or others may write it.
    pub writable: bool,
    /// Whether the host has this very file at this path; unknown where the host's root
    /// cannot be looked at, or the file was replaced since.
    pub on_host: Option<bool>,
}

impl ExeFile {
    /// Only root can have put it there.
    #[must_use]
    pub const fn is_roots(&self) -> bool {
        self.owner == 0 && !self.writable
    }
}

/// Open descriptors that say something about isolation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Descriptors {
    /// `anon_inode:kvm-vm`: it runs a KVM machine.
    pub kvm_machine: bool,
    /// `anon_inode:kvm-vcpu:N`: that many virtual CPUs.
    pub vcpus: u32,
    /// `/dev/vhost-*`: the kernel serves its virtqueues.
    pub vhost: bool,
    /// `/dev/vhost-vdpa-*`: a device serves them.
    pub vdpa: bool,
    /// `/dev/vfio/N`: it was given that many groups of devices.
    pub vfio_groups: u32,
    /// `anon_inode:[landlock-ruleset]`.
    pub landlock: bool,
}

/// A parent, grandparent, ... of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ancestor {
    /// Pid as the host sees it.
    pub pid: u32,
    /// Target of its `exe` link.
    pub exe: String,
    /// Who can change that file; read only where its name says something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exe_file: Option<ExeFile>,
    /// Its command line, bounded; read only where the executable's name says something.
    pub cmdline: Vec<String>,
    /// Path in the CPU controller's hierarchy; empty where not known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cgroup_path: String,
    /// Its namespaces.
    #[serde(skip_serializing_if = "is_default")]
    pub namespaces: Namespaces,
    /// `CapEff` of `status`.
    #[serde(skip_serializing_if = "is_default")]
    pub capabilities: u64,
}

impl Ancestor {
    /// Last component of the executable's path.
    #[must_use]
    pub fn exe_name(&self) -> &str {
        base_name(&self.exe)
    }

    /// Whether its name may be taken for what it is: nobody but root made the file, as far
    /// as known.
    #[must_use]
    pub fn is_what_it_is_called(&self) -> bool {
        self.exe_file.is_none_or(|file| file.is_roots())
    }

    /// `CAP_SYS_ADMIN` in the host's own user namespace: it could do anything on the host.
    #[must_use]
    pub fn rules_the_host(&self, host: &HostFacts) -> bool {
        const CAP_SYS_ADMIN: u32 = 21;
        let user = self.namespaces.user;
        self.capabilities >> CAP_SYS_ADMIN & 1 == 1
            && user.is_some()
            && user == host.init_namespaces.user
    }
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

    /// What decides which names in its path are believed.
    #[must_use]
    pub fn circumstances(&self) -> Circumstances<'_> {
        Circumstances {
            kubelet_roots: &self.kubelet_roots,
            maker: self.cgroup_maker,
            unit_maker: self.unit_maker,
            foreign_ids: &self.foreign_ids,
        }
    }

    /// Whether its executable is root's: nobody else can have given it that name.
    #[must_use]
    pub fn exe_is_roots(&self) -> bool {
        self.exe_file.is_none_or(|file| file.is_roots())
    }

    /// Whether its mounts are not those of pid 1.
    #[must_use]
    pub fn has_own_mounts(&self, host: &HostFacts) -> bool {
        differ(self.namespaces.mnt, host.init_namespaces.mnt)
    }

    /// Whether its mounts and its pids are not those of pid 1: somebody confined it.
    #[must_use]
    pub fn has_own_view(&self, host: &HostFacts) -> bool {
        self.has_own_mounts(host) && differ(self.namespaces.pid, host.init_namespaces.pid)
    }

    /// Whether its user namespace is not that of pid 1.
    #[must_use]
    pub fn has_own_users(&self, host: &HostFacts) -> bool {
        differ(self.namespaces.user, host.init_namespaces.user)
    }
}

/// Both known, and not the same.
pub(super) fn differ(one: Option<u64>, other: Option<u64>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if one != other)
}

/// Last component of a path.
#[must_use]
pub fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

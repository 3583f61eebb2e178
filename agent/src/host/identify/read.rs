//! Collects [`ProcessFacts`]: the only place that knows which files they come from.

use super::Identifier;
use crate::{
    host::{
        platform::Namespaces,
        proc::{ProcDir, ProcError, Stat},
    },
    stack::process::{Ancestor, LogNames, ProcessFacts, RuntimeState, machine_monitor},
    workload::path::{PathKind, PathNames},
};

/// Parents looked at.
const MAX_ANCESTORS: usize = 16;

/// State directories of low-level runtimes below the host's root; `{}` is the container id.
const STATES: &[(&str, &str)] = &[
    ("runc", "run/containerd/runc/k8s.io/{}/state.json"),
    ("runc", "run/containerd/runc/moby/{}/state.json"),
    ("runc", "run/containerd/runc/default/{}/state.json"),
    ("runc", "run/docker/runtime-runc/moby/{}/state.json"),
    ("runc", "run/runc/{}/state.json"),
    ("crun", "run/crun/{}/status"),
    ("youki", "run/youki/{}/state.json"),
];

impl Identifier {
    /// Facts about the process with this pid now, whose `stat` was read just before.
    pub(super) fn process_facts(&self, pid: u32, stat: Stat) -> Result<ProcessFacts, ProcError> {
        let dir = ProcDir::new(&self.roots, pid);
        let cgroup_path = self.cgroups.path_of(&dir.cgroups()?);
        let names = PathNames::parse(&cgroup_path);
        let mut facts = ProcessFacts {
            pid,
            comm: stat.comm,
            exe: dir.exe().unwrap_or_default(),
            cgroup_id: self.cgroups.id_of(&cgroup_path),
            namespaces: Namespaces::read(&dir),
            seccomp_mode: dir.status()?.seccomp_mode,
            runtime_state: self.runtime_state(&names, &cgroup_path),
            log_names: self.log_names(&names),
            cgroup_path,
            ..ProcessFacts::default()
        };
        // Parents say something only about containers and sandboxes, descriptors only about
        // machine monitors: the plain process, the usual case, stays cheap.
        if names.kind == PathKind::Container
            || facts.runtime_state.is_some()
            || facts.has_own_view(&self.host)
        {
            facts.ancestors = self.ancestors(stat.ppid);
        }
        if machine_monitor(facts.exe_name()).is_some() {
            facts.kvm_machine = dir.any_fd(|target| target == "anon_inode:kvm-vm");
        }
        Ok(facts)
    }

    fn ancestors(&self, first: u32) -> Vec<Ancestor> {
        let mut ancestors = Vec::new();
        let mut pid = first;
        while pid > 1 && ancestors.len() < MAX_ANCESTORS {
            let dir = ProcDir::new(&self.roots, pid);
            let Ok(stat) = dir.stat() else { break };
            ancestors.push(Ancestor {
                pid,
                exe: dir.exe().unwrap_or_default(),
                cmdline: dir.cmdline().unwrap_or_default(),
            });
            pid = stat.ppid;
        }
        ancestors
    }

    /// The state that a low-level runtime keeps about the container of a cgroup.
    pub(super) fn runtime_state(&self, names: &PathNames, path: &str) -> Option<RuntimeState> {
        let id = match names.kind {
            PathKind::Container if !names.container_id.is_empty() => &*names.container_id,
            // A runtime called by hand: the group has the container's name.
            PathKind::Plain => path.rsplit('/').next()?,
            _ => return None,
        };
        let root = self.host_root.as_ref()?;
        STATES.iter().find_map(|(technology, form)| {
            let file = form.replace("{}", id);
            root.join(&file).exists().then(|| RuntimeState {
                technology: (*technology).to_owned(),
                id: id.to_owned(),
                path: format!("/{file}"),
            })
        })
    }

    pub(super) fn log_names(&self, names: &PathNames) -> LogNames {
        if names.pod_uid.is_empty() {
            return LogNames::default();
        }
        self.logs.names(&names.container_id, &names.pod_uid)
    }
}

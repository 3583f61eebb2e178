//! Collects [`ProcessFacts`]: the only place that knows which files they come from.

use super::Identifier;
use crate::{
    host::{
        platform::Namespaces,
        proc::{ProcDir, ProcError, Stat},
    },
    stack::process::{ProcessFacts, base_name, is_monitor, is_tool, wasm_engine},
    workload::path::PathKind,
};

/// Whether an executable's name makes its file and its command line worth a look.
pub(super) fn says_something(exe: &str) -> bool {
    is_monitor(exe) || is_tool(exe) || wasm_engine(base_name(exe)).is_some()
}

impl Identifier {
    /// Facts about the process of this directory, whose `stat` was read just before.
    pub(super) fn process_facts(
        &self,
        dir: &ProcDir,
        pid: u32,
        stat: Stat,
    ) -> Result<ProcessFacts, ProcError> {
        let cgroup_path = self.cgroups.path_of(&dir.cgroups()?);
        let cgroup_id = self.cgroups.id_of(&cgroup_path);
        let group = self.group(&cgroup_path, cgroup_id);
        let status = dir.status()?;
        let init = &self.host.init_namespaces;
        let mut facts = ProcessFacts {
            pid,
            comm: stat.comm,
            exe: dir.exe().unwrap_or_default(),
            kernel_thread: stat.kernel_thread,
            cgroup_id,
            namespaces: Namespaces::read_with(dir, &status.ns_pids, init),
            uid: status.uid,
            no_new_privs: status.no_new_privs,
            seccomp_mode: status.seccomp_mode,
            seccomp_filters: status.seccomp_filters,
            runtime_state: group.runtime_state.clone(),
            log_names: group.log_names.clone(),
            cgroup_path,
            ..ProcessFacts::default()
        };
        facts.cgroup_maker = group.origin.maker;
        facts.unit_maker = group.origin.unit_maker;
        facts.foreign_ids.clone_from(&group.origin.foreign_ids);
        if matches!(group.names.kind, PathKind::Container | PathKind::Pod) {
            facts.kubelet_roots = self.kubelet_roots().to_owned();
        }
        if facts.kernel_thread || facts.exe.is_empty() {
            return Ok(facts);
        }
        if facts.has_own_users(&self.host) {
            facts.uid_map = dir.uid_map();
        }
        facts.libraries = dir.engine_libraries();
        // A name that says something is looked into: whose file it is, how it was called.
        if says_something(&facts.exe) {
            facts.exe_file = dir.exe_file(&facts.exe, self.host_root.as_deref());
            facts.cmdline = dir.cmdline().unwrap_or_default();
        }
        if is_monitor(&facts.exe) {
            facts.threads = dir.thread_names();
        }
        if is_monitor(&facts.exe) || facts.no_new_privs {
            facts.descriptors = dir.descriptors();
        }
        // Parents say something only about containers and sandboxes: the plain process, the
        // usual case, stays cheap.
        if group.names.kind == PathKind::Container
            || facts.runtime_state.is_some()
            || facts.has_own_mounts(&self.host)
            || is_monitor(&facts.exe)
            || is_tool(&facts.exe)
        {
            facts.ancestors = self.ancestors(stat.ppid, stat.start_ticks);
        }
        Ok(facts)
    }
}

//! Collects [`ProcessFacts`]: the only place that knows which files they come from.

use std::time::Instant;

use super::{CGROUP_LIFETIME, Identifier, NAMELESS_LIFETIME, PROCESS_LIFETIME};
use crate::{
    host::{
        platform::Namespaces,
        proc::{ProcDir, ProcError, Stat},
    },
    stack::process::{
        Ancestor, LogNames, ProcessFacts, RuntimeState, base_name, is_monitor, is_runtime, is_tool,
        levels, wasm_engine,
    },
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

/// Whether an executable's name makes its file and its command line worth a look.
fn says_something(exe: &str) -> bool {
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
        let names = PathNames::parse(&cgroup_path);
        let status = dir.status()?;
        let mut facts = ProcessFacts {
            pid,
            comm: stat.comm,
            exe: dir.exe().unwrap_or_default(),
            kernel_thread: stat.kernel_thread,
            cgroup_id: self.cgroups.id_of(&cgroup_path),
            namespaces: Namespaces::read(dir),
            uid: status.uid,
            no_new_privs: status.no_new_privs,
            seccomp_mode: status.seccomp_mode,
            seccomp_filters: status.seccomp_filters,
            runtime_state: self.runtime_state(&names, &cgroup_path),
            log_names: self.log_names(&names),
            cgroup_path,
            ..ProcessFacts::default()
        };
        if facts.kernel_thread || facts.exe.is_empty() {
            return Ok(facts);
        }
        self.maker_of_group(&mut facts);
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
        if names.kind == PathKind::Container
            || facts.runtime_state.is_some()
            || facts.has_own_mounts(&self.host)
            || is_monitor(&facts.exe)
            || is_tool(&facts.exe)
        {
            facts.ancestors = self.ancestors(stat.ppid);
        }
        Ok(facts)
    }

    /// Who made the outermost container's or pod's group, and whether its id is another's.
    pub(super) fn maker_of_group(&self, facts: &mut ProcessFacts) {
        let Some(outermost) = levels(&facts.cgroup_path).into_iter().next() else {
            return;
        };
        let parent = &facts.cgroup_path[..outermost.begin];
        facts.cgroup_maker = self.cgroups.owner_of(parent).unwrap_or(0);
        let id = &outermost.names.container_id;
        if facts.cgroup_maker != 0 && !id.is_empty() {
            let own = outermost.path(&facts.cgroup_path);
            facts.id_is_taken = self.id_is_taken(own, id);
        }
    }

    /// Whether a group elsewhere has this container id in its path. Asked only for groups
    /// that a user made, and remembered for a while.
    fn id_is_taken(&self, own: &str, id: &str) -> bool {
        let known = self.imitations.lock().get(&own.to_owned());
        if let Some((taken, at)) = known
            && at.elapsed() < CGROUP_LIFETIME
        {
            return taken;
        }
        let taken = self
            .cgroups
            .all()
            .iter()
            .any(|(_, path)| path.contains(id) && !path.starts_with(own));
        let entry = (taken, Instant::now());
        self.imitations.lock().insert(own.to_owned(), entry);
        taken
    }

    fn ancestors(&self, first: u32) -> Vec<Ancestor> {
        let mut ancestors = Vec::new();
        let mut pid = first;
        while pid > 1 && ancestors.len() < MAX_ANCESTORS {
            let dir = ProcDir::new(&self.roots, pid);
            let Ok(stat) = dir.stat() else { break };
            let ppid = stat.ppid;
            let key = stat.key(pid);
            let known = self.ancestors.lock().get(&key);
            let ancestor = match known {
                Some((ancestor, at)) if at.elapsed() < PROCESS_LIFETIME => ancestor,
                _ => {
                    let read = self.ancestor(pid, &dir);
                    let entry = (read.clone(), Instant::now());
                    self.ancestors.lock().insert(key, entry);
                    read
                }
            };
            ancestors.push(ancestor);
            pid = ppid;
        }
        ancestors
    }

    fn ancestor(&self, pid: u32, dir: &ProcDir) -> Ancestor {
        let exe = dir.exe().unwrap_or_default();
        let special = says_something(&exe) || is_runtime(base_name(&exe));
        Ancestor {
            pid,
            exe_file: special
                .then(|| dir.exe_file(&exe, self.host_root.as_deref()))
                .flatten(),
            cmdline: if special {
                dir.cmdline().unwrap_or_default()
            } else {
                Vec::new()
            },
            cgroup_path: dir
                .cgroups()
                .map(|lines| self.cgroups.path_of(&lines))
                .unwrap_or_default(),
            namespaces: Namespaces::read(dir),
            capabilities: dir.status().map_or(0, |s| s.effective_capabilities),
            exe,
        }
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
        let key = path.to_owned();
        // One that is missing may come: a runtime writes it while the first process starts.
        if let Some((state, at)) = self.states.lock().get(&key)
            && at.elapsed()
                < match &state {
                    Some(_) => PROCESS_LIFETIME,
                    None => NAMELESS_LIFETIME,
                }
        {
            return state;
        }
        let state = STATES.iter().find_map(|(technology, form)| {
            let file = form.replace("{}", id);
            root.join(&file).exists().then(|| RuntimeState {
                technology: (*technology).to_owned(),
                id: id.to_owned(),
                path: format!("/{file}"),
            })
        });
        let entry = (state.clone(), Instant::now());
        self.states.lock().insert(key, entry);
        state
    }

    pub(super) fn log_names(&self, names: &PathNames) -> LogNames {
        if names.pod_uid.is_empty() {
            return LogNames::default();
        }
        self.naming
            .logs()
            .names(&names.container_id, &names.pod_uid)
    }
}

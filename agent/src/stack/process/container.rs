//! Which container runtimes stand behind a process: from the cgroup path, the runtime's
//! state, and the parents (shims and monitors of the engines).

use super::{Ancestor, ProcessFacts, base_name, entry};
use crate::{
    host::platform::HostFacts,
    stack::StackEntry,
    vocabulary::Layer,
    workload::path::{PathKind, PathNames},
};

/// A technology and the fact that says so.
type Finding = (String, String);

/// Low-level runtimes by their executable.
const LOW_LEVEL: &[&str] = &["runc", "crun", "youki"];

/// The low-level runtime and the engine above it, as far as known.
#[derive(Debug, Default)]
pub(super) struct Runtimes {
    low_level: Option<Finding>,
    engine: Option<Finding>,
    /// A container by its cgroup path or its namespaces, of whatever runtime.
    unknown: Option<Finding>,
    id: Option<String>,
}

impl Runtimes {
    pub fn find(facts: &ProcessFacts, names: &PathNames, host: &HostFacts) -> Self {
        let by_path = names.kind == PathKind::Container;
        let cgroup = || match facts.pid {
            0 => format!("cgroup {}", facts.cgroup_path),
            pid => format!("/proc/{pid}/cgroup: {}", facts.cgroup_path),
        };
        let mut found = Self::default();
        if by_path && !names.engine.is_empty() {
            found.engine = Some((names.engine.to_owned(), cgroup()));
        }
        if let Some(state) = &facts.runtime_state {
            found.low_level = Some((state.technology.clone(), format!("state {}", state.path)));
            found.id = Some(state.id.clone());
        }
        let own_view = facts.has_own_view(host);
        if by_path || own_view || found.low_level.is_some() {
            for ancestor in &facts.ancestors {
                found.take(ancestor);
            }
        }
        if !by_path && found.low_level.is_none() && found.engine.is_none() {
            // Namespaces alone: a sandbox tool's are not a container's.
            let wrapped = facts.ancestors.iter().any(|a| base_name(&a.exe) == "bwrap");
            let sandbox = wrapped || matches!(facts.exe_name(), "bwrap" | "runsc");
            if own_view && !sandbox {
                let text = format!(
                    "/proc/{}/ns: own pid and mnt, not those of pid 1",
                    facts.pid
                );
                found.unknown = Some(("namespaces".to_owned(), text));
            }
        } else if by_path && found.low_level.is_none() && found.engine.is_none() {
            found.unknown = Some(("container".to_owned(), cgroup()));
        }
        found
    }

    /// What a parent says: `runc run ID`, a containerd shim, conmon.
    fn take(&mut self, ancestor: &Ancestor) {
        let Ancestor { pid, exe, cmdline } = ancestor;
        let name = base_name(exe);
        let after = |flag: &str| {
            let at = cmdline.iter().position(|arg| arg == flag)?;
            cmdline.get(at + 1)
        };
        let by = |exe: &str| format!("parent {exe} (pid {pid})");
        if LOW_LEVEL.contains(&name) {
            self.low_level
                .get_or_insert_with(|| (name.to_owned(), by(exe)));
            // `runc [global flags] run [flags] ID`: the id is the last word.
            if cmdline.iter().any(|arg| arg == "run" || arg == "create") {
                self.id = self.id.take().or_else(|| cmdline.last().cloned());
            }
        } else if let Some(shim) = name.strip_prefix("containerd-shim") {
            let docker = after("-namespace").is_some_and(|namespace| namespace == "moby");
            let engine = if docker { "docker" } else { "containerd" };
            self.engine
                .get_or_insert_with(|| (engine.to_owned(), by(exe)));
            if let Some(runtime) = LOW_LEVEL
                .iter()
                .find(|r| shim.strip_prefix('-').is_some_and(|s| s.starts_with(*r)))
            {
                self.low_level
                    .get_or_insert_with(|| ((*runtime).to_owned(), by(exe)));
            }
        } else if name == "conmon"
            && let Some(runtime) = after("-r").or_else(|| after("--runtime"))
            && LOW_LEVEL.contains(&base_name(runtime))
        {
            self.low_level.get_or_insert_with(|| {
                let text = format!("{} -r {runtime}", by(exe));
                (base_name(runtime).to_owned(), text)
            });
        }
    }

    pub fn is_container(&self) -> bool {
        self.low_level.is_some() || self.engine.is_some() || self.unknown.is_some()
    }

    pub fn entries(&self) -> impl Iterator<Item = StackEntry> {
        [&self.low_level, &self.engine, &self.unknown]
            .into_iter()
            .flatten()
            .map(|(technology, evidence)| entry(Layer::Container, technology, evidence.clone()))
    }

    /// The engine, else the low-level runtime; empty when neither is known.
    pub fn name(&self) -> &str {
        let known = self.engine.as_ref().or(self.low_level.as_ref());
        known.map_or("", |(technology, _)| technology)
    }

    /// The id that a low-level runtime gave.
    pub fn container_id(&self) -> Option<&str> {
        self.id.as_deref()
    }
}

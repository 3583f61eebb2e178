//! L-3: which container runtimes stand behind a process, from its cgroup path, the runtime's
//! state, and the parents outside of the container (shims and monitors of the engines).

use super::{Ancestor, Place, ProcessFacts, base_name, differ, entry};
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

/// Machine containers' monitors by their executable, where the path says only `lxc`.
const MACHINE_ENGINES: &[(&str, &str)] = &[
    ("incusd", "incus"),
    ("lxd", "lxd"),
    ("lxc-start", "lxc"),
    ("lxc-execute", "lxc"),
];

/// Executables whose command line and file are looked at in a parent.
#[must_use]
pub fn is_runtime(exe_name: &str) -> bool {
    LOW_LEVEL.contains(&exe_name)
        || MACHINE_ENGINES.iter().any(|(name, _)| *name == exe_name)
        || matches!(exe_name, "conmon" | "conmonrs" | "systemd-nspawn" | "runsc")
        || exe_name.starts_with("containerd-shim")
}

/// The containers around a process.
#[derive(Debug, Default)]
pub(super) struct Runtimes {
    /// Innermost first.
    levels: Vec<Runtime>,
}

/// The low-level runtime and the engine above it, as far as known.
#[derive(Debug, Default)]
struct Runtime {
    low_level: Option<Finding>,
    engine: Option<Finding>,
    /// A container by its cgroup path or its namespaces, of whatever runtime.
    unknown: Option<Finding>,
    id: Option<String>,
    /// Its names are believed.
    believed: bool,
}

impl Runtimes {
    pub fn find(facts: &ProcessFacts, place: &Place<'_>, host: &HostFacts) -> Self {
        let mut levels = Vec::new();
        for (index, level) in place.levels().iter().enumerate().rev() {
            if level.names.kind != PathKind::Container {
                continue;
            }
            let believed = index < place.believed();
            if !believed && !is_a_boundary(facts, place, index, host) {
                continue;
            }
            let innermost = index + 1 == place.levels().len();
            let mut runtime = Runtime::by_path(facts, place, index);
            if let Some(state) = facts
                .runtime_state
                .as_ref()
                .filter(|_| innermost && believed)
            {
                runtime.take_state(state);
            }
            // What is not believed may be shown, but not by the names that it gives itself.
            for maker in place.makers(index).filter(|_| believed) {
                runtime.take(maker, host);
            }
            runtime.finish(
                facts,
                level.path(&facts.cgroup_path),
                place.doubt().filter(|_| !believed),
            );
            levels.push(runtime);
        }
        if levels.is_empty() {
            levels.extend(Runtime::by_view(facts, place, host));
        }
        let mut found = Self { levels };
        found.say_whose_users(facts, host);
        found
    }

    /// Root inside that is somebody else outside: said with the innermost container.
    fn say_whose_users(&mut self, facts: &ProcessFacts, host: &HostFacts) {
        if !facts.has_own_users(host) {
            return;
        }
        let map: Vec<&str> = facts.uid_map.split_whitespace().collect();
        let text = match map[..] {
            ["0", "0", _] => "; own user namespace".to_owned(),
            ["0", outside, _] => format!("; uid 0 inside is uid {outside} outside"),
            _ => "; own user namespace".to_owned(),
        };
        let runtime = self.levels.first_mut();
        let finding = runtime.and_then(|r| {
            let Runtime {
                low_level,
                engine,
                unknown,
                ..
            } = r;
            [low_level, engine, unknown].into_iter().flatten().next()
        });
        if let Some((_, evidence)) = finding {
            evidence.push_str(&text);
        }
    }

    pub fn is_container(&self) -> bool {
        !self.levels.is_empty()
    }

    pub fn entries(&self) -> impl Iterator<Item = StackEntry> {
        self.levels
            .iter()
            .flat_map(|r| [&r.low_level, &r.engine, &r.unknown].into_iter().flatten())
            .map(|(technology, evidence)| entry(Layer::Container, technology, evidence.clone()))
    }

    /// Engine, else low-level runtime of the innermost container that is believed; empty
    /// when neither is known.
    pub fn name(&self) -> &str {
        let believed = self.levels.iter().find(|r| r.believed);
        let known = believed.and_then(|r| r.engine.as_ref().or(r.low_level.as_ref()));
        known.map_or("", |(technology, _)| technology)
    }

    /// The id that a low-level runtime gave.
    pub fn container_id(&self) -> Option<&str> {
        self.levels.iter().find(|r| r.believed)?.id.as_deref()
    }
}

impl Runtime {
    fn by_path(facts: &ProcessFacts, place: &Place<'_>, index: usize) -> Self {
        let level = &place.levels()[index];
        let path = level.path(&facts.cgroup_path);
        let believed = index < place.believed();
        let engine = match level.names.engine {
            "" => None,
            _ if !believed => None,
            engine => Some((engine.to_owned(), by_cgroup(facts, path))),
        };
        Self {
            engine,
            believed,
            ..Self::default()
        }
    }

    /// No path says container: its state, or namespaces of its own, do.
    fn by_view(facts: &ProcessFacts, place: &Place<'_>, host: &HostFacts) -> Option<Self> {
        let names = PathNames::parse(&facts.cgroup_path);
        let application = [("app-flatpak-", "flatpak"), ("snap.", "snap")]
            .iter()
            .find(|(prefix, _)| {
                base_name(&names.unit).starts_with(prefix) && facts.has_own_mounts(host)
            })
            .map(|(_, technology)| *technology);
        let own_view = facts.has_own_view(host) || application.is_some();
        let mut runtime = Self {
            believed: true,
            ..Self::default()
        };
        // A state is found by the name in the path, and counts no more than that.
        let state = facts.runtime_state.as_ref();
        if let Some(state) = state.filter(|_| place.doubt().is_none()) {
            runtime.take_state(state);
        } else if !own_view || super::machine::monitor_of(facts).is_some() {
            // A machine's monitor is jailed by its own tools, not contained.
            return None;
        }
        // What confined it is among the parents that are not confined with it.
        let outside = facts.ancestors.iter().filter(|ancestor| {
            ancestor.namespaces.mnt.is_none()
                || differ(ancestor.namespaces.mnt, facts.namespaces.mnt)
                    && ancestor.is_what_it_is_called()
        });
        for ancestor in outside {
            runtime.take(ancestor, host);
        }
        if let Some(technology) = application {
            let text = by_cgroup(facts, &facts.cgroup_path);
            runtime.engine = Some((technology.to_owned(), text));
        }
        if runtime.low_level.is_none() && runtime.engine.is_none() {
            // Namespaces alone: a sandbox tool's are not a container's.
            let own = super::sandbox::wrapper(facts.exe_name()).is_some();
            let wrapped = own || super::sandbox::find_wrapper(facts, host).is_some();
            if wrapped || facts.exe_name() == "runsc" || super::sandbox::is_browser(facts) {
                return None;
            }
            let text = format!(
                "/proc/{}/ns: own pid and mnt, not those of pid 1",
                facts.pid
            );
            runtime.unknown = Some(("namespaces".to_owned(), text));
        }
        Some(runtime)
    }

    fn finish(&mut self, facts: &ProcessFacts, path: &str, doubt: Option<&str>) {
        if self.low_level.is_none() && self.engine.is_none() {
            self.unknown = Some(("container".to_owned(), by_cgroup(facts, path)));
        }
        if let Some(doubt) = doubt {
            for (_, evidence) in [&mut self.low_level, &mut self.engine, &mut self.unknown]
                .into_iter()
                .flatten()
            {
                evidence.push_str("; names not believed: ");
                evidence.push_str(doubt);
            }
        }
    }

    fn take_state(&mut self, state: &super::RuntimeState) {
        self.low_level = Some((state.technology.clone(), format!("state {}", state.path)));
        self.id = Some(state.id.clone());
    }

    /// What a parent says: `runc run ID`, a containerd shim, conmon.
    fn take(&mut self, ancestor: &Ancestor, host: &HostFacts) {
        if !ancestor.is_what_it_is_called() {
            return;
        }
        let Ancestor {
            pid, exe, cmdline, ..
        } = ancestor;
        let name = base_name(exe);
        let after = |flag: &str| {
            let at = cmdline.iter().position(|arg| arg == flag)?;
            cmdline.get(at + 1)
        };
        let by = |exe: &str| format!("parent {exe} (pid {pid})");
        if LOW_LEVEL.contains(&name) {
            self.low_level
                .get_or_insert_with(|| (name.to_owned(), by(exe)));
            // `runc [global flags] run [flags] ID`: the id is the last word. Anybody can call
            // the host's own runtime with any id; it is a name where root does.
            let starts = cmdline.iter().any(|arg| arg == "run" || arg == "create");
            if starts && ancestor.rules_the_host(host) {
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
        } else if name == "systemd-nspawn" {
            self.engine
                .get_or_insert_with(|| ("nspawn".to_owned(), by(exe)));
        } else if let Some((_, engine)) = MACHINE_ENGINES.iter().find(|(exe, _)| *exe == name)
            && self.engine.as_ref().is_none_or(|(known, _)| known == "lxc")
        {
            self.engine = Some(((*engine).to_owned(), by(exe)));
        }
    }
}

/// Whether a level whose names are not believed is a boundary all the same: the process has
/// other mounts than those who could have made it.
fn is_a_boundary(facts: &ProcessFacts, place: &Place<'_>, index: usize, host: &HostFacts) -> bool {
    let mut makers = place.makers(index).peekable();
    if makers.peek().is_none() {
        return facts.has_own_view(host);
    }
    facts.has_own_mounts(host)
        && makers.all(|maker| differ(maker.namespaces.mnt, facts.namespaces.mnt))
}

fn by_cgroup(facts: &ProcessFacts, path: &str) -> String {
    match facts.pid {
        0 => format!("cgroup {path}"),
        pid => format!("/proc/{pid}/cgroup: {path}"),
    }
}

//! L-4: what stands in for a process's kernel, filters its system calls, or takes its view
//! away.

use super::{Ancestor, ProcessFacts, base_name, differ, entry, machine};
use crate::{host::platform::HostFacts, stack::StackEntry, vocabulary::Layer};

/// Programs that confine what they start, and what they are called.
const WRAPPERS: &[(&str, &str)] = &[
    ("bwrap", "bubblewrap"),
    ("firejail", "firejail"),
    ("nsjail", "nsjail"),
    ("minijail0", "minijail"),
];

/// Browsers with Chrome's sandbox.
const BROWSERS: &[&str] = &[
    "chrome",
    "chromium",
    "chromium-browser",
    "msedge",
    "brave",
    "opera",
    "vivaldi-bin",
    "electron",
];

/// The technology of a program that confines what it starts.
#[must_use]
pub fn wrapper(exe_name: &str) -> Option<&'static str> {
    let found = WRAPPERS.iter().find(|(name, _)| *name == exe_name);
    found.map(|(_, technology)| *technology)
}

/// Whether it is a browser's process by name.
#[must_use]
pub fn is_browser(facts: &ProcessFacts) -> bool {
    BROWSERS.contains(&facts.exe_name())
}

/// Whether its own command line is needed to say what kind of sandbox it is.
#[must_use]
pub fn reads_cmdline(exe_name: &str) -> bool {
    exe_name == "runsc" || BROWSERS.contains(&exe_name) || exe_name == "virtiofsd"
}

/// L-4, nearest to the process first.
pub(super) fn sandboxes(
    facts: &ProcessFacts,
    host: &HostFacts,
    in_container: bool,
) -> Vec<StackEntry> {
    let mut found = Vec::new();
    if let Some(text) = gvisor(facts) {
        return vec![entry(Layer::Sandbox, "gvisor", text)];
    }
    found.extend(machine::sandbox(facts));
    let is_machine = !found.is_empty() || machine::monitor_of(facts).is_some();
    found.extend(chrome(facts, host));
    let wrapped = find_wrapper(facts, host);
    if let Some((technology, text)) = &wrapped {
        found.push(entry(Layer::Sandbox, technology, text.clone()));
    }
    if facts.descriptors.landlock {
        let text = format!("/proc/{}/fd: anon_inode:[landlock-ruleset]", facts.pid);
        found.push(entry(Layer::Sandbox, "landlock", text));
    }
    // The filter of a container is the container's (L-3), that of a machine monitor guards
    // the host from it.
    let explained = found.iter().any(|e| e.technology == "chrome-sandbox");
    if !in_container && !is_machine && !explained {
        found.extend(seccomp(facts, Layer::Sandbox));
    }
    if !in_container && !is_machine && !explained && wrapped.is_none() && facts.has_own_users(host)
    {
        let text = format!(
            "/proc/{}/ns/user: own; uid_map {:?}",
            facts.pid, facts.uid_map
        );
        found.push(entry(Layer::Sandbox, "user-namespace", text));
    }
    found
}

/// The filter or strict mode that its system calls go through.
pub(super) fn seccomp(facts: &ProcessFacts, layer: Layer) -> Option<StackEntry> {
    let mode = match facts.seccomp_mode {
        1 => "1 (strict)",
        2 => "2 (filter)",
        _ => return None,
    };
    let count = match facts.seccomp_filters {
        0 => String::new(),
        1 => ", 1 filter".to_owned(),
        n => format!(", {n} filters"),
    };
    let text = format!("/proc/{}/status: Seccomp {mode}{count}", facts.pid);
    Some(entry(layer, "seccomp", text))
}

/// A process of gVisor: the sentry (the kernel in its place), the gofer (its files), or one
/// that runs the sandboxed program's own code.
fn gvisor(facts: &ProcessFacts) -> Option<String> {
    if facts.exe_name() != "runsc" || !facts.exe_is_roots() {
        return None;
    }
    // A container can bring a program of that name along, but not the host's own, and not a
    // parent outside that is runsc.
    let of_gvisor = |a: &Ancestor| {
        let name = a.exe_name();
        name == "runsc" || name.starts_with("containerd-shim-runsc")
    };
    let raised = facts
        .ancestors
        .iter()
        .any(|a| of_gvisor(a) && a.is_what_it_is_called() && a.cgroup_path != facts.cgroup_path);
    let hosts = facts
        .exe_file
        .is_none_or(|file| file.on_host.unwrap_or(raised));
    if !hosts && !raised {
        return None;
    }
    let has = |word: &str| facts.cmdline.iter().any(|arg| arg == word);
    let first = facts.cmdline.first().map_or("", |arg| &**arg);
    // The command itself: it starts and waits, and is no sandbox.
    if first.ends_with("runsc")
        && ["run", "create", "start", "wait", "exec"]
            .iter()
            .any(|w| has(w))
        && facts.seccomp_mode == 0
    {
        return None;
    }
    let role = if first == "runsc-sandbox" || has("boot") {
        "sentry"
    } else if first == "runsc-gofer" || has("gofer") {
        "gofer"
    } else {
        "runs the sandboxed program under the sentry"
    };
    let sentry = std::iter::once(&facts.cmdline)
        .chain(
            facts
                .ancestors
                .iter()
                .filter(|a| of_gvisor(a))
                .map(|a| &a.cmdline),
        )
        .find_map(|cmdline| platform(cmdline));
    let mut text = format!("exe {}: {role}", facts.exe);
    if let Some(platform) = sentry {
        text.push_str(&format!(", platform {platform}"));
    }
    let mut parents = facts.ancestors.iter().filter(|a| a.exe_name() == "runsc");
    let id = served(&facts.cmdline).or_else(|| parents.find_map(|a| served(&a.cmdline)));
    if let Some(id) = id {
        text.push_str(&format!(", container {id}"));
    }
    Some(text)
}

fn platform(cmdline: &[String]) -> Option<&str> {
    cmdline
        .iter()
        .find_map(|arg| arg.strip_prefix("--platform="))
}

/// The container that a process of gVisor serves, by the command line that root gave to it or
/// to a runsc above it: anybody can call the host's own runsc with any id.
pub(super) fn served_by_gvisor<'a>(facts: &'a ProcessFacts, host: &HostFacts) -> Option<&'a str> {
    gvisor(facts)?;
    let is_roots = facts.uid == 0 && facts.uid_map.is_empty();
    let own = is_roots.then_some(&facts.cmdline);
    let parents = facts
        .ancestors
        .iter()
        .filter(|a| a.exe_name() == "runsc" && a.is_what_it_is_called() && a.rules_the_host(host));
    let mut called = own.into_iter().chain(parents.map(|a| &a.cmdline));
    called.find_map(|cmdline| served(cmdline))
}

/// The container that a command line of runsc is about: its last word.
fn served(cmdline: &[String]) -> Option<&str> {
    let starts = |arg: &String| matches!(&**arg, "boot" | "run" | "create");
    let id = cmdline.last().filter(|_| cmdline.iter().any(starts))?;
    (!id.starts_with('-')).then_some(id)
}

/// Chrome's renderers and helpers: a filter and namespaces of their own.
fn chrome(facts: &ProcessFacts, host: &HostFacts) -> Option<StackEntry> {
    if !is_browser(facts) || facts.seccomp_mode != 2 || !facts.exe_is_roots() {
        return None;
    }
    let pid = facts.namespaces.pid;
    let own_pids = differ(pid, host.init_namespaces.pid);
    let kind = facts
        .cmdline
        .iter()
        .flat_map(|arg| arg.split(' '))
        .find_map(|a| a.strip_prefix("--type="));
    let kind = kind?;
    let filters = facts.seccomp_filters;
    let mut text = format!(
        "exe {}, --type={kind}, Seccomp 2 ({filters} filters)",
        facts.exe
    );
    if own_pids || facts.has_own_users(host) {
        text.push_str(", own namespaces");
    }
    Some(entry(Layer::Sandbox, "chrome-sandbox", text))
}

/// The program that made the mounts a process sees, where it is a sandbox tool: an ancestor
/// (or the process, before it starts another) with that name, and a boundary of mounts
/// between the process and whoever started the tool.
pub(super) fn find_wrapper(
    facts: &ProcessFacts,
    host: &HostFacts,
) -> Option<(&'static str, String)> {
    let own = Ancestor {
        pid: facts.pid,
        exe: facts.exe.clone(),
        exe_file: facts.exe_file,
        namespaces: facts.namespaces,
        ..Ancestor::default()
    };
    let chain: Vec<&Ancestor> = facts.ancestors.iter().collect();
    let all = || std::iter::once(&own).chain(chain.iter().copied());
    let (at, tool) = all()
        .enumerate()
        .find(|(_, a)| wrapper(a.exe_name()).is_some() && a.is_what_it_is_called())?;
    let technology = wrapper(tool.exe_name())?;
    // The outermost process of the tool is as free as who called it.
    let outside = all()
        .skip(at)
        .filter(|a| wrapper(a.exe_name()) == Some(technology))
        .last()
        .map(|outermost| outermost.namespaces.mnt)
        .filter(|mnt| mnt.is_some())
        .unwrap_or(host.init_namespaces.mnt);
    if !differ(facts.namespaces.mnt, outside) {
        return None;
    }
    let own_pids = differ(facts.namespaces.pid, host.init_namespaces.pid);
    let what = if own_pids {
        "own pid and mount namespaces"
    } else {
        "own mount namespace"
    };
    let text = format!("{what} made by {} (pid {})", tool.exe, tool.pid);
    Some((technology, text))
}

/// Whether the process at a path is one that a name alone would make special.
#[must_use]
pub fn is_tool(exe: &str) -> bool {
    let name = base_name(exe);
    wrapper(name).is_some() || reads_cmdline(name)
}

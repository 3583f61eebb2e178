//! The parents of a process. Shims, monitors and shells stand behind many processes each, and
//! so what is known of one is kept.

use std::time::Instant;

use super::{Identifier, known::PROCESS_LIFETIME, read::says_something};
use crate::{
    host::{
        platform::Namespaces,
        proc::{ProcDir, Stat},
    },
    stack::process::{Ancestor, base_name, is_runtime},
    time::ticks_since_boot,
};

/// Parents looked at.
const MAX_ANCESTORS: usize = 16;

/// A parent of somebody.
#[derive(Clone, Debug)]
pub(super) struct Parent {
    ancestor: Ancestor,
    start_ticks: u64,
    ppid: u32,
    /// When it was looked at.
    at: Instant,
    /// When it was there still.
    at_ticks: u64,
}

impl Parent {
    /// Whether it is the parent, known by its pid, of a process that started then. It is if it
    /// had that pid when the child started: it was there before and was seen after. Parents,
    /// also adopted ones, are older than their children, so that nobody else can have had the
    /// pid then and be the parent now.
    fn is_of_child(&self, start_ticks: u64) -> bool {
        self.start_ticks <= start_ticks && start_ticks < self.at_ticks
    }
}

impl Identifier {
    /// The parents of a process with this `stat`, nearest first.
    pub(super) fn ancestors(&self, ppid: u32, start_ticks: u64) -> Vec<Ancestor> {
        let mut ancestors = Vec::new();
        let (mut pid, mut child_ticks) = (ppid, start_ticks);
        while pid > 1 && ancestors.len() < MAX_ANCESTORS {
            let Some(parent) = self.parent(pid, child_ticks) else {
                break;
            };
            ancestors.push(parent.ancestor);
            (pid, child_ticks) = (parent.ppid, parent.start_ticks);
        }
        ancestors
    }

    fn parent(&self, pid: u32, child_ticks: u64) -> Option<Parent> {
        let known = self.parents.lock().get(&pid);
        let known = known.filter(|known| known.at.elapsed() < PROCESS_LIFETIME);
        if let Some(known) = &known
            && known.is_of_child(child_ticks)
        {
            return Some(known.clone());
        }
        let (at, at_ticks) = (Instant::now(), ticks_since_boot());
        let dir = ProcDir::hold(&self.roots, pid).ok()?;
        let stat = dir.stat().ok()?;
        let (ancestor, at) = match known {
            Some(known) if known.start_ticks == stat.start_ticks => (known.ancestor, known.at),
            _ => (self.ancestor(pid, &dir), at),
        };
        let Stat {
            ppid, start_ticks, ..
        } = stat;
        let parent = Parent {
            ancestor,
            start_ticks,
            ppid,
            at,
            at_ticks,
        };
        self.parents.lock().insert(pid, parent.clone());
        Some(parent)
    }

    fn ancestor(&self, pid: u32, dir: &ProcDir) -> Ancestor {
        let exe = dir.exe().unwrap_or_default();
        let special = says_something(&exe) || is_runtime(base_name(&exe));
        let status = dir.status().unwrap_or_default();
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
            namespaces: Namespaces::read_with(dir, &status.ns_pids, &self.host.init_namespaces),
            capabilities: status.effective_capabilities,
            exe,
        }
    }
}

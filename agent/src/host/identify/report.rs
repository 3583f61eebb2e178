//! The documents of the `stack` command.

use super::Identifier;
use crate::{
    host::proc::{self, ProcDir},
    stack::report::{HostReport, ProcessReport},
};

impl Identifier {
    /// The document of `stack` without arguments.
    #[must_use]
    pub fn host_report(&self) -> HostReport {
        HostReport {
            host: self.host_stack.0.clone(),
            workloads: None,
        }
    }

    /// The document of `stack --all`: one entry for each cgroup that holds processes, its
    /// lowest pid standing for it; in the root cgroup one for each process name.
    #[must_use]
    pub fn all_report(&self) -> HostReport {
        let mut pids = proc::pids(&self.roots);
        pids.sort_unstable();
        let mut seen = std::collections::HashSet::new();
        let workloads = pids
            .into_iter()
            .filter_map(|pid| {
                let dir = ProcDir::hold(&self.roots, pid).ok()?;
                let stat = dir.stat().ok()?;
                // Kernel threads are the host itself.
                let is_program = !stat.kernel_thread;
                is_program.then(|| self.examine(&dir, pid, stat).ok())?
            })
            .filter(|identity| {
                let name = match &*identity.cgroup_path {
                    "/" => identity.comm.clone(),
                    _ => String::new(),
                };
                seen.insert((identity.cgroup_path.clone(), name))
            })
            .map(|identity| ProcessReport::from(&identity))
            .collect();
        HostReport {
            host: self.host_stack.0.clone(),
            workloads: Some(workloads),
        }
    }
}

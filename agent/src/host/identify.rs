//! Finds and caches the identity of processes and the workload of cgroups.

mod ancestors;
pub(crate) mod cache;
mod changes;
mod group;
mod known;
mod origin;
mod read;
mod report;
mod runtime_state;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Instant};

use parking_lot::Mutex;

use self::{
    ancestors::Parent,
    cache::Generations,
    changes::Changes,
    group::Group,
    known::{FIRST_LIFETIME, Known},
    origin::Doubtful,
};
use crate::{
    event::{Limiter, MemoryLimit},
    host::{
        cgroup::Cgroups,
        naming::Naming,
        platform::{HostFacts, host_root},
        proc::{ProcDir, ProcError, Stat},
        roots::Roots,
    },
    metrics::AgentMetrics,
    process::{Identity, ProcessKey, SharedIdentity},
    stack::{
        Stack,
        host::host_stack,
        overrides::Overrides,
        process::{Inference, ProcessFacts, base_name, is_runtime, wrapper},
        record::Record,
    },
    vocabulary::Layer,
    workload::Workload,
};

/// Identities kept; twice as many for a moment, when a generation ends.
const MAX_PROCESSES: usize = 16_384;
/// Workloads of cgroups kept.
const MAX_CGROUPS: usize = 16_384;
/// Parents kept: shims and monitors, each of which stands behind many processes.
const MAX_PARENTS: usize = 4096;
/// Processes of one group looked at for one that stands for it.
const MAX_INHABITANTS: usize = 16;
/// Facts about groups kept.
const MAX_GROUPS: usize = 4096;

/// Who is behind a pid or a cgroup. Thread-safe; every answer is cached and bounded.
#[derive(Debug)]
pub struct Identifier {
    roots: Roots,
    host: HostFacts,
    host_stack: Stack,
    host_root: Option<std::path::PathBuf>,
    cgroups: Cgroups,
    naming: Naming,
    metrics: AgentMetrics,
    overrides: Overrides,
    processes: Mutex<Generations<ProcessKey, Known<SharedIdentity>>>,
    inhabitants: Mutex<Generations<u64, Known<Inhabitant>>>,
    /// By pid.
    parents: Mutex<Generations<u32, Parent>>,
    /// By path.
    groups: Mutex<Generations<String, Arc<Group>>>,
    doubtful: Doubtful,
    changes: Changes,
}

/// What was so when a look began: what changes during it is not in what it finds.
#[derive(Clone, Copy, Debug)]
struct Look {
    epoch: u64,
    /// Of the directory of names.
    version: u64,
}

/// Who lives in a cgroup.
#[derive(Clone, Debug, PartialEq)]
struct Inhabitant {
    path: Arc<str>,
    stack: Stack,
    workload: Workload,
}

impl Identifier {
    /// Reads the host's facts.
    #[must_use]
    pub fn new(roots: Roots, metrics: AgentMetrics) -> Self {
        let host = HostFacts::read(&roots);
        let host_root = host_root(&roots, &host);
        Self {
            host_stack: host_stack(&host),
            cgroups: Cgroups::new(&roots).counting(metrics.cgroups_left_out.clone()),
            naming: Naming::new(host_root.clone()),
            processes: Mutex::new(Generations::new(MAX_PROCESSES)),
            inhabitants: Mutex::new(Generations::new(MAX_CGROUPS)),
            parents: Mutex::new(Generations::new(MAX_PARENTS)),
            groups: Mutex::new(Generations::new(MAX_GROUPS)),
            doubtful: Doubtful::default(),
            changes: Changes::default(),
            host_root,
            roots,
            host,
            metrics,
            overrides: Overrides::default(),
        }
    }

    /// The same, where a person disagrees with what is inferred.
    #[must_use]
    pub fn with_overrides(mut self, overrides: Overrides) -> Self {
        self.host_stack = overrides.host(host_stack(&self.host));
        self.overrides = overrides;
        self
    }

    /// Where facts are read.
    #[must_use]
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// What the host's stack was inferred from.
    #[must_use]
    pub fn host_facts(&self) -> &HostFacts {
        &self.host
    }

    /// The layers below every process on this host.
    #[must_use]
    pub fn host_stack(&self) -> &Stack {
        &self.host_stack
    }

    /// The cgroups of this host.
    #[must_use]
    pub fn cgroups(&self) -> &Cgroups {
        &self.cgroups
    }

    /// Who is called what.
    #[must_use]
    pub fn naming(&self) -> &Naming {
        &self.naming
    }

    /// What the process of these facts runs inside and is called.
    fn infer(&self, facts: &ProcessFacts) -> (Stack, Workload) {
        let inference = Inference::of(facts, &self.host);
        // A person's word counts more.
        let mut stack = self.overrides.process(facts, inference.stack());
        stack.0.extend(self.host_stack.0.iter().cloned());
        let workload = self.renamed(inference.workload(), &facts.cgroup_path);
        (stack, workload)
    }

    fn renamed(&self, mut workload: Workload, path: &str) -> Workload {
        self.naming.complete(&mut workload, path);
        workload
    }

    /// Of a process that is known, with the names that came since: those of a container come
    /// a while after its start, and may come after its end.
    fn with_late_names(&self, mut known: Known<SharedIdentity>) -> SharedIdentity {
        let version = self.naming.directory().version();
        if known.version == version || !known.found.workload.may_be_a_pods() {
            return known.found;
        }
        let workload = self.renamed(known.found.workload.clone(), &known.found.cgroup_path);
        if workload != known.found.workload {
            known.found = Arc::new(Identity {
                workload,
                ..(*known.found).clone()
            });
        }
        let mut processes = self.processes.lock();
        if let Some(kept) = processes.get_mut(&known.found.process) {
            kept.found = known.found.clone();
            kept.version = version;
        }
        known.found
    }

    /// Key and identity of the process that has this pid now.
    #[must_use]
    pub fn identify(&self, pid: u32) -> Option<SharedIdentity> {
        let key = ProcDir::new(&self.roots, pid).key().ok()?;
        self.identify_key(key)
    }

    /// The identity of this very process: from the cache even when it is gone, never that
    /// of another one with the same pid.
    #[must_use]
    pub fn identify_key(&self, key: ProcessKey) -> Option<SharedIdentity> {
        let known = self.processes.lock().get(&key);
        if let Some(known) = &known
            && known.is_fresh(self.changes.of_process(), &known.found.workload)
        {
            return Some(self.with_late_names(known.clone()));
        }
        let look = self.begin_look(key);
        match self.look_up(key.pid, Some(key)) {
            Ok(identity) => {
                let (identity, confirmed) = match known {
                    Some(known) if *known.found == identity => {
                        (known.found, known.confirmed.saturating_add(1))
                    }
                    _ => (Arc::new(identity), 0),
                };
                self.remember(&identity, confirmed, look);
                Some(identity)
            }
            // Gone: what was known of it stays true of its past.
            Err(_) => known.map(|known| self.with_late_names(known)),
        }
    }

    /// What is known of this very process, without a look.
    #[must_use]
    pub fn known(&self, key: ProcessKey) -> Option<SharedIdentity> {
        Some(self.processes.lock().get(&key)?.found)
    }

    /// As [`Identifier::identify_key`] with the reason of a failure; for `stack PID`.
    ///
    /// # Errors
    /// There is no such process or it cannot be read.
    pub fn look_up_pid(&self, pid: u32) -> Result<SharedIdentity, ProcError> {
        Ok(Arc::new(self.look_up(pid, None)?))
    }

    /// Who is behind a kernel event: the process, or when it went away before it was ever
    /// looked at, what its cgroup says.
    #[must_use]
    pub fn identify_event(&self, key: ProcessKey, cgroup_id: u64) -> Option<SharedIdentity> {
        let known = self.processes.lock().get(&key);
        if let Some(known) = known {
            let identity = &known.found;
            let moved =
                cgroup_id != 0 && identity.cgroup_id != 0 && identity.cgroup_id != cgroup_id;
            // Threads of one process may sit in several groups: not a look-up for each event.
            let mut trust = self.changes.of_process();
            if moved {
                trust.at_most = FIRST_LIFETIME;
            }
            if known.is_fresh(trust, &identity.workload) {
                return Some(self.with_late_names(known));
            }
            if moved {
                self.processes.lock().remove(&key);
            }
        }
        if let Some(identity) = self.identify_key(key) {
            return Some(identity);
        }
        let look = self.look();
        let inhabitant = self.inhabitant(cgroup_id)?;
        let identity = Arc::new(Identity {
            process: key,
            comm: String::new(),
            cgroup_id,
            cgroup_path: inhabitant.path.to_string(),
            workload: inhabitant.workload,
            stack: inhabitant.stack,
        });
        self.remember(&identity, 0, look);
        Some(identity)
    }

    /// The workload that a cgroup belongs to, without any process name; default with only
    /// the id when the cgroup was never seen.
    #[must_use]
    pub fn workload_of_cgroup(&self, cgroup_id: u64) -> Workload {
        self.inhabitant_of_cgroup(cgroup_id).map_or_else(
            || Workload {
                cgroup_id,
                ..Workload::default()
            },
            |(_, workload)| workload,
        )
    }

    /// Who lives in a cgroup, and on which layer: that of the process that stands for the
    /// group, so that the metrics of a group say the same as the spans from it. `None` when
    /// the cgroup was never seen.
    #[must_use]
    pub fn inhabitant_of_cgroup(&self, cgroup_id: u64) -> Option<(Layer, Workload)> {
        let inhabitant = self.inhabitant(cgroup_id)?;
        Some((inhabitant.stack.layer(), inhabitant.workload))
    }

    /// The layers around who lives in a cgroup; empty when it was never seen.
    #[must_use]
    pub fn stack_of_cgroup(&self, cgroup_id: u64) -> Stack {
        let inhabitant = self.inhabitant(cgroup_id);
        inhabitant.map_or_else(Stack::default, |inhabitant| inhabitant.stack)
    }

    fn inhabitant(&self, cgroup_id: u64) -> Option<Inhabitant> {
        let known = self.inhabitants.lock().get(&cgroup_id);
        let path = self.cgroups.path_by_id(cgroup_id)?;
        // Another path is another group that was given the id of one that is gone.
        let known = known.filter(|known| known.found.path == path);
        let version = self.naming.directory().version();
        let trust = self.changes.of_group();
        let inhabitant = match known {
            Some(mut known) if known.is_fresh(trust, &known.found.workload) => {
                if known.version == version || !known.found.workload.may_be_a_pods() {
                    return Some(known.found);
                }
                known.found.workload = self.renamed(known.found.workload, &path);
                Known { version, ..known }
            }
            known => {
                let epoch = self.changes.epoch();
                let before = known.as_ref().map(|known| known.found.clone());
                let found = self.look_up_cgroup(cgroup_id, path, before);
                let confirmed = known
                    .filter(|known| known.found == found)
                    .map_or(0, |known| known.confirmed.saturating_add(1));
                Known {
                    found,
                    at: Instant::now(),
                    version,
                    confirmed,
                    epoch: Some(epoch),
                }
            }
        };
        let found = inhabitant.found.clone();
        self.inhabitants.lock().insert(cgroup_id, inhabitant);
        Some(found)
    }

    fn look_up_cgroup(&self, id: u64, path: Arc<str>, known: Option<Inhabitant>) -> Inhabitant {
        let facts = self.cgroup_facts(id, &path);
        match known {
            // A group that is gone or empty has no process to ask: what was known stays.
            Some(known) if facts.pid == 0 => Inhabitant {
                workload: self.renamed(known.workload, &path),
                ..known
            },
            _ => {
                let (stack, mut workload) = self.infer(&facts);
                workload.process.clear();
                Inhabitant {
                    stack,
                    workload,
                    path,
                }
            }
        }
    }

    /// See [`Cgroups::limiter`].
    #[must_use]
    pub fn limiter(&self, cgroup_id: u64, hint_cgroup_id: u64) -> Option<Arc<Limiter>> {
        self.cgroups.limiter(cgroup_id, hint_cgroup_id)
    }

    /// See [`Cgroups::memory_limit`].
    #[must_use]
    pub fn memory_limit(&self, cgroup_id: u64) -> Option<Arc<MemoryLimit>> {
        self.cgroups.memory_limit(cgroup_id)
    }

    /// The process that has this pid, if it is the one of `wanted`.
    fn look_up(&self, pid: u32, wanted: Option<ProcessKey>) -> Result<Identity, ProcError> {
        let dir = ProcDir::hold(&self.roots, pid)?;
        let stat = dir.stat()?;
        let key = stat.key(pid);
        if wanted.is_some_and(|wanted| wanted != key) {
            return Err(ProcError::Gone {
                pid,
                procfs: self.roots.procfs.display().to_string(),
            });
        }
        self.examine(&dir, pid, stat)
    }

    /// The process of a directory that is held: so all facts are of one process.
    fn examine(&self, dir: &ProcDir, pid: u32, stat: Stat) -> Result<Identity, ProcError> {
        let key = stat.key(pid);
        let facts = self.process_facts(dir, pid, stat)?;
        // What was missing may have been missing because it ended meanwhile.
        dir.is_there()?;
        let (stack, workload) = self.infer(&facts);
        Ok(Identity {
            process: key,
            comm: facts.comm,
            cgroup_id: facts.cgroup_id,
            cgroup_path: facts.cgroup_path,
            workload,
            stack,
        })
    }

    /// What the stack of a process is inferred from, and the answer; for `stack PID --facts`.
    ///
    /// # Errors
    /// There is no such process or it cannot be read.
    pub fn record(&self, pid: u32) -> Result<Record, ProcError> {
        let dir = ProcDir::hold(&self.roots, pid)?;
        let process = self.process_facts(&dir, pid, dir.stat()?)?;
        Ok(Record::new(self.host.clone(), process))
    }

    /// Facts about a cgroup, through a process in it where the path alone leaves the runtime
    /// open.
    fn cgroup_facts(&self, cgroup_id: u64, path: &str) -> ProcessFacts {
        let process = (path != "/")
            .then(|| self.representative(path))
            .flatten()
            .and_then(|pid| {
                let dir = ProcDir::hold(&self.roots, pid).ok()?;
                self.process_facts(&dir, pid, dir.stat().ok()?).ok()
            })
            .filter(|facts| facts.cgroup_path == path);
        match process {
            Some(facts) => facts,
            None => {
                let group = self.group(path, cgroup_id);
                ProcessFacts {
                    cgroup_id,
                    cgroup_path: path.to_owned(),
                    cgroup_maker: group.origin.maker,
                    unit_maker: group.origin.unit_maker,
                    foreign_ids: group.origin.foreign_ids.clone(),
                    kubelet_roots: self.kubelet_roots().to_owned(),
                    runtime_state: group.runtime_state.clone(),
                    log_names: group.log_names.clone(),
                    ..ProcessFacts::default()
                }
            }
        }
    }

    /// The process that stands for a group: the first that does the group's work, not one
    /// that only started it and waits.
    fn representative(&self, path: &str) -> Option<u32> {
        let pids = self.cgroups.processes(path);
        let works = |pid: &&u32| {
            let exe = ProcDir::new(&self.roots, **pid).exe().unwrap_or_default();
            let name = base_name(&exe);
            !exe.is_empty() && wrapper(name).is_none() && !is_runtime(name)
        };
        let looked_at = pids.iter().take(MAX_INHABITANTS);
        looked_at.clone().find(works).or(pids.first()).copied()
    }

    /// From now on a change counts as one after the look: it makes the next one look again.
    /// Where the process was never looked at, the second look, a while later, makes up for it.
    fn begin_look(&self, key: ProcessKey) -> Look {
        let look = self.look();
        if let Some(known) = self.processes.lock().get_mut(&key) {
            known.epoch = Some(look.epoch);
        }
        self.metrics.identity_reads.inc();
        look
    }

    fn look(&self) -> Look {
        Look {
            epoch: self.changes.epoch(),
            version: self.naming.directory().version(),
        }
    }

    fn remember(&self, identity: &SharedIdentity, confirmed: u32, look: Look) {
        let mut processes = self.processes.lock();
        let changed = processes
            .get_mut(&identity.process)
            .is_some_and(|known| known.epoch.is_none());
        let known = Known {
            found: identity.clone(),
            at: Instant::now(),
            version: look.version,
            confirmed,
            epoch: (!changed).then_some(look.epoch),
        };
        processes.insert(identity.process, known);
        self.metrics.identities.set(processes.len() as i64);
    }
}

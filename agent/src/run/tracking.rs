//! The processes that send spans: the kernel side tells of them at a finer grain, and some
//! sensors are there only for them.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parking_lot::Mutex;

use super::publishing::Publishers;
use crate::{
    host::{proc::ProcDir, roots::Roots},
    load::Sensors,
    process::ProcessKey,
    sensor::Activation,
};

/// Most processes tracked at once; more are seen at the ordinary grain.
const MAX_TRACKED: usize = 4096;
/// `Seccomp` in `/proc/PID/status`: a filter decides.
const FILTERED: u32 = 2;

/// See the module's head.
pub struct Tracking {
    sensors: Arc<Sensors>,
    roots: Roots,
    publishers: Publishers,
    /// Whether each is under a seccomp filter.
    processes: Mutex<HashMap<ProcessKey, bool>>,
}

impl Tracking {
    /// Tracks nothing yet.
    #[must_use]
    pub fn new(sensors: Arc<Sensors>, roots: Roots) -> Self {
        Self {
            publishers: Publishers::new(Arc::clone(&sensors), roots.clone()),
            sensors,
            roots,
            processes: Mutex::default(),
        }
    }

    /// Tracks a process from now on.
    pub fn add(&self, process: ProcessKey) {
        let mut processes = self.processes.lock();
        if processes.len() >= MAX_TRACKED || processes.contains_key(&process) {
            return;
        }
        processes.insert(process, self.is_filtered(process));
        self.sensors.track(process.pid);
        self.publishers.add(process);
        self.demand(&processes);
    }

    /// Looks closer at those that are new; call it about once a second. Reads files.
    pub fn look_at_new(&self) {
        self.publishers.look_at_new();
    }

    /// Stops tracking processes that are gone, so that their pids' next owners are not. Returns
    /// those that have put themselves under a filter since the last look.
    pub fn look_again(&self) -> Vec<ProcessKey> {
        let mut confined = Vec::new();
        let known: Vec<ProcessKey> = self.processes.lock().keys().copied().collect();
        let now: Vec<(ProcessKey, bool, bool)> = known
            .into_iter()
            .map(|process| {
                let lives = ProcDir::new(&self.roots, process.pid).key().ok() == Some(process);
                (process, lives, lives && self.is_filtered(process))
            })
            .collect();
        let mut processes = self.processes.lock();
        for (process, lives, filtered) in now {
            if lives {
                if processes.insert(process, filtered) == Some(false) && filtered {
                    confined.push(process);
                }
                continue;
            }
            processes.remove(&process);
            // A reused pid may be tracked on its own account.
            if !processes.keys().any(|other| other.pid == process.pid) {
                self.sensors.untrack(process.pid);
            }
        }
        self.demand(&processes);
        let living: HashSet<ProcessKey> = processes.keys().copied().collect();
        drop(processes);
        self.publishers.look_again(&living);
        confined
    }

    fn is_filtered(&self, process: ProcessKey) -> bool {
        let status = ProcDir::new(&self.roots, process.pid).status();
        status.is_ok_and(|status| status.seccomp_mode == FILTERED)
    }

    fn demand(&self, processes: &HashMap<ProcessKey, bool>) {
        let filtered = processes.values().any(|filtered| *filtered);
        self.sensors
            .demand(Activation::WhileTracking, !processes.is_empty());
        self.sensors.demand(Activation::WhileFiltered, filtered);
    }
}

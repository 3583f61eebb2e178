//! The processes that send spans: the kernel side tells of them at a finer grain.

use std::{collections::HashSet, sync::Arc};

use parking_lot::Mutex;

use crate::{
    host::{proc::ProcDir, roots::Roots},
    load::Sensors,
    process::ProcessKey,
};

/// Most processes tracked at once; more are seen at the ordinary grain.
const MAX_TRACKED: usize = 4096;

/// See the module's head.
pub struct Tracking {
    sensors: Arc<Sensors>,
    processes: Mutex<HashSet<ProcessKey>>,
}

impl Tracking {
    /// Tracks nothing yet.
    #[must_use]
    pub fn new(sensors: Arc<Sensors>) -> Self {
        Self {
            sensors,
            processes: Mutex::default(),
        }
    }

    /// Tracks a process from now on.
    pub fn add(&self, process: ProcessKey) {
        let mut processes = self.processes.lock();
        if processes.len() < MAX_TRACKED && processes.insert(process) {
            self.sensors.track(process.pid);
        }
    }

    /// Stops tracking processes that are gone, so that their pids' next owners are not.
    pub fn forget_dead(&self, roots: &Roots) {
        let known: Vec<ProcessKey> = self.processes.lock().iter().copied().collect();
        let dead: Vec<ProcessKey> = known
            .into_iter()
            .filter(|process| ProcDir::new(roots, process.pid).key().ok() != Some(*process))
            .collect();
        let mut processes = self.processes.lock();
        for process in dead {
            processes.remove(&process);
            // A reused pid may be tracked on its own account.
            if !processes.iter().any(|other| other.pid == process.pid) {
                self.sensors.untrack(process.pid);
            }
        }
    }
}

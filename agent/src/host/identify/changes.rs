//! What the kernel tells of processes and cgroups that are no longer what they were.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    Identifier,
    known::{
        CGROUP_LIFETIME, FIRST_LIFETIME, LEAST_LIFETIME, PROCESS_LIFETIME, TOLD_CGROUP_LIFETIME,
        TOLD_PROCESS_LIFETIME, Trust,
    },
};
use crate::{
    event::Change,
    process::{ProcessKey, SharedIdentity},
};

/// What is known of a removed cgroup and its processes is kept for this long, for events that
/// come late: half as long again as the timeline keeps them.
const GRACE: Duration = Duration::from_secs(180);
/// Removed cgroups waiting for that; of more the oldest are forgotten at once.
const MAX_REMOVED: usize = 16_384;

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Changes {
    are_told: AtomicBool,
    /// Counts the times that changes were lost.
    epoch: AtomicU64,
    removed: Mutex<VecDeque<(u64, Instant)>>,
}

impl Changes {
    /// How long what is known of a process is believed.
    pub fn of_process(&self) -> Trust {
        self.trust(LEAST_LIFETIME, PROCESS_LIFETIME, TOLD_PROCESS_LIFETIME)
    }

    /// How long who stands for a group is: in a busy one there is always somebody who changes.
    pub fn of_group(&self) -> Trust {
        self.trust(FIRST_LIFETIME, CGROUP_LIFETIME, TOLD_CGROUP_LIFETIME)
    }

    fn trust(&self, at_least: Duration, untold: Duration, told: Duration) -> Trust {
        let are_told = self.are_told.load(Ordering::Relaxed);
        Trust {
            at_least,
            at_most: if are_told { told } else { untold },
            epoch: are_told.then(|| self.epoch()),
        }
    }

    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Ids of groups that were removed this long before `now`.
    fn due(&self, now: Instant) -> HashSet<u64> {
        let mut removed = self.removed.lock();
        let full = removed.len().saturating_sub(MAX_REMOVED);
        let due = removed
            .iter()
            .take_while(|(_, at)| now.saturating_duration_since(*at) >= GRACE)
            .count();
        removed.drain(..due.max(full)).map(|(id, _)| id).collect()
    }
}

impl Identifier {
    /// From now on every change comes to [`Identifier::on_change`]: nothing needs to be looked
    /// at again just because time has passed.
    pub fn changes_are_told(&self, told: bool) {
        self.changes.are_told.store(told, Ordering::Relaxed);
    }

    /// Whether something else than this is known of the process by now, or it was told to have
    /// changed. Nothing is looked at.
    #[must_use]
    pub fn has_changed(&self, known: &SharedIdentity) -> bool {
        let epoch = self.changes.of_process().epoch;
        let mut processes = self.processes.lock();
        processes.get_mut(&known.process).is_some_and(|kept| {
            !Arc::ptr_eq(&kept.found, known) || epoch.is_some() && kept.epoch != epoch
        })
    }

    /// Takes a change.
    pub fn on_change(&self, change: Change) {
        match change {
            Change::Process { process, cgroup_id } => self.process_changed(process, cgroup_id),
            Change::GroupRemoved(id) => {
                let mut removed = self.changes.removed.lock();
                // One that was never looked at leaves nothing behind.
                if removed.len() < 2 * MAX_REMOVED && self.cgroups.knows(id) {
                    removed.push_back((id, Instant::now()));
                }
            }
            Change::Anybody => {
                self.changes.epoch.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn process_changed(&self, process: ProcessKey, cgroup_id: u64) {
        self.parents.lock().remove(&process.pid);
        let mut groups = vec![cgroup_id];
        if let Some(known) = self.processes.lock().get_mut(&process) {
            known.epoch = None;
            groups.push(known.found.cgroup_id);
        }
        let mut inhabitants = self.inhabitants.lock();
        for id in groups {
            if let Some(known) = inhabitants.get_mut(&id) {
                known.epoch = None;
            }
        }
    }

    /// Forgets cgroups that were removed a while ago, and who lived in them; call it every few
    /// seconds.
    pub fn forget_removed(&self, now: Instant) {
        let mut gone = self.changes.due(now);
        // In version 1 each hierarchy has a group of that number.
        gone.retain(|id| self.cgroups.forget_if_gone(*id));
        if gone.is_empty() {
            return;
        }
        let mut processes = self.processes.lock();
        processes.retain(|_, known| !gone.contains(&known.found.cgroup_id));
        self.metrics.identities.set(processes.len() as i64);
        drop(processes);
        self.inhabitants.lock().retain(|id, _| !gone.contains(id));
        self.groups
            .lock()
            .retain(|_, group| !gone.contains(&group.id));
    }
}

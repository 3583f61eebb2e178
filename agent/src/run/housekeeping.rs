//! What has to be done regularly and depends on no request.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::Semaphore,
    task::{JoinError, spawn_blocking},
    time::MissedTickBehavior,
};

use super::tracking::Tracking;
use crate::{
    event::Change, host::identify::Identifier, load::Sensors, metrics::AgentMetrics, names::Names,
    time::MonoNs,
};

/// The gauges that nobody else keeps are set this often.
const EVERY: Duration = Duration::from_secs(1);
/// The dead are forgotten every so many rounds.
const FORGET_EVERY: u64 = 15;

/// Whom it looks after.
pub(super) struct Housekeeping {
    pub export_queue_bytes: usize,
    pub identifier: Arc<Identifier>,
    pub tracking: Arc<Tracking>,
    pub sensors: Arc<Sensors>,
    pub names: Arc<Names>,
    /// What is left of `export_queue_bytes`.
    pub budget: Arc<Semaphore>,
    pub metrics: AgentMetrics,
}

impl Housekeeping {
    /// Never ends by itself.
    pub async fn run(self) {
        let this = Arc::new(self);
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for round in 0u64.. {
            tick.tick().await;
            this.show_what_is_held();
            this.names.observe(&this.metrics);
            let of_round = Arc::clone(&this);
            // Little is read: of processes that are new.
            complain(spawn_blocking(move || of_round.keep_up()).await);
            if round % FORGET_EVERY == FORGET_EVERY - 1 {
                let of_round = Arc::clone(&this);
                complain(spawn_blocking(move || of_round.forget()).await);
            }
        }
    }

    fn show_what_is_held(&self) {
        let free = self.budget.available_permits();
        let held = self.export_queue_bytes.saturating_sub(free);
        let held = i64::try_from(held).unwrap_or(i64::MAX);
        self.metrics.held_bytes.set(held);
    }

    fn keep_up(&self) {
        self.sensors.keep_up(MonoNs::now(), &self.metrics);
        self.tracking.look_at_new();
    }

    fn forget(&self) {
        for process in self.tracking.look_again() {
            // Nobody else tells of a process that confines itself.
            let cgroup_id = 0;
            self.identifier
                .on_change(Change::Process { process, cgroup_id });
        }
        self.identifier.forget_removed(Instant::now());
        self.sensors.observe(&self.metrics);
        let cgroups = self.identifier.cgroups();
        self.sensors
            .prune_cgroups(|id| cgroups.path_by_id(id).is_some());
    }
}

fn complain(done: Result<(), JoinError>) {
    if let Err(error) = done {
        tracing::error!(%error, "Housekeeping failed");
    }
}

//! Kernel events on their way to the pipeline: completed with what only the host's files
//! know (whose quota it was), handed on in batches, and counted where there is no room.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::{
    event::{Event, Limiter},
    host::identify::Identifier,
    metrics::{AgentMetrics, Reason},
    vocabulary::Cause,
};

/// See the module's head. Runs on the ring reader's thread.
pub struct Attributor {
    identifier: Arc<Identifier>,
    out: Queue,
}

impl Attributor {
    /// Hands on to `events`.
    #[must_use]
    pub fn new(
        identifier: Arc<Identifier>,
        events: mpsc::Sender<Vec<Event>>,
        metrics: AgentMetrics,
    ) -> Self {
        Self {
            identifier,
            out: Queue { events, metrics },
        }
    }

    /// Completes a batch and hands it on.
    pub fn take(&mut self, mut events: Vec<Event>) {
        for event in &mut events {
            if let Event::Delay(delay) = event
                && delay.cause == Cause::CpuThrottle
            {
                delay.limiter = self.limiter(delay.cgroup_id, delay.limiter_cgroup_id);
            }
        }
        self.out.push(events);
    }

    fn limiter(&self, cgroup_id: u64, hint: u64) -> Option<Arc<Limiter>> {
        self.identifier.limiter(cgroup_id, hint)
    }
}

/// The bounded way to the pipeline.
struct Queue {
    events: mpsc::Sender<Vec<Event>>,
    metrics: AgentMetrics,
}

impl Queue {
    fn push(&self, events: Vec<Event>) {
        if let Err(error) = self.events.try_send(events) {
            let reason = match error {
                mpsc::error::TrySendError::Full(_) => "queue_full",
                mpsc::error::TrySendError::Closed(_) => "stopping",
            };
            let lost = error.into_inner().len() as u64;
            self.metrics
                .events_dropped
                .get_or_create(&Reason { reason })
                .inc_by(lost);
        }
    }
}

//! Kernel events on their way to the pipeline: completed with what only the host's files
//! know (whose quota it was), handed on in batches, and counted where there is no room.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::{
    event::{Event, Particulars},
    host::identify::Identifier,
    metrics::{AgentMetrics, Reason},
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
                && let Particulars::QuotaOf(hint) = delay.particulars
            {
                let limiter = self.identifier.limiter(delay.cgroup_id, hint);
                delay.particulars = limiter.map_or(Particulars::None, Particulars::Limiter);
            }
        }
        self.out.push(events);
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

//! Kernel events on their way to the pipeline: completed with what only the host's files
//! know (whose quota it was), handed on in batches, and counted where there is no room.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use crate::{
    event::{Event, Neighbour, Particulars},
    host::identify::Identifier,
    metrics::{AgentMetrics, Reason},
};

/// A neighbour's name is looked up again after this long.
const NEIGHBOUR_LIFETIME: Duration = Duration::from_secs(30);
/// Neighbours remembered; when full, all are looked up anew.
const MAX_NEIGHBOURS: usize = 4096;

/// See the module's head. Runs on the ring reader's thread.
pub struct Attributor {
    identifier: Arc<Identifier>,
    neighbours: HashMap<u64, (Arc<Neighbour>, Instant)>,
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
            neighbours: HashMap::new(),
            out: Queue { events, metrics },
        }
    }

    /// Completes a batch and hands it on.
    pub fn take(&mut self, mut events: Vec<Event>) {
        for event in &mut events {
            let Event::Delay(delay) = event else { continue };
            match &mut delay.particulars {
                Particulars::QuotaOf(hint) => {
                    let limiter = self.identifier.limiter(delay.cgroup_id, *hint);
                    delay.particulars = limiter.map_or(Particulars::None, Particulars::Limiter);
                }
                Particulars::Memory { memcg: true, limit } => {
                    *limit = self.identifier.memory_limit(delay.cgroup_id);
                }
                Particulars::CpuWentTo(cgroup_id) => {
                    let neighbour = self.neighbour(*cgroup_id);
                    delay.particulars = neighbour.map_or(Particulars::None, Particulars::Neighbour);
                }
                _ => {}
            }
        }
        self.out.push(events);
    }

    /// Who lives in that cgroup.
    fn neighbour(&mut self, cgroup_id: u64) -> Option<Arc<Neighbour>> {
        if let Some((neighbour, read_at)) = self.neighbours.get(&cgroup_id)
            && read_at.elapsed() < NEIGHBOUR_LIFETIME
        {
            return Some(Arc::clone(neighbour));
        }
        let (_, workload) = self.identifier.inhabitant_of_cgroup(cgroup_id)?;
        let neighbour = Arc::new(Neighbour {
            cgroup_id,
            name: workload.display_name(),
        });
        if self.neighbours.len() >= MAX_NEIGHBOURS {
            self.neighbours.clear();
        }
        let entry = (Arc::clone(&neighbour), Instant::now());
        self.neighbours.insert(cgroup_id, entry);
        Some(neighbour)
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

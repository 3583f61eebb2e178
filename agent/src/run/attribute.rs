//! Kernel events on their way to the pipeline: completed with what only the host's files
//! know (whose quota it was), handed on in batches, and counted where there is no room.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use crate::{
    event::{Change, Event, Loss, Neighbour, Particulars},
    host::identify::Identifier,
    load::Sink,
    metrics::{AgentMetrics, Reason},
    time::MonoNs,
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
            out: Queue {
                events,
                metrics,
                dropped: None,
            },
        }
    }

    /// Completes a batch and hands it on.
    pub fn take(&mut self, mut events: Vec<Event>) {
        for event in &mut events {
            let delay = match event {
                Event::Delay(delay) => delay,
                Event::Consumption(of) => {
                    of.consumer = self.neighbour(of.cgroup_id);
                    continue;
                }
                Event::Steal(_)
                | Event::Loss(_)
                | Event::Saving(_)
                | Event::Turn(_)
                | Event::Ask(_)
                | Event::Away(_) => continue,
            };
            match &mut delay.particulars {
                Particulars::QuotaOf(hint) => {
                    let limiter = self.identifier.limiter(delay.cgroup_id, *hint);
                    delay.particulars = limiter.map_or(Particulars::None, Particulars::Limiter);
                }
                // Of what was pushed out long ago nobody knows for whose sake.
                Particulars::Memory {
                    memcg,
                    limit,
                    is_swap_in: true,
                } => {
                    *limit = self
                        .identifier
                        .cgroups()
                        .pressing_memory_limit(delay.cgroup_id);
                    *memcg = limit.is_some();
                }
                Particulars::Memory {
                    memcg: true, limit, ..
                } => {
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
        let path = self.identifier.cgroups().path_by_id(cgroup_id);
        let neighbour = Arc::new(Neighbour {
            cgroup_id,
            cgroup_path: path.map_or_else(String::new, |path| path.to_string()),
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

impl Sink for Attributor {
    fn events(&mut self, batch: Vec<Event>) {
        self.take(batch);
    }

    fn change(&mut self, change: Change) {
        self.identifier.on_change(change);
    }
}

/// Events of a batch are at most so old when they are read: twice the reader's period.
const BATCH_NS: u64 = 100_000_000;

/// The bounded way to the pipeline.
struct Queue {
    events: mpsc::Sender<Vec<Event>>,
    metrics: AgentMetrics,
    /// What was dropped since the last batch that found room.
    dropped: Option<Loss>,
}

impl Queue {
    fn push(&mut self, mut events: Vec<Event>) {
        if let Some(loss) = self.dropped {
            events.push(Event::Loss(loss));
        }
        let Err(error) = self.events.try_send(events) else {
            self.dropped = None;
            return;
        };
        let reason = match error {
            mpsc::error::TrySendError::Full(_) => "queue_full",
            mpsc::error::TrySendError::Closed(_) => "stopping",
        };
        let lost = error.into_inner();
        let lost = lost
            .iter()
            .filter(|e| !matches!(e, Event::Loss(_) | Event::Saving(_)))
            .count() as u64;
        self.metrics
            .events_dropped
            .get_or_create(&Reason { reason })
            .inc_by(lost);
        // What lies in a batch happened within the last reading of the ring, or a little
        // before.
        let now = MonoNs::now();
        let loss = self.dropped.get_or_insert(Loss {
            start: MonoNs(now.0.saturating_sub(BATCH_NS)),
            end: now,
            events: 0,
        });
        loss.end = now;
        loss.events = loss.events.saturating_add(lost);
    }
}

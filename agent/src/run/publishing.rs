//! The processes that publish which span each of their threads works on: found among those that
//! send spans, and the kernel side told where to look.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use agent_common::context::ContextPlace;
use parking_lot::Mutex;

use crate::{
    host::{
        roots::Roots,
        thread_context::{Publishing, ThreadContexts},
    },
    load::Sensors,
    process::ProcessKey,
    sensor::{Activation, SensorState},
};

/// See the module's head.
pub struct Publishers {
    sensors: Arc<Sensors>,
    contexts: ThreadContexts,
    known: Mutex<HashMap<ProcessKey, Known>>,
}

/// What was found out about one process.
#[derive(Default)]
struct Known {
    /// What [`ThreadContexts::look`] returned with it; `None`: nobody has looked yet.
    seen: Option<u64>,
    place: Option<ContextPlace>,
}

impl Publishers {
    /// Nobody is known yet.
    #[must_use]
    pub fn new(sensors: Arc<Sensors>, roots: Roots) -> Self {
        Self {
            sensors,
            contexts: ThreadContexts::new(roots),
            known: Mutex::default(),
        }
    }

    /// To be looked at by the next [`Publishers::look_at_new`]. Does not block.
    pub fn add(&self, process: ProcessKey) {
        self.known.lock().entry(process).or_default();
    }

    /// Looks at those that nobody has looked at yet; call it about once a second. Reads files.
    pub fn look_at_new(&self) {
        let new =
            |(process, known): (&ProcessKey, &Known)| known.seen.is_none().then_some(*process);
        let new: Vec<ProcessKey> = self.known.lock().iter().filter_map(new).collect();
        for process in new {
            self.look(process);
        }
    }

    /// Looks again at all, as they may have loaded something or become another program, and
    /// forgets those that are not `living`. Reads files.
    pub fn look_again(&self, living: &HashSet<ProcessKey>) {
        let (live, gone): (Vec<ProcessKey>, Vec<ProcessKey>) = {
            let known = self.known.lock();
            known.keys().partition(|process| living.contains(process))
        };
        for process in gone {
            let known = self.known.lock().remove(&process);
            let heir = live.iter().any(|other| other.pid == process.pid);
            if known.is_some_and(|known| known.place.is_some()) && !heir {
                self.sensors.publishes(process.pid, None);
            }
        }
        for process in live {
            self.look(process);
        }
        self.demand();
    }

    fn look(&self, process: ProcessKey) {
        let is_on = self
            .sensors
            .statuses()
            .iter()
            .any(|s| s.name == "context" && s.state != SensorState::Off);
        if !is_on {
            return; // its status says why
        }
        let before = self.known.lock().get(&process).and_then(|known| known.seen);
        let (seen, publishing) = match self.contexts.look(process, before) {
            Ok(Some(found)) => found,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(pid = process.pid, %error, "Not looked at for thread contexts");
                return;
            }
        };
        let place = match publishing {
            // What a program says of itself goes before what others say of it.
            Publishing::Nothing => self.sensors.published_by_others(),
            Publishing::At(place) => Some(place),
            Publishing::Unusable(reason) => {
                tracing::info!(
                    pid = process.pid,
                    %reason,
                    "Publishes its threads' contexts, but they are not used"
                );
                None
            }
        };
        {
            let mut known = self.known.lock();
            let Some(known) = known.get_mut(&process) else {
                return; // forgotten meanwhile
            };
            known.seen = Some(seen);
            if std::mem::replace(&mut known.place, place) == place {
                return;
            }
        }
        let told = self.sensors.publishes(process.pid, place);
        if place == Some(ContextPlace::IN_THE_MAP) {
            tracing::debug!(pid = process.pid, told, "Its traces are looked up");
        } else {
            tracing::info!(
                pid = process.pid,
                ?place,
                told,
                "Publishes its threads' contexts"
            );
        }
        self.demand();
    }

    fn demand(&self) {
        let wanted = self
            .known
            .lock()
            .values()
            .any(|known| known.place.is_some());
        self.sensors.demand(Activation::WhilePublishing, wanted);
    }
}

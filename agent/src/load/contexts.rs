//! Where thread groups publish their threads' contexts: read by the kernel side at each of their
//! switches.

use agent_common::context::ContextPlace;
use aya::maps::{HashMap, MapData, MapError};
use parking_lot::Mutex;

/// The table; only this side writes it.
pub struct ContextPlaces {
    map: Mutex<HashMap<MapData, u32, ContextPlace>>,
    /// What is known of who publishes nothing.
    of_others: Option<ContextPlace>,
}

impl ContextPlaces {
    pub fn new(map: HashMap<MapData, u32, ContextPlace>, has_traces: bool) -> Self {
        Self {
            map: Mutex::new(map),
            of_others: has_traces.then_some(ContextPlace::IN_THE_MAP),
        }
    }

    /// Where to look for who publishes nothing: the map of other instrumentation, if there is one.
    pub const fn of_others(&self) -> Option<ContextPlace> {
        self.of_others
    }

    /// Puts a thread group in or out. False if the kernel has no room.
    pub fn set(&self, pid: u32, place: Option<ContextPlace>) -> bool {
        let mut map = self.map.lock();
        match place {
            Some(place) => map.insert(pid, place, 0).is_ok(),
            None => matches!(map.remove(&pid), Ok(()) | Err(MapError::KeyNotFound)),
        }
    }
}

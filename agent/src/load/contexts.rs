//! Where thread groups publish their threads' contexts: read by the kernel side at each of their
//! switches.

use agent_common::context::ContextPlace;
use aya::maps::{HashMap, MapData, MapError};
use parking_lot::Mutex;

/// The table; only this side writes it.
pub struct ContextPlaces(Mutex<HashMap<MapData, u32, ContextPlace>>);

impl ContextPlaces {
    pub const fn new(map: HashMap<MapData, u32, ContextPlace>) -> Self {
        Self(Mutex::new(map))
    }

    /// Puts a thread group in or out. False if the kernel has no room.
    pub fn set(&self, pid: u32, place: Option<ContextPlace>) -> bool {
        let mut map = self.0.lock();
        match place {
            Some(place) => map.insert(pid, place, 0).is_ok(),
            None => matches!(map.remove(&pid), Ok(()) | Err(MapError::KeyNotFound)),
        }
    }
}

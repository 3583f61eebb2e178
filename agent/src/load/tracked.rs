//! The thread groups of which more is told: one bit per pid, read by the kernel side.

use aya::maps::{Array, MapData};
use parking_lot::Mutex;

/// The set; only this side writes it.
pub struct Tracked {
    inner: Mutex<Inner>,
}

struct Inner {
    map: Array<MapData, u64>,
    words: Vec<u64>,
}

impl Tracked {
    /// Nothing tracked yet; room for pids below `pid_max`.
    pub fn new(map: Array<MapData, u64>, pid_max: u32) -> Self {
        Self {
            inner: Mutex::new(Inner {
                map,
                words: vec![0; pid_max.div_ceil(64) as usize],
            }),
        }
    }

    /// Puts `pid` in or out. False if it is out of range or the kernel refused.
    pub fn set(&self, pid: u32, on: bool) -> bool {
        let inner = &mut *self.inner.lock();
        let Some(word) = inner.words.get_mut(pid as usize / 64) else {
            return false;
        };
        let bit = 1_u64 << (pid % 64);
        let new = if on { *word | bit } else { *word & !bit };
        if new == *word {
            return true;
        }
        *word = new;
        inner.map.set(pid / 64, new, 0).is_ok()
    }
}

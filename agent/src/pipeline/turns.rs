//! Which threads answered requests lately: the turns of each process, in order of writing.
//!
//! Bounds: 24 bytes a turn, at most [`MAX_TURNS`] of all processes together (6 MB, a quarter
//! more while rings grow); the process with the most gives way first, and that is counted.

use super::{by_process::ByProcess, ring::Interval, timeline::Dropped};
use crate::{event::Turn, process::ProcessKey, time::MonoNs};

/// Turns kept of all processes.
const MAX_TURNS: usize = 1 << 18;

/// One writing of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// When the request began to be read, monotonic.
    pub read: u64,
    /// When it was written, monotonic.
    pub at: u64,
    /// The thread.
    pub tid: u32,
    /// See [`Turn::is_whole`].
    pub is_whole: bool,
}

/// In order of writing: as intervals they have no length.
impl Interval for Written {
    fn start(&self) -> u64 {
        self.at
    }

    fn end(&self) -> u64 {
        self.at
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Turns(ByProcess<Written, MAX_TURNS>);

impl Turns {
    /// Takes one.
    ///
    /// # Errors
    /// [`Dropped`] if its times cannot be; nothing has changed then.
    pub fn add(&mut self, turn: &Turn, horizon: MonoNs, now: MonoNs) -> Result<(), Dropped> {
        if turn.written < turn.read {
            return Err(Dropped::Empty);
        }
        Dropped::check_end(turn.written, horizon, now)?;
        let written = Written {
            read: turn.read.0,
            at: turn.written.0,
            tid: turn.tid,
            is_whole: turn.is_whole,
        };
        self.0.add(turn.process, written);
        Ok(())
    }

    /// What was written in `[start, end)`.
    pub fn written(
        &self,
        process: ProcessKey,
        start: u64,
        end: u64,
    ) -> impl Iterator<Item = &Written> {
        self.0.overlapping(process, start.saturating_sub(1), end)
    }

    /// Forgets what is older than `horizon`.
    pub fn expire(&mut self, horizon: u64) {
        self.0.expire(horizon);
    }

    /// Turns forgotten before their time since the last call.
    pub fn take_evicted(&mut self) -> u64 {
        self.0.take_evicted()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: MonoNs = MonoNs(1_000_000_000);

    fn turn(pid: u32, read: u64, written: u64) -> Turn {
        Turn {
            process: ProcessKey {
                pid,
                start_ticks: 1,
            },
            tid: pid,
            read: MonoNs(read),
            written: MonoNs(written),
            is_whole: true,
        }
    }

    #[test]
    fn what_was_written_in_a_window_is_found_in_order() {
        let mut turns = Turns::default();
        for (read, written) in [(1, 10), (2, 30), (3, 20), (4, 40)] {
            turns.add(&turn(7, read, written), MonoNs(0), NOW).unwrap();
        }
        let process = turn(7, 0, 0).process;
        let found = |turns: &Turns, start, end| -> Vec<u64> {
            turns.written(process, start, end).map(|w| w.at).collect()
        };
        assert_eq!(found(&turns, 10, 40), [10, 20, 30]);
        assert_eq!(found(&turns, 11, 41), [20, 30, 40]);
        turns.expire(20);
        assert_eq!(found(&turns, 0, 100), [20, 30, 40]);
    }

    #[test]
    fn the_one_with_most_gives_way() {
        let mut turns = Turns::default();
        turns.add(&turn(1, 0, 1), MonoNs(0), NOW).unwrap();
        for n in 0..2 * MAX_TURNS as u64 {
            turns.add(&turn(2, n, n + 1), MonoNs(0), NOW).unwrap();
        }
        assert!(turns.0.len() <= MAX_TURNS);
        assert_eq!(
            turns.take_evicted() as usize + turns.0.len(),
            2 * MAX_TURNS + 1
        );
        assert_eq!(turns.written(turn(1, 0, 0).process, 0, 2).count(), 1);
    }
}

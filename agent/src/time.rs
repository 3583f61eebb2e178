//! Two clocks that must not be mixed up: kernel events carry `CLOCK_MONOTONIC`,
//! spans carry wall time. [`WallClock`] is the only bridge.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Nanoseconds of `CLOCK_MONOTONIC`, the clock of `bpf_ktime_get_ns`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct MonoNs(pub u64);

/// Nanoseconds since the Unix epoch, the clock of spans.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct UnixNs(pub u64);

impl MonoNs {
    /// The clock's present reading.
    #[must_use]
    pub fn now() -> Self {
        Self(read(rustix::time::ClockId::Monotonic))
    }

    /// Nanoseconds from `earlier` to `self`, 0 when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl UnixNs {
    /// The clock's present reading.
    #[must_use]
    pub fn now() -> Self {
        Self(read(rustix::time::ClockId::Realtime))
    }
}

/// Clock ticks (1/100 s) since boot, as start times of processes are counted.
#[must_use]
pub fn ticks_since_boot() -> u64 {
    read(rustix::time::ClockId::Boottime) / TICK_NS
}

/// Length of a clock tick in nanoseconds (USER_HZ is 100 on every architecture that the agent
/// runs on).
pub const TICK_NS: u64 = 10_000_000;

fn read(clock: rustix::time::ClockId) -> u64 {
    let t = rustix::time::clock_gettime(clock);
    (t.tv_sec.max(0) as u64) * 1_000_000_000 + t.tv_nsec.max(0) as u64
}

/// The offset between the two clocks over time, so that an event from before a step of
/// the wall clock keeps the wall time that spans of that moment carried.
#[derive(Clone, Debug)]
pub struct WallClock {
    /// `(from, offset)`: from that monotonic time on, wall = monotonic + offset. Never empty.
    offsets: VecDeque<(MonoNs, i64)>,
}

/// Offsets differing by less than this are the same one, slewed: the newest entry is updated.
const STEP_NS: i64 = 1_000_000;
/// Steps remembered; older ones are merged into the oldest kept.
const MAX_STEPS: usize = 64;

impl WallClock {
    /// Starts with one sample of both clocks taken at the same moment.
    #[must_use]
    pub fn new(mono: MonoNs, wall: UnixNs) -> Self {
        Self {
            offsets: VecDeque::from([(MonoNs(0), offset(mono, wall))]),
        }
    }

    /// Takes a new sample; call it about once a second. Returns the step in nanoseconds
    /// if the wall clock was stepped since the last one.
    pub fn sample(&mut self, mono: MonoNs, wall: UnixNs) -> Option<i64> {
        let new = offset(mono, wall);
        let last = self
            .offsets
            .back_mut()
            .expect("never empty: new() puts one, sample() keeps one");
        let step = new - last.1;
        if step.abs() < STEP_NS {
            last.1 = new;
            return None;
        }
        self.offsets.push_back((mono, new));
        if self.offsets.len() > MAX_STEPS {
            self.offsets.pop_front();
        }
        Some(step)
    }

    /// The wall time that was shown at monotonic time `mono`.
    #[must_use]
    pub fn wall(&self, mono: MonoNs) -> UnixNs {
        let at = self.offsets.iter().rev().find(|(from, _)| *from <= mono);
        let (_, offset) = at.or(self.offsets.front()).expect("never empty");
        UnixNs(mono.0.saturating_add_signed(*offset))
    }

    /// The latest monotonic time, not after `latest`, at which the wall clock showed `wall`;
    /// `None` if it had not shown it by then or a step forward left it out. A step back makes
    /// a wall time come twice: what was received before the second coming means the first.
    #[must_use]
    pub fn mono_by(&self, wall: UnixNs, latest: MonoNs) -> Option<MonoNs> {
        let mut until = latest.0.saturating_add(1);
        self.offsets.iter().rev().find_map(|(from, offset)| {
            let mono = u64::try_from(i128::from(wall.0) - i128::from(*offset)).ok();
            let found = mono.filter(|mono| *mono >= from.0 && *mono < until);
            until = until.min(from.0);
            found.map(MonoNs)
        })
    }

    /// The monotonic time at which the wall clock showed `wall`; with a step back in
    /// between, the later of the two moments.
    #[must_use]
    pub fn mono(&self, wall: UnixNs) -> MonoNs {
        for (from, offset) in self.offsets.iter().rev() {
            let mono = MonoNs(wall.0.saturating_add_signed(-offset));
            if mono >= *from {
                return mono;
            }
        }
        MonoNs(0)
    }
}

fn offset(mono: MonoNs, wall: UnixNs) -> i64 {
    wall.0 as i64 - mono.0 as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_moves_only_what_comes_after_it() {
        let mut clock = WallClock::new(MonoNs(1_000), UnixNs(5_000_000_001_000));
        assert_eq!(
            clock.sample(MonoNs(2_000), UnixNs(5_000_000_002_500)),
            None,
            "slew"
        );
        let stepped = clock.sample(MonoNs(10_000_000), UnixNs(9_000_010_000_000));
        assert_eq!(stepped, Some(9_000_000_000_000 - 5_000_000_000_500));
        assert_eq!(clock.wall(MonoNs(9_000_000)), UnixNs(5_000_009_000_500));
        assert_eq!(clock.wall(MonoNs(11_000_000)), UnixNs(9_000_011_000_000));
        assert_eq!(clock.mono(UnixNs(9_000_011_000_000)), MonoNs(11_000_000));
        assert_eq!(clock.mono(UnixNs(5_000_009_000_500)), MonoNs(9_000_000));
    }

    #[test]
    fn a_wall_time_that_comes_twice_means_the_time_that_was_possible() {
        const S: u64 = 1_000_000_000;
        let mut clock = WallClock::new(MonoNs(10 * S), UnixNs(1_010 * S));
        clock.sample(MonoNs(20 * S), UnixNs(920 * S)); // 100 s back
        let wall = UnixNs(1_015 * S);
        assert_eq!(clock.mono_by(wall, MonoNs(21 * S)), Some(MonoNs(15 * S)));
        assert_eq!(clock.mono_by(wall, MonoNs(200 * S)), Some(MonoNs(115 * S)));
        assert_eq!(clock.mono_by(UnixNs(5_000 * S), MonoNs(200 * S)), None);
        assert_eq!(clock.mono_by(UnixNs(0), MonoNs(200 * S)), None);
        assert_eq!(clock.mono_by(UnixNs(u64::MAX), MonoNs(200 * S)), None);
    }
}

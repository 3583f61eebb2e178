//! What each process lost time to, recently: delay intervals by process, with a second way
//! in by cgroup, and the steal samples of each CPU.
//!
//! Every interval is kept as it came, to the microsecond: none is merged or sampled, so a split does
//! not depend on how full the timeline is. They are packed, see [`packed`].
//!
//! Bounds: [`TimelineConfig::max_bytes`] (48 MB by default), [`TimelineConfig::max_intervals`]
//! and [`TimelineConfig::max_processes`], whichever is reached first; what two minutes of 50 000
//! events a second take is measured by `cargo xtask bench --only correlate`. What is older than the
//! window goes first. When there still is too much, a process that has more than its part
//! loses its oldest eighth, so that a noisy process costs a quiet one nothing; when none has,
//! all lose the oldest eighth of the time. What was evicted before its time is counted.

mod packed;
mod steal;
mod track;

use std::{
    collections::{BTreeSet, HashMap, hash_map},
    time::Duration,
};

// The keys are the kernel's; each span asks several times, and the standard hasher takes longer.
use foldhash::quality::RandomState;

pub use self::track::Entry;
use self::{packed::Unpacked, steal::StealLog, track::Track};
use crate::{
    event::{Delay, Particulars, Steal},
    process::ProcessKey,
    time::MonoNs,
    vocabulary::Cause,
};

/// How much the timeline keeps.
#[derive(Clone, Debug)]
pub struct TimelineConfig {
    /// Age at which an interval is forgotten.
    pub window: Duration,
    /// Most intervals kept, of all processes together.
    pub max_intervals: usize,
    /// Most bytes that they take together.
    pub max_bytes: usize,
    /// Most processes kept.
    pub max_processes: usize,
}

impl Default for TimelineConfig {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(120),
            max_intervals: 1 << 23,
            max_bytes: 48_000_000,
            max_processes: 16_384,
        }
    }
}

/// Why an event was not kept, or not kept for the whole window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// It ends before it starts, or is empty.
    Empty,
    /// It ends after the present.
    Future,
    /// It ended before the window.
    TooOld,
    /// Its cause is not something that happens to a thread.
    NotADelay,
    /// A steal sample that overlaps one already taken of that CPU, or of an absurd CPU.
    BadSteal,
}

impl Dropped {
    /// The word for an interval that was kept and gave way before its time.
    pub const EVICTED: &str = "timeline_full";

    /// Whether what ended at `end` may be kept: not after the present, not before the window.
    ///
    /// # Errors
    /// [`Dropped::Future`] and [`Dropped::TooOld`].
    pub(super) fn check_end(end: MonoNs, horizon: MonoNs, now: MonoNs) -> Result<(), Self> {
        if end.0 > now.0.saturating_add(FUTURE_SLACK_NS) {
            return Err(Self::Future);
        }
        if end < horizon {
            return Err(Self::TooOld);
        }
        Ok(())
    }

    /// The word of the counter.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Future => "future",
            Self::TooOld => "too_old",
            Self::NotADelay => "not_a_delay",
            Self::BadSteal => "bad_steal",
        }
    }
}

/// An event may end this much after the present (CPUs differ a little).
const FUTURE_SLACK_NS: u64 = 1_000_000_000;

/// A process with more than one in this many of all intervals is a noisy one.
const NOISY: usize = 64;

/// Processes of a cgroup that are told of what happened to another one.
const MAX_TOLD: usize = 256;

/// Processes with intervals, by cgroup.
type ByCgroup = HashMap<u64, BTreeSet<ProcessKey>, RandomState>;

/// See the module.
#[derive(Debug)]
pub struct Timeline {
    config: TimelineConfig,
    tracks: HashMap<ProcessKey, Track, RandomState>,
    by_cgroup: ByCgroup,
    steal: StealLog,
    intervals: usize,
    /// Of all tracks.
    bytes: usize,
    unpacked: Unpacked,
    evicted: u64,
}

impl Timeline {
    /// An empty one.
    #[must_use]
    pub fn new(config: TimelineConfig) -> Self {
        Self {
            config,
            tracks: HashMap::default(),
            by_cgroup: HashMap::default(),
            steal: StealLog::default(),
            intervals: 0,
            bytes: 0,
            unpacked: Unpacked::default(),
            evicted: 0,
        }
    }

    /// Intervals kept.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.intervals
    }

    /// Whether none is kept.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.intervals == 0
    }

    /// Bytes that the intervals take.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Intervals evicted before their time since the last call.
    pub fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
    }

    /// The time before which nothing is kept.
    #[must_use]
    pub fn horizon(&self, now: MonoNs) -> MonoNs {
        let window = u64::try_from(self.config.window.as_nanos()).unwrap_or(u64::MAX);
        MonoNs(now.0.saturating_sub(window))
    }

    /// Takes an interval.
    ///
    /// # Errors
    /// [`Dropped`] if it cannot be kept; nothing has changed then.
    pub fn add(&mut self, delay: &Delay, now: MonoNs) -> Result<(), Dropped> {
        if matches!(delay.cause, Cause::Downstream | Cause::Unexplained) {
            return Err(Dropped::NotADelay);
        }
        if delay.end < delay.start || (delay.end == delay.start && !is_momentary(delay.cause)) {
            return Err(Dropped::Empty);
        }
        let horizon = self.horizon(now);
        Dropped::check_end(delay.end, horizon, now)?;
        self.make_room(delay.process, now);
        let track = match self.tracks.entry(delay.process) {
            hash_map::Entry::Occupied(entry) => entry.into_mut(),
            hash_map::Entry::Vacant(entry) => {
                let track = entry.insert(Track::default());
                self.bytes += track.bytes();
                track
            }
        };
        if track.cgroup_id != delay.cgroup_id || track.is_empty() {
            leave(&mut self.by_cgroup, track.cgroup_id, delay.process);
            track.cgroup_id = delay.cgroup_id;
            self.by_cgroup
                .entry(delay.cgroup_id)
                .or_default()
                .insert(delay.process);
        }
        let bytes = track.bytes();
        self.intervals -= track.expire(horizon);
        track.insert(delay, horizon);
        self.intervals += 1;
        self.bytes = self.bytes + track.bytes() - bytes;
        Ok(())
    }

    /// Takes what happened to one process of a cgroup as a moment of the others, of all their
    /// threads; of a hundred thousand processes, of the first [`MAX_TOLD`].
    pub fn add_to_cgroup(&mut self, delay: &Delay, now: MonoNs) {
        let members = self.by_cgroup.get(&delay.cgroup_id).into_iter().flatten();
        let others = members.filter(|process| **process != delay.process);
        let others: Vec<ProcessKey> = others.take(MAX_TOLD).copied().collect();
        for process in others {
            let moment = Delay {
                process,
                tid: 0,
                start: delay.end,
                ..delay.clone()
            };
            // What cannot be kept of its own process is counted there.
            let _ = self.add(&moment, now);
        }
    }

    /// Takes a steal sample.
    ///
    /// # Errors
    /// [`Dropped`] if it cannot be kept; nothing has changed then.
    pub fn add_steal(&mut self, steal: &Steal, now: MonoNs) -> Result<(), Dropped> {
        if steal.end <= steal.start {
            return Err(Dropped::Empty);
        }
        if steal.end.0 > now.0.saturating_add(FUTURE_SLACK_NS) {
            return Err(Dropped::Future);
        }
        let horizon = self.horizon(now);
        self.steal.add(steal, horizon).ok_or(Dropped::BadSteal)
    }

    /// The part of `[start, end)` that the hypervisor took from `cpu`, each poll interval's
    /// steal spread evenly over it.
    #[must_use]
    pub fn stolen_ns(&self, cpu: u16, start: u64, end: u64) -> u64 {
        self.steal.stolen_ns(cpu, start, end)
    }

    /// Calls `f` with each interval of `process` that overlaps `[start, end)`.
    pub fn of_process(&self, process: ProcessKey, start: MonoNs, end: MonoNs, f: &mut Visit<'_>) {
        if let Some(track) = self.tracks.get(&process) {
            track.overlapping((start.0, end.0), &self.unpacked, f);
        }
    }

    /// As [`Timeline::of_process`], by numbers.
    pub fn within(&self, process: ProcessKey, start: u64, end: u64, f: &mut Visit<'_>) {
        self.of_process(process, MonoNs(start), MonoNs(end), f);
    }

    /// Calls `f` with each interval of any process of the cgroup that overlaps `[start, end)`;
    /// returns how many processes it has.
    pub fn of_cgroup(
        &self,
        cgroup_id: u64,
        start: MonoNs,
        end: MonoNs,
        f: &mut Visit<'_>,
    ) -> usize {
        let Some(members) = self.by_cgroup.get(&cgroup_id) else {
            return 0;
        };
        for process in members {
            self.of_process(*process, start, end, f);
        }
        members.len()
    }

    /// Forgets what is older than the window; call it every few seconds.
    pub fn expire(&mut self, now: MonoNs) {
        let horizon = self.horizon(now);
        self.forget_before(horizon);
        self.steal.expire(horizon);
    }

    /// Sees to it that one more interval, of this process, keeps the bounds.
    fn make_room(&mut self, process: ProcessKey, now: MonoNs) {
        if self.tracks.len() >= self.config.max_processes && !self.tracks.contains_key(&process) {
            self.expire(now);
            if self.tracks.len() >= self.config.max_processes {
                self.evict_processes();
            }
        }
        if self.is_full() {
            self.expire(now);
        }
        while self.is_full() {
            let largest = self
                .tracks
                .iter()
                .max_by_key(|(key, track)| (track.len(), **key));
            match largest.map(|(key, track)| (*key, track.len())) {
                None => return,
                Some((process, len)) if len >= self.intervals / NOISY => {
                    self.evict_from(process, len.div_ceil(8));
                }
                Some(_) => self.evict_oldest(now),
            }
        }
    }

    fn is_full(&self) -> bool {
        self.intervals >= self.config.max_intervals || self.bytes >= self.config.max_bytes
    }

    /// Forgets the oldest `count` intervals of a process, and what is packed with them.
    fn evict_from(&mut self, process: ProcessKey, count: usize) {
        let Some(track) = self.tracks.get_mut(&process) else {
            return;
        };
        let bytes = track.bytes();
        let gone = track.evict_oldest(count);
        self.intervals -= gone;
        self.evicted += gone as u64;
        self.bytes -= bytes - track.bytes();
        if track.is_empty() {
            self.bytes -= track.bytes();
            leave(&mut self.by_cgroup, track.cgroup_id, process);
            self.tracks.remove(&process);
        }
    }

    /// Forgets the oldest eighth of the time kept, of all processes.
    fn evict_oldest(&mut self, now: MonoNs) {
        let oldest = self
            .tracks
            .values()
            .map(Track::first_end)
            .min()
            .unwrap_or(now.0);
        let cutoff = oldest + (now.0.saturating_sub(oldest) / 8).max(1);
        let before = self.intervals;
        self.forget_before(MonoNs(cutoff));
        self.evicted += (before - self.intervals) as u64;
        if self.intervals == before {
            // What is packed with the oldest is younger than that: it goes with it.
            let oldest = self.tracks.iter().map(|(key, t)| (t.first_end(), *key));
            if let Some((_, process)) = oldest.min() {
                self.evict_from(process, 1);
            }
        }
    }

    fn forget_before(&mut self, horizon: MonoNs) {
        let Self {
            tracks,
            by_cgroup,
            intervals,
            bytes,
            ..
        } = self;
        tracks.retain(|process, track| {
            *bytes -= track.bytes();
            *intervals -= track.expire(horizon);
            let keep = !track.is_empty();
            if keep {
                *bytes += track.bytes();
            } else {
                leave(by_cgroup, track.cgroup_id, *process);
            }
            keep
        });
    }

    /// Forgets the eighth of the processes that have been quiet for longest: many at once,
    /// so that a host that forks without end pays little for each.
    fn evict_processes(&mut self) {
        let mut by_age: Vec<(u64, ProcessKey)> = self
            .tracks
            .iter()
            .map(|(key, track)| (track.last_end(), *key))
            .collect();
        let count = by_age.len().div_ceil(8);
        by_age.sort_unstable();
        for (_, process) in by_age.into_iter().take(count) {
            if let Some(track) = self.tracks.remove(&process) {
                self.intervals -= track.len();
                self.bytes -= track.bytes();
                self.evicted += track.len() as u64;
                leave(&mut self.by_cgroup, track.cgroup_id, process);
            }
        }
    }
}

/// Whether it may happen at one moment, without taking time.
const fn is_momentary(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::OomKill
            | Cause::SeccompDenied
            | Cause::Virtqueue
            | Cause::NetDrop
            | Cause::Conntrack
            | Cause::TcpRetransmit
    )
}

/// What a query calls: the interval and what else is known of it.
pub type Visit<'a> = dyn FnMut(&Entry, &Particulars) + 'a;

fn leave(by_cgroup: &mut ByCgroup, cgroup_id: u64, process: ProcessKey) {
    if let Some(members) = by_cgroup.get_mut(&cgroup_id) {
        members.remove(&process);
        if members.is_empty() {
            by_cgroup.remove(&cgroup_id);
        }
    }
}

#[cfg(test)]
mod tests;

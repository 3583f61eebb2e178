//! The intervals of one process, ordered by their end so that a query is a binary search
//! and a walk over little more than what overlaps.

use super::{
    Visit,
    packed::{Packed, Unpacked, whole},
};
use crate::{
    event::{Delay, Particulars},
    vocabulary::Cause,
};

/// One interval, compact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// First nanosecond, monotonic; of whole microseconds, as the end.
    pub start: u64,
    /// One past the last nanosecond, monotonic.
    pub end: u64,
    /// Thread id as the host sees it.
    pub tid: u32,
    /// CPU on which it ended.
    pub cpu: u16,
    /// The mechanism.
    pub cause: Cause,
    /// Index into the track's particulars, [`NOTHING`] for none.
    pub(super) particulars: u8,
}

const NOTHING: u8 = u8::MAX;
/// Intervals up to this length are kept apart from longer ones: a walk must look at what
/// ended up to one longest interval after the span, and this keeps that short.
const SHORT_NS: u64 = 64_000_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Track {
    short: Packed,
    long: Packed,
    /// `(particulars, end of the last interval that has them)`.
    particulars: Vec<(Particulars, u64)>,
    pub(super) cgroup_id: u64,
}

impl Track {
    pub(super) fn len(&self) -> usize {
        self.short.len() + self.long.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that it takes, but for what particulars share with others.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.short.bytes()
            + self.long.bytes()
            + self.particulars.capacity() * size_of::<(Particulars, u64)>()
    }

    pub(super) fn first_end(&self) -> u64 {
        let ends = [self.short.first_end(), self.long.first_end()];
        ends.into_iter().flatten().min().unwrap_or(u64::MAX)
    }

    pub(super) fn last_end(&self) -> u64 {
        self.short.last_end().max(self.long.last_end()).unwrap_or(0)
    }

    pub(super) fn insert(&mut self, delay: &Delay, horizon: crate::time::MonoNs) {
        let (start, end) = (whole(delay.start.0), whole(delay.end.0));
        let particulars = match &delay.particulars {
            Particulars::None => NOTHING,
            particulars => self.index_of(particulars, end, horizon.0),
        };
        let ring = if end - start <= SHORT_NS {
            &mut self.short
        } else {
            &mut self.long
        };
        ring.insert(Entry {
            start,
            end,
            tid: delay.tid,
            cpu: u16::try_from(delay.cpu).unwrap_or(u16::MAX),
            cause: delay.cause,
            particulars,
        });
    }

    /// Forgets what ended before `horizon`; returns how many.
    pub(super) fn expire(&mut self, horizon: crate::time::MonoNs) -> usize {
        self.short.expire(horizon.0) + self.long.expire(horizon.0)
    }

    /// Forgets about `count` of the oldest; returns how many.
    pub(super) fn evict_oldest(&mut self, count: usize) -> usize {
        let mut gone = 0;
        while gone < count && !self.is_empty() {
            let oldest = |packed: &Packed| packed.first_end().unwrap_or(u64::MAX);
            let packed = match oldest(&self.short) <= oldest(&self.long) {
                true if self.short.len() > 0 => &mut self.short,
                _ => &mut self.long,
            };
            gone += packed.evict(count - gone);
        }
        gone
    }

    pub(super) fn overlapping(&self, time: (u64, u64), unpacked: &Unpacked, f: &mut Visit<'_>) {
        let mut visit = |entry: &Entry| {
            let particulars = self.particulars.get(usize::from(entry.particulars));
            f(entry, particulars.map_or(&Particulars::None, |(p, _)| p));
        };
        self.short.overlapping(time, unpacked, &mut visit);
        self.long.overlapping(time, unpacked, &mut visit);
    }

    /// The index of these particulars, put in the place of some that no kept interval has any
    /// more; [`NOTHING`] when all places are taken (254 different ones in a window).
    fn index_of(&mut self, particulars: &Particulars, end: u64, horizon: u64) -> u8 {
        let same = |(known, _): &(Particulars, u64)| known == particulars;
        if let Some(at) = self.particulars.iter().position(same) {
            self.particulars[at].1 = self.particulars[at].1.max(end);
            return at as u8;
        }
        let fresh = (particulars.clone(), end);
        if let Some(at) = self
            .particulars
            .iter()
            .position(|(_, last)| *last < horizon)
        {
            self.particulars[at] = fresh;
            return at as u8;
        }
        if self.particulars.len() >= usize::from(NOTHING) {
            return NOTHING;
        }
        self.particulars.push(fresh);
        (self.particulars.len() - 1) as u8
    }
}

//! Who consumed how much of what, recently: by resource, in order of time.
//!
//! Bounds: [`MAX_RESOURCES`] resources, [`MAX_STRETCHES`] stretches of each (48 bytes each, 25 MB
//! if all were full; a busy disk with eight consumers has 1 000 a second at most and so keeps
//! 32 s). The oldest gives way, and is counted.

use std::{collections::VecDeque, sync::Arc};

use super::timeline::Dropped;
use crate::{
    event::{Consumption, Neighbour, Resource},
    time::MonoNs,
};

/// Resources remembered.
const MAX_RESOURCES: usize = 16;
/// Stretches remembered of one resource.
const MAX_STRETCHES: usize = 1 << 15;
/// Consumers told apart in one query.
const MAX_CONSUMERS: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub struct Consumers {
    /// Few, and the same order for the same input.
    by_resource: Vec<(Resource, Stretches)>,
    evicted: u64,
}

#[derive(Debug, Default)]
struct Stretches {
    /// In order of their ends.
    ring: VecDeque<Stretch>,
    longest_ns: u64,
}

#[derive(Clone, Debug)]
struct Stretch {
    start: u64,
    end: u64,
    amount: u64,
    cgroup_id: u64,
    consumer: Option<Arc<Neighbour>>,
}

/// What one consumer had.
#[derive(Clone, Debug, PartialEq)]
pub struct Had {
    /// Inode of its cgroup; 0 where not known.
    pub cgroup_id: u64,
    /// Who it is; `None` where not known.
    pub consumer: Option<Arc<Neighbour>>,
    /// How much, see [`Resource`].
    pub amount: f64,
}

impl Consumers {
    /// Takes what somebody consumed.
    ///
    /// # Errors
    /// [`Dropped`] if it cannot be kept; nothing has changed then.
    pub fn add(&mut self, of: &Consumption, horizon: MonoNs, now: MonoNs) -> Result<(), Dropped> {
        if of.end < of.start {
            return Err(Dropped::Empty);
        }
        Dropped::check_end(of.end, horizon, now)?;
        let stretch = Stretch {
            start: of.start.0,
            end: of.end.0,
            amount: of.amount,
            cgroup_id: of.cgroup_id,
            consumer: of.consumer.clone(),
        };
        let known = self.by_resource.iter_mut().find(|(r, _)| *r == of.resource);
        if let Some((_, stretches)) = known {
            if stretches.ring.len() >= MAX_STRETCHES {
                stretches.ring.pop_front();
                self.evicted += 1;
            }
            stretches.insert(stretch);
            return Ok(());
        }
        if self.by_resource.len() >= MAX_RESOURCES {
            self.forget_a_resource();
        }
        let mut stretches = Stretches::default();
        stretches.insert(stretch);
        self.by_resource.push((of.resource.clone(), stretches));
        Ok(())
    }

    /// What each had within the windows `(start, end)`, which are in order and do not touch;
    /// a stretch that lies partly in them counts in part.
    #[must_use]
    pub fn within(&self, resource: &Resource, windows: &[(u64, u64)]) -> Vec<Had> {
        let mut all: Vec<Had> = Vec::new();
        let known = self.by_resource.iter().find(|(r, _)| r == resource);
        let Some((_, stretches)) = known else {
            return all;
        };
        for (start, end) in windows {
            stretches.overlapping(*start, *end, |stretch| {
                let amount = stretch.part_within(*start, *end);
                let known = all
                    .iter()
                    .position(|had| had.cgroup_id == stretch.cgroup_id);
                match known {
                    Some(at) => all[at].amount += amount,
                    None if all.len() < MAX_CONSUMERS => all.push(Had {
                        cgroup_id: stretch.cgroup_id,
                        consumer: stretch.consumer.clone(),
                        amount,
                    }),
                    None => {}
                }
            });
        }
        all
    }

    /// The disk with most under way within the windows.
    #[must_use]
    pub fn busiest_disk(&self, windows: &[(u64, u64)]) -> Option<&Resource> {
        let disks = self.by_resource.iter().map(|(resource, _)| resource);
        let disks = disks.filter(|resource| matches!(resource, Resource::Disk(_)));
        let sum = |disk| -> f64 {
            self.within(disk, windows)
                .iter()
                .map(|had| had.amount)
                .sum()
        };
        let mut busiest: Option<(&Resource, f64)> = None;
        for (disk, amount) in disks.map(|disk| (disk, sum(disk))) {
            // Of equals the first, so that the same input gives the same answer.
            if amount > busiest.map_or(0.0, |(_, most)| most) {
                busiest = Some((disk, amount));
            }
        }
        busiest.map(|(disk, _)| disk)
    }

    /// Whether no disk had at least three quarters as much under way as the windows are long;
    /// `false` where no disk is known.
    #[must_use]
    pub fn were_disks_idle(&self, windows: &[(u64, u64)]) -> bool {
        let is_disk = |(resource, _): &(Resource, _)| matches!(resource, Resource::Disk(_));
        if !self.by_resource.iter().any(is_disk) {
            return false;
        }
        let ns: u64 = windows.iter().map(|(start, end)| end - start).sum();
        let had = self.busiest_disk(windows).map_or(0.0, |disk| {
            let had = self.within(disk, windows);
            had.iter().map(|had| had.amount).sum()
        });
        had * 1e3 * 4.0 < ns as f64 * 3.0
    }

    /// Forgets what ended before `horizon`.
    pub fn expire(&mut self, horizon: MonoNs) {
        self.by_resource.retain_mut(|(_, stretches)| {
            while stretches.ring.front().is_some_and(|s| s.end < horizon.0) {
                stretches.ring.pop_front();
            }
            !stretches.ring.is_empty()
        });
    }

    /// Stretches that gave way before their time since the last call.
    pub fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
    }

    /// The one not consumed for longest.
    fn forget_a_resource(&mut self) {
        let last = |stretches: &Stretches| stretches.ring.back().map_or(0, |s| s.end);
        let all = self.by_resource.iter().enumerate();
        if let Some((at, _)) = all.min_by_key(|(_, (_, stretches))| last(stretches)) {
            let (_, gone) = self.by_resource.remove(at);
            self.evicted += gone.ring.len() as u64;
        }
    }
}

impl Stretches {
    fn insert(&mut self, stretch: Stretch) {
        self.longest_ns = self.longest_ns.max(stretch.end - stretch.start);
        if self.ring.back().is_none_or(|last| last.end <= stretch.end) {
            self.ring.push_back(stretch);
        } else {
            // Another CPU's buffer was read first: near the end, so few move.
            let at = self.ring.partition_point(|s| s.end <= stretch.end);
            self.ring.insert(at, stretch);
        }
    }

    fn overlapping(&self, start: u64, end: u64, mut f: impl FnMut(&Stretch)) {
        let first = self.ring.partition_point(|s| s.end < start);
        let last = end.saturating_add(self.longest_ns);
        let near = self.ring.range(first..).take_while(|s| s.end <= last);
        near.filter(|s| s.start < end).for_each(&mut f);
    }
}

impl Stretch {
    /// The part of its amount that falls into `[start, end)`, as if spread evenly.
    fn part_within(&self, start: u64, end: u64) -> f64 {
        let length = self.end - self.start;
        if length == 0 {
            return self.amount as f64;
        }
        let inside = self.end.min(end).saturating_sub(self.start.max(start));
        self.amount as f64 * inside as f64 / length as f64
    }
}

#[cfg(test)]
mod tests;

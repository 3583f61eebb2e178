//! Which quota holds a cgroup back.

use std::{
    collections::HashMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{Layout, Version, inode};
use crate::{event::Limiter, host::proc::read_bounded};

/// A quota is read again after this long, as it may be changed at any time.
const QUOTA_LIFETIME: Duration = Duration::from_secs(1);
/// `cpu.stat` of one group is read again after this long.
const STAT_LIFETIME: Duration = Duration::from_millis(100);
/// Groups remembered; when full, everything is forgotten and read anew.
const MAX_GROUPS: usize = 16_384;

#[derive(Debug, Default)]
pub(super) struct Quotas {
    groups: Mutex<HashMap<String, Group>>,
}

/// One group's limit and how its throttled time moved.
#[derive(Debug)]
struct Group {
    id: u64,
    cores: Option<f64>,
    read_at: Instant,
    throttled: Throttled,
    stat_at: Option<Instant>,
    /// When `throttled` was last seen to have grown.
    grew_at: Option<Instant>,
    /// What is handed out while nothing changed, for itself and for a descendant.
    shared: [Option<Arc<Limiter>>; 2],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Throttled {
    time: u64,
    periods: u64,
}

impl Quotas {
    /// See [`super::Cgroups::limiter`].
    pub fn limiter(
        &self,
        layout: &Layout,
        path: &str,
        hinted: Option<&str>,
        now: Instant,
    ) -> Option<Arc<Limiter>> {
        let mut groups = self.groups.lock();
        if groups.len() >= MAX_GROUPS {
            groups.clear();
        }
        if let Some(hinted) = hinted {
            // The kernel's word stands even where the quota was lifted since.
            refresh(&mut groups, layout, hinted, now);
            let group = groups.get_mut(hinted)?;
            if group.cores.is_some() {
                return group.limiter(layout, hinted, hinted != path);
            }
        }
        let limited: Vec<&str> = chain(path)
            .filter(|ancestor| {
                refresh(&mut groups, layout, ancestor, now);
                groups
                    .get(*ancestor)
                    .is_some_and(|group| group.cores.is_some())
            })
            .collect();
        let chosen = match limited[..] {
            [] => return None,
            [only] => only,
            _ => {
                for ancestor in &limited {
                    if let Some(group) = groups.get_mut(*ancestor) {
                        group.read_stat(layout, ancestor, now);
                    }
                }
                // Before any growth was seen, the totals are the best evidence.
                limited.into_iter().max_by_key(|ancestor| {
                    groups
                        .get(*ancestor)
                        .map(|group| (group.grew_at, group.throttled))
                })?
            }
        };
        groups
            .get_mut(chosen)?
            .limiter(layout, chosen, chosen != path)
    }
}

impl Group {
    fn limiter(&mut self, layout: &Layout, path: &str, is_ancestor: bool) -> Option<Arc<Limiter>> {
        let cores = self.cores?;
        let quota_file = quota_file(layout.version);
        let shared = &mut self.shared[usize::from(is_ancestor)];
        Some(Arc::clone(shared.get_or_insert_with(|| {
            Arc::new(Limiter {
                cgroup_id: self.id,
                cgroup_path: path.to_owned(),
                cores,
                quota_file,
                is_ancestor,
            })
        })))
    }

    fn read_stat(&mut self, layout: &Layout, path: &str, now: Instant) {
        let fresh = self
            .stat_at
            .is_some_and(|at| now.saturating_duration_since(at) < STAT_LIFETIME);
        if fresh {
            return;
        }
        let first = self.stat_at.replace(now).is_none();
        let Some(throttled) = throttled(&layout.directory(path)) else {
            return;
        };
        if !first && throttled > self.throttled {
            self.grew_at = Some(now);
        }
        self.throttled = throttled;
    }
}

/// Reads a group's quota unless what is known is fresh. A group that went away keeps its
/// last known quota: its events may still be under way.
fn refresh(groups: &mut HashMap<String, Group>, layout: &Layout, path: &str, now: Instant) {
    let known = groups.get_mut(path);
    if known
        .as_ref()
        .is_some_and(|group| now.saturating_duration_since(group.read_at) < QUOTA_LIFETIME)
    {
        return;
    }
    let dir = layout.directory(path);
    let id = inode(&dir);
    match (known, id) {
        (Some(group), None) => group.read_at = now,
        (Some(group), Some(id)) if group.id == id => {
            let cores = quota(layout.version, &dir);
            if cores != group.cores {
                group.cores = cores;
                group.shared = [None, None];
            }
            group.read_at = now;
        }
        // New, or another group of the same name.
        (_, id) => {
            let group = Group {
                id: id.unwrap_or(0),
                cores: id.and_then(|_| quota(layout.version, &dir)),
                read_at: now,
                throttled: Throttled::default(),
                stat_at: None,
                grew_at: None,
                shared: [None, None],
            };
            groups.insert(path.to_owned(), group);
        }
    }
}

/// The group and its ancestors, innermost first. The root has no quota.
fn chain(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path.trim_end_matches('/')), |path| {
        path.rfind('/').map(|slash| &path[..slash])
    })
    .take_while(|path| !path.is_empty())
}

/// The file that holds a group's quota.
const fn quota_file(version: Version) -> &'static str {
    match version {
        Version::V1 => "cpu.cfs_quota_us",
        Version::V2 => "cpu.max",
    }
}

/// Quota / period, `None` when unlimited.
fn quota(version: Version, dir: &Path) -> Option<f64> {
    let read = |name: &str| {
        let bytes = read_bounded(&dir.join(name), 256).ok()?;
        String::from_utf8(bytes).ok()
    };
    let limit = read(quota_file(version))?;
    let (quota, period) = match version {
        Version::V2 => {
            let (quota, period) = limit.trim().split_once(' ')?;
            (quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?)
        }
        Version::V1 => {
            let quota: i64 = limit.trim().parse().ok()?;
            let period = read("cpu.cfs_period_us")?.trim().parse().ok()?;
            (u64::try_from(quota).ok()?, period)
        }
    };
    (period > 0).then(|| quota as f64 / period as f64)
}

fn throttled(dir: &Path) -> Option<Throttled> {
    let bytes = read_bounded(&dir.join("cpu.stat"), 4096).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let value = |names: &[&str]| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once(' ')?;
            names.contains(&key).then(|| value.trim().parse().ok())?
        })
    };
    Some(Throttled {
        // v2 counts microseconds, v1 nanoseconds: only ever compared within one version.
        time: value(&["throttled_usec", "throttled_time"])?,
        periods: value(&["nr_throttled"])?,
    })
}

//! What was found, and for how long it is taken for true.

use std::time::{Duration, Instant};

use crate::workload::Workload;

/// What was just found is looked at again after this long, and then after twice as long each
/// time that it is found the same: who confines himself or loads an engine, of which nobody
/// tells, does so soon after his start. Names, too, come a moment after it.
pub(super) const FIRST_LIFETIME: Duration = Duration::from_secs(1);
/// Whatever is told of a process: one that does nothing but exec must not keep the agent busy.
pub(super) const LEAST_LIFETIME: Duration = Duration::from_millis(50);
/// A process is believed to be the same for this long at most: it may exec, move to another
/// cgroup, or install a filter.
pub(super) const PROCESS_LIFETIME: Duration = Duration::from_secs(10);
/// The same where changes are told.
pub(super) const TOLD_PROCESS_LIFETIME: Duration = Duration::from_secs(600);
/// A group is believed to be the same for this long at most.
pub(super) const CGROUP_LIFETIME: Duration = Duration::from_secs(30);
/// The same where changes are told: who stands for a group may leave without a word.
pub(super) const TOLD_CGROUP_LIFETIME: Duration = Duration::from_secs(120);

/// What was found, and when.
#[derive(Clone, Debug)]
pub(super) struct Known<T> {
    pub found: T,
    pub at: Instant,
    /// Of the directory of names.
    pub version: u64,
    /// How often it was looked at and found the same.
    pub confirmed: u32,
    /// Of the changes that may be anybody's; none: it was told to have changed.
    pub epoch: Option<u64>,
}

/// What decides how long something is believed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trust {
    /// Whatever is told.
    pub at_least: Duration,
    /// Without a word of a change.
    pub at_most: Duration,
    /// The present epoch, where changes are told.
    pub epoch: Option<u64>,
}

impl<T> Known<T> {
    pub fn is_fresh(&self, trust: Trust, workload: &Workload) -> bool {
        let age = self.at.elapsed();
        if age < trust.at_least {
            return true;
        }
        if trust.epoch.is_some() && self.epoch != trust.epoch {
            return false;
        }
        // Many more doublings than any lifetime has.
        let grown = FIRST_LIFETIME * (1 << self.confirmed.min(16));
        let lifetime = match workload.lacks_names() {
            true => FIRST_LIFETIME,
            false => grown.min(trust.at_most),
        };
        age < lifetime
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(age: Duration, confirmed: u32, epoch: Option<u64>) -> Known<()> {
        Known {
            found: (),
            at: Instant::now().checked_sub(age).unwrap(),
            version: 0,
            confirmed,
            epoch,
        }
    }

    #[test]
    fn what_is_told_of_is_believed_longer_each_time() {
        let named = Workload::default();
        let nameless = Workload {
            pod_uid: "uid".into(),
            ..Workload::default()
        };
        let untold = Trust {
            at_least: Duration::ZERO,
            at_most: PROCESS_LIFETIME,
            epoch: None,
        };
        let told = Trust {
            at_most: TOLD_PROCESS_LIFETIME,
            epoch: Some(7),
            ..untold
        };
        let fresh = |seconds, confirmed, epoch, trust| {
            known(Duration::from_secs(seconds), confirmed, epoch).is_fresh(trust, &named)
        };
        assert!(fresh(0, 0, Some(7), untold));
        assert!(!fresh(2, 0, Some(7), untold), "just found");
        assert!(fresh(2, 2, Some(7), untold));
        assert!(!fresh(12, 9, Some(7), untold), "nobody tells");
        assert!(fresh(12, 9, Some(7), told));
        assert!(!fresh(12, 2, Some(7), told), "not confirmed often");
        assert!(!fresh(0, 9, Some(6), told), "some were lost");
        assert!(!fresh(0, 9, None, told), "it changed");
        assert!(!fresh(3600, u32::MAX, Some(7), told));
        let busy = Trust {
            at_least: FIRST_LIFETIME,
            ..told
        };
        assert!(fresh(0, 0, None, busy));
        assert!(!fresh(2, 0, None, busy));
        let old = known(Duration::from_secs(2), 9, Some(7));
        assert!(!old.is_fresh(told, &nameless), "names may come");
    }
}

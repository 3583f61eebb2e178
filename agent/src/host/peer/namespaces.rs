//! The network namespaces of this host and the processes in each.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::host::{
    proc::{self, ProcDir},
    roots::Roots,
};

/// A list is good for this long.
const LIFETIME: Duration = Duration::from_secs(5);
/// A fresh one is made at most this often.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// One network namespace.
#[derive(Debug)]
pub(super) struct Namespace {
    /// Inode of its link.
    pub inode: u64,
    /// Processes in it, ascending; never empty.
    pub pids: Vec<u32>,
}

/// What is known of them, cached.
#[derive(Debug)]
pub(super) struct Namespaces {
    roots: Roots,
    inner: Mutex<Option<Listing>>,
}

#[derive(Debug)]
struct Listing {
    /// When reading it began.
    began: Instant,
    /// What making it took: many connections from elsewhere must not keep a CPU busy.
    cost: Duration,
    list: Arc<Vec<Namespace>>,
}

impl Namespaces {
    pub fn new(roots: Roots) -> Self {
        Self {
            roots,
            inner: Mutex::new(None),
        }
    }

    /// The agent's own.
    pub fn own(&self) -> Option<u64> {
        ProcDir::new(&self.roots, proc::own_pid(&self.roots)?).namespace("net")
    }

    /// The list, made at `since` or later; waits for its turn, but not beyond `deadline`:
    /// then the last one must do.
    pub fn list(&self, since: Instant, deadline: Instant) -> Arc<Vec<Namespace>> {
        loop {
            let wait = {
                let mut inner = self.inner.lock();
                let now = Instant::now();
                let wait = match &*inner {
                    Some(known) if known.began >= since || now >= deadline => {
                        return known.list.clone();
                    }
                    Some(known) => MIN_INTERVAL
                        .max(known.cost * 10)
                        .saturating_sub(now.saturating_duration_since(known.began)),
                    None => Duration::ZERO,
                };
                if wait.is_zero() {
                    let list = Arc::new(self.read());
                    *inner = Some(Listing {
                        began: now,
                        cost: now.elapsed(),
                        list: list.clone(),
                    });
                    return list;
                }
                wait
            };
            let left = deadline.saturating_duration_since(Instant::now());
            std::thread::sleep(wait.min(left));
        }
    }

    /// The last list, if it is not too old to be worth a look.
    pub fn known(&self) -> Option<Arc<Vec<Namespace>>> {
        let inner = self.inner.lock();
        let known = inner.as_ref()?;
        (known.began.elapsed() < LIFETIME).then(|| known.list.clone())
    }

    fn read(&self) -> Vec<Namespace> {
        let mut pids = proc::pids(&self.roots);
        pids.sort_unstable();
        let mut namespaces: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        for pid in pids {
            let dir = ProcDir::new(&self.roots, pid);
            // Kernel threads hold no descriptors.
            if let Some(inode) = dir.namespace("net")
                && dir.exe().is_some()
            {
                namespaces.entry(inode).or_default().push(pid);
            }
        }
        namespaces
            .into_iter()
            .map(|(inode, pids)| Namespace { inode, pids })
            .collect()
    }
}

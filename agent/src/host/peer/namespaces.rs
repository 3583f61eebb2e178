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
    made: Instant,
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

    /// The list, and whether it was made just now; `fresh` asks for that.
    pub fn list(&self, fresh: bool) -> (Arc<Vec<Namespace>>, bool) {
        let mut inner = self.inner.lock();
        if let Some(known) = &*inner {
            let lifetime = if fresh {
                MIN_INTERVAL.max(known.cost * 10)
            } else {
                LIFETIME
            };
            if known.made.elapsed() < lifetime {
                return (known.list.clone(), fresh);
            }
        }
        let start = Instant::now();
        let list = Arc::new(self.read());
        let made = Instant::now();
        *inner = Some(Listing {
            made,
            cost: made - start,
            list: list.clone(),
        });
        (list, true)
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

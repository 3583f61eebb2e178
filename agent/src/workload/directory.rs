//! Who is called what on this node: pods by uid, their containers by id. Written by those that
//! ask Kubernetes and the container runtime, read by whoever names a workload. Pure: time is an
//! argument.
//!
//! The dead stay for a while, as events and spans of them are still under way.

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use parking_lot::RwLock;

use super::{
    NamesFrom,
    pod::{Pod, PodContainer},
};

/// Pods that live, at most; the kubelet's own usual bound is 110.
pub const MAX_LIVE: usize = 4_096;
/// Pods that are gone and still known, at most.
pub const MAX_DEAD: usize = 4_096;
/// A pod that is gone is known for this long.
pub const GRACE: Duration = Duration::from_secs(600);

/// See the module's head. Thread-safe.
#[derive(Debug, Default)]
pub struct Directory {
    inner: RwLock<Inner>,
    version: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    pods: HashMap<String, Entry>,
    /// Uid of the pod of each container id.
    containers: HashMap<String, String>,
    refused: u64,
}

#[derive(Debug)]
struct Entry {
    pod: Arc<Pod>,
    from: NamesFrom,
    gone: Option<Instant>,
}

/// A pod, and whose word it is.
#[derive(Clone, Debug)]
pub struct Known {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Who told of it.
    pub from: NamesFrom,
}

/// How much is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Pods that live.
    pub live: usize,
    /// Pods that are gone.
    pub dead: usize,
    /// Containers of both.
    pub containers: usize,
    /// Pods that were not taken because of [`MAX_LIVE`].
    pub refused: u64,
}

impl Directory {
    /// Grows with every change: who keeps an answer knows when to ask again.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Relaxed)
    }

    /// Takes a pod's new state. A weaker word than the one known does not change the names,
    /// only adds containers. A cached word never overrides. A mirror never gives a static pod
    /// another name.
    pub fn apply(&self, pod: Pod, from: NamesFrom) {
        let mut inner = self.inner.write();
        if inner.apply(pod, from) {
            self.version.fetch_add(1, Relaxed);
        }
    }

    /// The pod with this uid (or mirror uid) went away.
    pub fn remove(&self, uid: &str, now: Instant) {
        let mut inner = self.inner.write();
        let gone = inner
            .pods
            .values_mut()
            .find(|entry| entry.pod.uid == uid || entry.pod.mirror_uid == uid);
        if let Some(entry) = gone {
            entry.gone.get_or_insert(now);
            self.version.fetch_add(1, Relaxed);
        }
        inner.forget(now);
    }

    /// A complete list: pods that `from` or a weaker source told of and that are not in it are
    /// gone.
    pub fn replace(&self, pods: Vec<Pod>, from: NamesFrom, now: Instant) {
        self.take_list(pods, from, now, |entry| entry.from <= from);
    }

    /// A list that may lack some. One that is new and has the name of another has its place: that
    /// one is gone.
    pub fn tell(&self, pods: Vec<Pod>, from: NamesFrom, now: Instant) {
        self.take_list(pods, from, now, |_| false);
    }

    fn take_list(
        &self,
        pods: Vec<Pod>,
        from: NamesFrom,
        now: Instant,
        covers: impl Fn(&Entry) -> bool,
    ) {
        let mut inner = self.inner.write();
        let listed: HashSet<String> = pods.iter().map(|pod| pod.uid.clone()).collect();
        let replaced: HashSet<(String, String)> = pods
            .iter()
            .filter(|pod| from >= NamesFrom::Kubelet && !inner.pods.contains_key(&pod.uid))
            .map(|pod| (pod.namespace.clone(), pod.name.clone()))
            .collect();
        // Gone first: there must be room for the new ones.
        for entry in inner.pods.values_mut() {
            let pod = &entry.pod;
            let is_replaced = || replaced.contains(&(pod.namespace.clone(), pod.name.clone()));
            if !listed.contains(&pod.uid) && (covers(entry) || is_replaced()) {
                entry.gone.get_or_insert(now);
            }
        }
        for pod in pods {
            inner.apply(pod, from);
        }
        inner.forget(now);
        self.version.fetch_add(1, Relaxed);
    }

    /// `from` tells no more: its word counts as what was known before, until somebody else's.
    pub fn fell_silent(&self, from: NamesFrom) {
        let mut inner = self.inner.write();
        for entry in inner.pods.values_mut() {
            if entry.from == from {
                entry.from = NamesFrom::Cache;
            }
        }
        self.version.fetch_add(1, Relaxed);
    }

    /// Forgets who is gone for longer than [`GRACE`].
    pub fn forget(&self, now: Instant) {
        self.inner.write().forget(now);
    }

    /// The pod with this uid, gone or not.
    #[must_use]
    pub fn pod(&self, uid: &str) -> Option<Known> {
        let inner = self.inner.read();
        let entry = inner.pods.get(uid)?;
        Some(entry.known())
    }

    /// The pod that has or had a container with this id.
    #[must_use]
    pub fn pod_of_container(&self, id: &str) -> Option<Known> {
        let inner = self.inner.read();
        let entry = inner.pods.get(inner.containers.get(id)?)?;
        Some(entry.known())
    }

    /// Uid of a pod by its names, one that lives before one that is gone; with an empty
    /// namespace only where the name is unique here.
    #[must_use]
    pub fn uid_of(&self, namespace: &str, name: &str) -> Option<String> {
        let inner = self.inner.read();
        let is_called_so = |entry: &&Entry| {
            let pod = &entry.pod;
            pod.name == name && (namespace.is_empty() || pod.namespace == namespace)
        };
        let (live, dead): (Vec<_>, Vec<_>) = inner
            .pods
            .values()
            .filter(is_called_so)
            .partition(|entry| entry.gone.is_none());
        // Of two that live nobody can say which; and it is none that is gone.
        match (&live[..], &dead[..]) {
            ([only], _) | ([], [only]) => Some(only.pod.uid.clone()),
            _ => None,
        }
    }

    /// Uid of its cgroup, of a pod by the uid that the API has for it.
    #[must_use]
    pub fn cgroup_uid(&self, uid: &str) -> Option<String> {
        let inner = self.inner.read();
        if inner.pods.contains_key(uid) {
            return Some(uid.to_owned());
        }
        let entry = inner.pods.values().find(|e| e.pod.mirror_uid == uid)?;
        Some(entry.pod.uid.clone())
    }

    /// Everything known, the dead too.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Pod>> {
        let inner = self.inner.read();
        inner.pods.values().map(|entry| entry.pod.clone()).collect()
    }

    /// How much is known.
    #[must_use]
    pub fn size(&self) -> Size {
        let inner = self.inner.read();
        let dead = inner.pods.values().filter(|e| e.gone.is_some()).count();
        Size {
            live: inner.pods.len() - dead,
            dead,
            containers: inner.containers.len(),
            refused: inner.refused,
        }
    }
}

impl Entry {
    fn known(&self) -> Known {
        Known {
            pod: self.pod.clone(),
            from: self.from,
        }
    }
}

impl Inner {
    /// Whether anything changed.
    fn apply(&mut self, mut pod: Pod, from: NamesFrom) -> bool {
        if !self.pods.contains_key(&pod.uid) && self.live() >= MAX_LIVE {
            self.refused += 1;
            return false;
        }
        match self.pods.get_mut(&pod.uid) {
            Some(entry) => {
                // Whoever may make pods can call one the mirror of any static pod. A real one has
                // that pod's names, and the node itself knows them.
                let known = &entry.pod;
                let renames = (&pod.namespace, &pod.name) != (&known.namespace, &known.name);
                if renames && !pod.mirror_uid.is_empty() {
                    return false;
                }
                let exposes = renames && !known.mirror_uid.is_empty() && from > NamesFrom::Cache;
                let (pod, from, gone) = if exposes {
                    (pod, from, None)
                } else if from >= entry.from {
                    pod.keep_containers_of(&entry.pod);
                    (pod, from, None)
                } else {
                    let mut stronger = (*entry.pod).clone();
                    stronger.keep_containers_of(&pod);
                    (stronger, entry.from, entry.gone)
                };
                if *entry.pod == pod && entry.from == from && entry.gone == gone {
                    return false;
                }
                let pod = Arc::new(pod);
                let new = Entry {
                    pod: pod.clone(),
                    from,
                    gone,
                };
                let earlier = std::mem::replace(entry, new);
                for container in &earlier.pod.containers {
                    // Of more lives than are kept.
                    if pod.container(&container.id).is_none() {
                        self.containers.remove(&container.id);
                    }
                }
                self.index(&pod.uid, &pod.containers);
            }
            None => {
                self.index(&pod.uid, &pod.containers);
                let entry = Entry {
                    pod: Arc::new(pod),
                    from,
                    gone: None,
                };
                self.pods.insert(entry.pod.uid.clone(), entry);
            }
        }
        true
    }

    fn index(&mut self, uid: &str, containers: &[PodContainer]) {
        for container in containers {
            // Ids are random: the first to have one keeps it.
            self.containers
                .entry(container.id.clone())
                .or_insert_with(|| uid.to_owned());
        }
    }

    fn live(&self) -> usize {
        self.pods.values().filter(|e| e.gone.is_none()).count()
    }

    fn forget(&mut self, now: Instant) {
        let mut dead: Vec<(Instant, String)> = self
            .pods
            .iter()
            .filter_map(|(uid, entry)| Some((entry.gone?, uid.clone())))
            .collect();
        dead.sort_unstable();
        let too_many = dead.len().saturating_sub(MAX_DEAD);
        for (index, (gone, uid)) in dead.into_iter().enumerate() {
            if (index < too_many || now.saturating_duration_since(gone) >= GRACE)
                && let Some(entry) = self.pods.remove(&uid)
            {
                for container in &entry.pod.containers {
                    if self.containers.get(&container.id) == Some(&uid) {
                        self.containers.remove(&container.id);
                    }
                }
            }
        }
    }
}

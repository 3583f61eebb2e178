//! Containers that a resource names, among the cgroups of this host.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{
    host::identify::Identifier,
    process::SharedIdentity,
    span::Resource,
    workload::path::{PathKind, PathNames, place::is_below},
};

/// Processes looked at in one container.
const MAX_PROCESSES: usize = 1024;

/// The cgroups that are containers, listed at most once in [`LIFETIME`].
#[derive(Debug, Default)]
pub(crate) struct ContainerIndex(Mutex<Option<(Instant, List)>>);

type List = Arc<Vec<(Arc<str>, PathNames)>>;

/// A list is good for this long: no longer than an answer without a process is kept.
const LIFETIME: Duration = Duration::from_secs(1);

impl ContainerIndex {
    pub fn get(&self, identifier: &Identifier) -> List {
        let mut list = self.0.lock();
        if let Some((at, list)) = &*list
            && at.elapsed() < LIFETIME
        {
            return list.clone();
        }
        let all = identifier.cgroups().all().into_iter();
        let new: List = Arc::new(
            all.map(|(_, path)| (path.clone(), identifier.settled_names(&path)))
                .filter(|(_, names)| names.kind == PathKind::Container)
                .collect(),
        );
        *list = Some((Instant::now(), new.clone()));
        new
    }
}

pub(super) struct Containers<'a> {
    identifier: &'a Identifier,
    all: List,
}

/// Whether it can be a container's id or its usual short form.
pub(super) fn is_id(text: &str) -> bool {
    (12..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

impl<'a> Containers<'a> {
    pub const fn new(identifier: &'a Identifier, all: List) -> Self {
        Self { identifier, all }
    }

    /// Cgroup paths of the container that the resource names by id, else of the containers
    /// of the pod that it names by uid or name; `None` when it names none that is here.
    pub fn named_by(&self, resource: &Resource) -> Option<Vec<Arc<str>>> {
        let naming = self.identifier.naming();
        let paths = if is_id(&resource.container_id) {
            let id = resource.container_id.to_ascii_lowercase();
            self.tops(|names| names.container_id.starts_with(&id))
        } else if resource.container_id.is_empty() {
            let uid = if resource.pod_uid.is_empty() && !resource.pod.is_empty() {
                naming.pod_uid(&resource.namespace, &resource.pod)?
            } else {
                let uid = resource.pod_uid.to_ascii_lowercase();
                naming.directory().cgroup_uid(&uid).unwrap_or(uid)
            };
            if uid.is_empty() {
                return None;
            }
            let mut paths = self.tops(|names| names.pod_uid == uid);
            paths.retain(|path| !self.is_pause(path));
            paths
        } else {
            return None;
        };
        (!paths.is_empty()).then_some(paths)
    }

    /// Processes of these groups and the groups below them, lowest pid first.
    pub fn processes(&self, paths: &[Arc<str>]) -> Vec<SharedIdentity> {
        let cgroups = self.identifier.cgroups();
        let mut pids: Vec<u32> = self
            .all
            .iter()
            .filter(|(path, _)| paths.iter().any(|top| is_below(path, top)))
            .flat_map(|(path, _)| cgroups.processes(path))
            .take(MAX_PROCESSES)
            .collect();
        pids.sort_unstable();
        pids.into_iter()
            .filter_map(|pid| self.identifier.identify(pid))
            .filter(|identity| paths.iter().any(|top| is_below(&identity.cgroup_path, top)))
            .collect()
    }

    /// The groups that match and are not below another one that matches.
    fn tops(&self, matches: impl Fn(&PathNames) -> bool) -> Vec<Arc<str>> {
        let mut found: Vec<Arc<str>> = self
            .all
            .iter()
            .filter(|(_, names)| matches(names))
            .map(|(path, _)| path.clone())
            .collect();
        found.sort_unstable();
        found.dedup_by(|path, top| is_below(path, top));
        // A group that is remembered but gone has no processes; one whose path claims what is
        // not its own has none that are identified so.
        found.retain(|path| {
            let processes = self.processes(std::slice::from_ref(path));
            processes.iter().any(|process| {
                matches(&PathNames {
                    container_id: process.workload.container_id.clone(),
                    pod_uid: process.workload.pod_uid.clone(),
                    ..PathNames::default()
                })
            })
        });
        found
    }

    /// The sandbox container that holds a pod's namespaces and runs nothing else.
    fn is_pause(&self, path: &Arc<str>) -> bool {
        self.processes(std::slice::from_ref(path))
            .iter()
            .all(|process| process.comm == "pause")
    }
}

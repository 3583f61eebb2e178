//! What is the same for every process of one cgroup: looked up once for the group.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Identifier,
    known::{CGROUP_LIFETIME, FIRST_LIFETIME, PROCESS_LIFETIME},
};
use crate::{
    stack::process::{LogNames, RuntimeState, levels},
    workload::path::{PathKind, PathNames},
};

/// State directories of low-level runtimes below the host's root; `{}` is the container id.
const STATES: &[(&str, &str)] = &[
    ("runc", "run/containerd/runc/k8s.io/{}/state.json"),
    ("runc", "run/containerd/runc/moby/{}/state.json"),
    ("runc", "run/containerd/runc/default/{}/state.json"),
    ("runc", "run/docker/runtime-runc/moby/{}/state.json"),
    ("runc", "run/runc/{}/state.json"),
    ("crun", "run/crun/{}/status"),
    ("youki", "run/youki/{}/state.json"),
];

/// See the module's head.
#[derive(Debug)]
pub(super) struct Group {
    /// Inode of its directory; another group was given the path if it differs.
    pub id: u64,
    /// What its path says.
    pub names: PathNames,
    /// See `ProcessFacts::cgroup_maker`.
    pub maker: u32,
    /// See `ProcessFacts::id_is_taken`.
    pub id_is_taken: bool,
    /// What a low-level runtime keeps about the container of that name.
    pub runtime_state: Option<RuntimeState>,
    /// What the kubelet called its logs.
    pub log_names: LogNames,
    at: Instant,
}

impl Group {
    fn is_fresh(&self) -> bool {
        self.at.elapsed() < self.lifetime()
    }

    /// What is missing may come: a runtime writes its state while the first process starts,
    /// the kubelet makes its links a moment later.
    fn lifetime(&self) -> Duration {
        let unnamed = !self.names.pod_uid.is_empty() && self.log_names.pod.is_empty();
        match self.runtime_state.is_none() || unnamed {
            true => FIRST_LIFETIME,
            false => PROCESS_LIFETIME,
        }
    }
}

impl Identifier {
    /// The group of this path and inode.
    pub(super) fn group(&self, path: &str, id: u64) -> Arc<Group> {
        let known = self.groups.lock().get(path);
        if let Some(known) = known.filter(|group| group.id == id && group.is_fresh()) {
            return known;
        }
        let names = PathNames::parse(path);
        let (maker, id_is_taken) = self.maker_of(path);
        let group = Arc::new(Group {
            id,
            runtime_state: self.runtime_state(&names, path),
            log_names: self.log_names(&names),
            names,
            maker,
            id_is_taken,
            at: Instant::now(),
        });
        self.groups.lock().insert(path.to_owned(), group.clone());
        group
    }

    /// Who made the outermost container's or pod's group, and whether its id is another's.
    fn maker_of(&self, path: &str) -> (u32, bool) {
        let Some(outermost) = levels(path).into_iter().next() else {
            return (0, false);
        };
        let parent = &path[..outermost.begin];
        let maker = self.cgroups.owner_of(parent).unwrap_or(0);
        let id = &outermost.names.container_id;
        let is_taken = maker != 0 && !id.is_empty() && self.id_is_taken(outermost.path(path), id);
        (maker, is_taken)
    }

    /// Whether a group elsewhere has this container id in its path. Asked only for groups
    /// that a user made, and remembered for a while.
    fn id_is_taken(&self, own: &str, id: &str) -> bool {
        let known = self.imitations.lock().get(own);
        if let Some((taken, at)) = known
            && at.elapsed() < CGROUP_LIFETIME
        {
            return taken;
        }
        let taken = self
            .cgroups
            .all()
            .iter()
            .any(|(_, path)| path.contains(id) && !path.starts_with(own));
        let entry = (taken, Instant::now());
        self.imitations.lock().insert(own.to_owned(), entry);
        taken
    }

    /// The state that a low-level runtime keeps about the container of a cgroup.
    fn runtime_state(&self, names: &PathNames, path: &str) -> Option<RuntimeState> {
        let id = match names.kind {
            PathKind::Container if !names.container_id.is_empty() => &*names.container_id,
            // A runtime called by hand: the group has the container's name.
            PathKind::Plain => path.rsplit('/').next()?,
            _ => return None,
        };
        let root = self.host_root.as_ref()?;
        STATES.iter().find_map(|(technology, form)| {
            let file = form.replace("{}", id);
            root.join(&file).exists().then(|| RuntimeState {
                technology: (*technology).to_owned(),
                id: id.to_owned(),
                path: format!("/{file}"),
            })
        })
    }

    fn log_names(&self, names: &PathNames) -> LogNames {
        if names.pod_uid.is_empty() {
            return LogNames::default();
        }
        self.naming
            .logs()
            .names(&names.container_id, &names.pod_uid)
    }
}

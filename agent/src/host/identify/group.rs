//! What is the same for every process of one cgroup: looked up once for the group.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Identifier,
    known::{FIRST_LIFETIME, PROCESS_LIFETIME},
    origin::Origin,
    runtime_state,
};
use crate::{
    stack::process::{LogNames, RuntimeState},
    workload::path::{PathNames, levels},
};

/// See the module's head.
#[derive(Debug)]
pub(super) struct Group {
    /// Inode of its directory; another group was given the path if it differs.
    pub id: u64,
    /// What its path says.
    pub names: PathNames,
    /// Where the groups of its path come from.
    pub origin: Origin,
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
        let origin = self.origin(path, &levels(path));
        let group = Arc::new(Group {
            id,
            runtime_state: self
                .host_root
                .as_deref()
                .and_then(|root| runtime_state::find(root, &names, path)),
            log_names: self.log_names(&names),
            names,
            origin,
            at: Instant::now(),
        });
        self.groups.lock().insert(path.to_owned(), group.clone());
        group
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

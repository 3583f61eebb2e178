//! What the ids in a cgroup path are called, by whoever is to be believed: the Kubernetes API,
//! the container runtime, the engine's own files, the kubelet's logs, in this order.

#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::Arc};

use super::{engine_files::EngineFiles, kubelet_logs::KubeletLogs};
use crate::workload::{NamesFrom, Workload, directory::Directory};

/// See the module's head.
#[derive(Debug)]
pub struct Naming {
    directory: Arc<Directory>,
    logs: KubeletLogs,
    engines: EngineFiles,
}

impl Naming {
    /// `host_root`: the host's root directory, where it can be seen.
    #[must_use]
    pub fn new(host_root: Option<PathBuf>) -> Self {
        let logs = host_root.clone().or_else(|| {
            // A pod may not look into pid 1 everywhere: then its own mounts of them count.
            let mounted = std::path::Path::new("/var/log/pods").is_dir();
            mounted.then(|| "/".into())
        });
        Self {
            directory: Arc::default(),
            logs: KubeletLogs::new(logs),
            engines: EngineFiles::new(host_root),
        }
    }

    /// What Kubernetes and the runtime say; their clients write it.
    #[must_use]
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// The names that the kubelet's logs give.
    #[must_use]
    pub fn logs(&self) -> &KubeletLogs {
        &self.logs
    }

    /// Uid, as cgroups have it, of a pod by its names.
    #[must_use]
    pub fn pod_uid(&self, namespace: &str, pod: &str) -> Option<String> {
        self.directory
            .uid_of(namespace, pod)
            .or_else(|| self.logs.pod_uid(namespace, pod))
    }

    /// Whether the container or pod of this id is elsewhere than in the group `own`; `None` where
    /// nobody says. Where the engine asked for a group, that is where it is; other pods that
    /// Kubernetes has told of are where their kubelet keeps them.
    #[must_use]
    pub fn word_on(&self, id: &str, own: &str) -> Option<bool> {
        if let Some(engine) = self.engines.get(id).filter(|e| !e.cgroup.is_empty()) {
            return Some(!engine.is_at(own));
        }
        let told =
            self.directory.pod(id).is_some() || self.directory.pod_of_container(id).is_some();
        told.then_some(true)
    }

    /// Adds the names that others give to what the path says.
    pub fn complete(&self, workload: &mut Workload, path: &str) {
        if workload.pod_uid.is_empty()
            && let Some(known) = self.directory.pod_of_container(&workload.container_id)
        {
            // The runtime keeps it elsewhere than a kubelet would: as `crictl` and other clients
            // of its interface may ask it to.
            workload.pod_uid.clone_from(&known.pod.uid);
        }
        if !workload.pod_uid.is_empty() {
            self.name_pod(workload);
        } else if let Some(engine) = self.engines.get(&workload.container_id)
            && engine.is_at(path)
            && !engine.name.is_empty()
        {
            workload.container = engine.name;
            workload.names_from = NamesFrom::Engine;
        }
    }

    fn name_pod(&self, workload: &mut Workload) {
        let (uid, id) = (&workload.pod_uid, &workload.container_id);
        workload.names_from = NamesFrom::Nobody;
        workload.namespace.clear();
        workload.pod.clear();
        workload.container.clear();
        let known = self.directory.pod(uid);
        let mut container = String::new();
        if let Some(known) = &known {
            let pod = &known.pod;
            workload.namespace.clone_from(&pod.namespace);
            workload.pod.clone_from(&pod.name);
            workload.owner.clone_from(&pod.owner);
            workload.labels.clone_from(&pod.labels);
            workload.names_from = known.from;
            container = pod.container(id).unwrap_or_default().to_owned();
        }
        if !container.is_empty() || id.is_empty() && known.is_some() {
            workload.container = container;
            return;
        }
        // The API tells of a container's id seconds after its start; the node knows at once.
        let engine = self.engines.get(id).filter(|engine| engine.pod_uid == *uid);
        let logs = || {
            let names = self.logs.names(id, uid);
            (!names.pod.is_empty()).then_some(names)
        };
        let (namespace, pod, container, from) = match engine {
            Some(engine) => (engine.namespace, engine.pod, engine.name, NamesFrom::Engine),
            None => match logs() {
                Some(names) => (names.namespace, names.pod, names.container, NamesFrom::Logs),
                None => return,
            },
        };
        if known.is_none() {
            workload.namespace = namespace;
            workload.pod = pod;
            workload.container = container;
            workload.names_from = from;
        } else if workload.namespace == namespace && workload.pod == pod {
            workload.container = container;
        }
    }
}

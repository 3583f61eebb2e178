//! What the ids in a cgroup path are called, by whoever is to be believed: the Kubernetes API,
//! the container runtime, the engine's own files, the kubelet's logs, in this order.

#[cfg(test)]
mod tests;

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    cgroup::Cgroups, engine_files::EngineFiles, identify::cache::Generations,
    kubelet_logs::KubeletLogs,
};
use crate::{
    host::{proc::ProcDir, proc::own_pid, roots::Roots},
    workload::{
        NamesFrom, Workload,
        directory::Directory,
        path::{PathKind, PathNames, Place, Settled, kubelet_root},
    },
};

/// See the module's head.
#[derive(Debug)]
pub struct Naming {
    directory: Arc<Directory>,
    logs: KubeletLogs,
    engines: EngineFiles,
    /// Groups other than `/` below which a kubelet keeps its pods.
    kubelet_roots: OnceLock<Vec<String>>,
    /// Groups with a container's form where others than engines write, and whether it is one.
    believed: Mutex<Generations<String, (bool, Instant)>>,
}

/// Such groups remembered.
const MAX_BELIEVED: usize = 4_096;
/// They are looked at again after this long.
const BELIEF_LIFETIME: Duration = Duration::from_secs(30);

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
            kubelet_roots: OnceLock::new(),
            believed: Mutex::new(Generations::new(MAX_BELIEVED)),
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

    /// The names in a path that its processes did not make up.
    #[must_use]
    pub fn settle(&self, path: &str, roots: &Roots, cgroups: &Cgroups) -> PathNames {
        let kubelets = self
            .kubelet_roots
            .get_or_init(|| own_kubelet(roots, cgroups));
        let Settled { names, place } = PathNames::settled(path, kubelets);
        let id = &names.container_id;
        if place != Place::Elsewhere || id.is_empty() {
            return names;
        }
        // Where others than engines write, an id counts if the engine says that it is there,
        // or if no other group has it.
        let known = self.believed.lock().get(&path.to_owned());
        let believed = match known.filter(|(_, at)| at.elapsed() < BELIEF_LIFETIME) {
            Some((believed, _)) => believed,
            None => {
                let believed = match self.engines.get(id).filter(|e| !e.cgroup.is_empty()) {
                    Some(engine) => engine.is_at(path),
                    None => !cgroups.all().iter().any(|(_, other)| {
                        other.contains(&**id) && {
                            let other = PathNames::settled(other, kubelets);
                            other.place != Place::Elsewhere && other.names.container_id == *id
                        }
                    }),
                };
                let entry = (believed, Instant::now());
                self.believed.lock().insert(path.to_owned(), entry);
                believed
            }
        };
        if believed {
            return names;
        }
        let at = path.find(&**id).unwrap_or(path.len());
        let before = path[..at].rfind('/').unwrap_or(0);
        PathNames::parse(&path[..before])
    }

    /// Puts the names right that `process_workload` took from the path, and adds those that
    /// others give.
    pub fn complete(&self, workload: &mut Workload, path: &str, roots: &Roots, cgroups: &Cgroups) {
        let names = self.settle(path, roots, cgroups);
        self.correct(workload, path, &names);
        if !names.pod_uid.is_empty() {
            self.name_pod(workload);
        } else if names.kind == PathKind::Container
            && workload.container_id == names.container_id
            && let Some(engine) = self.engines.get(&workload.container_id)
            && engine.is_at(path)
            && !engine.name.is_empty()
        {
            workload.container = engine.name;
            workload.names_from = NamesFrom::Engine;
        }
    }

    /// What the innermost groups claim gives way to what is settled.
    fn correct(&self, workload: &mut Workload, path: &str, settled: &PathNames) {
        let claimed = PathNames::parse(path);
        if claimed == *settled {
            return;
        }
        workload.namespace.clear();
        workload.pod.clear();
        workload.pod_uid.clone_from(&settled.pod_uid);
        workload.container.clone_from(&settled.container);
        workload.container_id.clone_from(&settled.container_id);
        workload.unit.clone_from(&settled.unit);
        if !settled.engine.is_empty() {
            settled.engine.clone_into(&mut workload.runtime);
        } else if settled.kind == PathKind::Unit {
            "systemd".clone_into(&mut workload.runtime);
        } else if settled.kind == PathKind::Plain {
            workload.runtime.clear();
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

/// Where the kubelet that runs the agent's own pod keeps pods, if that is not `/`.
fn own_kubelet(roots: &Roots, cgroups: &Cgroups) -> Vec<String> {
    let path = own_pid(roots)
        .and_then(|pid| ProcDir::new(roots, pid).cgroups().ok())
        .map(|lines| cgroups.path_of(&lines));
    let root = path.and_then(|path| kubelet_root(&path));
    root.into_iter().filter(|root| !root.is_empty()).collect()
}

//! Names of containers from the files that engines keep about them: no socket, no engine
//! running, and there as long as the container is. All belong to root; those of rootless
//! Podman, which a user could write, are not read.

mod podman;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde::Deserialize;

use super::{identify::cache::Generations, proc::read_bounded};
use crate::workload::path::place::is_below;

/// Containers remembered.
const MAX_CONTAINERS: usize = 8_192;
/// A container without files is looked for again after this long.
const MISS_LIFETIME: Duration = Duration::from_secs(2);
/// Most bytes read of a file; a bundle's configuration holds its seccomp filter.
const MAX_FILE: u64 = 8 << 20;
/// Bytes kept of a name.
const MAX_NAME: usize = 253;

/// OCI bundles below the host's root; `{}` is the container id.
const BUNDLES: &[&str] = &[
    "run/containerd/io.containerd.runtime.v2.task/k8s.io/{}/config.json",
    "run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/{}/config.json",
    "run/containerd/io.containerd.runtime.v2.task/default/{}/config.json",
    "run/containerd/io.containerd.runtime.v2.task/moby/{}/config.json",
    "run/docker/containerd/daemon/io.containerd.runtime.v2.task/moby/{}/config.json",
    "run/containers/storage/overlay-containers/{}/userdata/config.json",
    "var/lib/containers/storage/overlay-containers/{}/userdata/config.json",
    "var/lib/containers/storage/vfs-containers/{}/userdata/config.json",
];
/// Where Docker keeps a container's configuration.
const DOCKER: &str = "var/lib/docker/containers/{}/config.v2.json";

/// What an engine keeps about a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineNames {
    /// Its name.
    pub name: String,
    /// Of a pod's container.
    pub namespace: String,
    /// Of a pod's container.
    pub pod: String,
    /// Of a pod's container.
    pub pod_uid: String,
    /// The cgroup that the engine asked for, from the hierarchy's root; empty when not known.
    pub cgroup: String,
}

impl EngineNames {
    /// Whether a process in this cgroup is in this container.
    #[must_use]
    pub fn is_at(&self, path: &str) -> bool {
        !self.cgroup.is_empty() && is_below(path, &self.cgroup)
    }
}

/// The files, cached.
#[derive(Debug)]
pub struct EngineFiles {
    /// The host's root directory; without it nothing is known.
    root: Option<PathBuf>,
    known: Mutex<Generations<String, (Option<EngineNames>, Instant)>>,
    podman: podman::Names,
}

impl EngineFiles {
    /// Looks below the host's root directory.
    #[must_use]
    pub fn new(root: Option<PathBuf>) -> Self {
        Self {
            root,
            known: Mutex::new(Generations::new(MAX_CONTAINERS)),
            podman: podman::Names::default(),
        }
    }

    /// What is known of the container with this id (64 hexadecimal digits). What was known
    /// stays so when the files go: ids are not used again.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<EngineNames> {
        let root = self.root.as_ref()?;
        if id.len() != 64 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        if let Some((names, at)) = self.known.lock().get(&id.to_owned())
            && (names.is_some() || at.elapsed() < MISS_LIFETIME)
        {
            return names;
        }
        let read = |form: &str| {
            let path = root.join(form.replace("{}", id));
            read_bounded(&path, MAX_FILE).ok()
        };
        let mut names = BUNDLES
            .iter()
            .find_map(|form| bundle(&read(form)?))
            .unwrap_or_default();
        if names.name.is_empty()
            && let Some(docker) = read(DOCKER).and_then(|file| docker(&file))
        {
            names.name = docker;
        }
        if names.name.is_empty()
            && let Some(podman) = self.podman.get(root, id)
        {
            names.name = podman;
        }
        let names = (names != EngineNames::default()).then_some(names);
        let entry = (names.clone(), Instant::now());
        self.known.lock().insert(id.to_owned(), entry);
        names
    }
}

/// `config.json` of an OCI bundle.
#[derive(Deserialize)]
struct Bundle {
    #[serde(default)]
    annotations: HashMap<String, String>,
    #[serde(default)]
    linux: BundleLinux,
}

#[derive(Default, Deserialize)]
struct BundleLinux {
    #[serde(rename = "cgroupsPath", default)]
    cgroups_path: String,
}

fn bundle(file: &[u8]) -> Option<EngineNames> {
    let bundle: Bundle = serde_json::from_slice(file).ok()?;
    // containerd's word for it, CRI-O's, and nerdctl's.
    let first = |keys: &[&str]| {
        let value = keys.iter().find_map(|key| bundle.annotations.get(*key));
        let mut value = value.cloned().unwrap_or_default();
        value.truncate(value.floor_char_boundary(MAX_NAME));
        value
    };
    Some(EngineNames {
        name: first(&[
            "io.kubernetes.cri.container-name",
            "io.kubernetes.container.name",
            "nerdctl/name",
        ]),
        namespace: first(&[
            "io.kubernetes.cri.sandbox-namespace",
            "io.kubernetes.pod.namespace",
        ]),
        pod: first(&["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"]),
        pod_uid: first(&["io.kubernetes.cri.sandbox-uid", "io.kubernetes.pod.uid"]),
        cgroup: cgroup(&bundle.linux.cgroups_path),
    })
}

/// The group that `cgroupsPath` stands for: a path, or `SLICE:PREFIX:NAME` for systemd.
fn cgroup(path: &str) -> String {
    let mut parts = path.splitn(3, ':');
    let (Some(slice), Some(prefix), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
        return match path.starts_with('/') {
            true => path.trim_end_matches('/').to_owned(),
            // Relative ones are below the engine's own group, which is not known here.
            false => String::new(),
        };
    };
    // `a-b.slice` is in `a.slice`.
    let mut directory = String::new();
    if let Some(stem) = slice.strip_suffix(".slice").filter(|stem| *stem != "-") {
        for (at, _) in stem.match_indices('-').chain([(stem.len(), "")]) {
            directory.push_str(&format!("/{}.slice", &stem[..at]));
        }
    }
    let scope = match prefix {
        "" => name.to_owned(),
        prefix => format!("{prefix}-{name}"),
    };
    format!("{directory}/{scope}.scope")
}

/// `config.v2.json` of Docker: the name has a slash in front.
fn docker(file: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(rename = "Name")]
        name: String,
    }
    let config: Config = serde_json::from_slice(file).ok()?;
    let mut name = config.name.trim_start_matches('/').to_owned();
    name.truncate(name.floor_char_boundary(MAX_NAME));
    Some(name)
}

//! A pod as those describe it who know it: the Kubernetes API, the container runtime. Bounded
//! here, as the strings are other people's.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Labels, NamesFrom};

/// Containers kept of one pod, those of earlier restarts among them.
pub const MAX_CONTAINERS: usize = 64;
/// Bytes kept of a name; Kubernetes' own longest has 253.
const MAX_NAME: usize = 253;
/// Bytes kept of a label's value, as Kubernetes itself allows.
const MAX_LABEL: usize = 63;
/// The labels kept: those that Kubernetes recommends, and their forerunners.
const LABELS: &[&str] = &[
    "app",
    "app.kubernetes.io/component",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/name",
    "app.kubernetes.io/part-of",
    "app.kubernetes.io/version",
    "k8s-app",
];

/// What is kept of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// The uid that its cgroup has. For a static pod that is the hash of its manifest, not the
    /// uid of the mirror pod that the API shows for it.
    pub uid: String,
    /// Uid in the API, where it is another one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mirror_uid: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Who made it, as `Deployment/web`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner: String,
    /// Selected labels.
    #[serde(default)]
    pub labels: Labels,
    /// Its containers, init and ephemeral ones too, as far as they have started.
    #[serde(default)]
    pub containers: Vec<PodContainer>,
}

/// A container of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodContainer {
    /// Id without the runtime's prefix.
    pub id: String,
    /// Name; empty for the pod's sandbox.
    pub name: String,
}

impl Pod {
    /// Takes over containers that an earlier state of the same pod had: a restarted
    /// container's last life keeps its name.
    pub fn keep_containers_of(&mut self, earlier: &Self) {
        for container in &earlier.containers {
            if self.containers.len() >= MAX_CONTAINERS {
                break;
            }
            if !self.containers.iter().any(|c| c.id == container.id) {
                self.containers.push(container.clone());
            }
        }
    }

    /// Name of its container with this id.
    #[must_use]
    pub fn container(&self, id: &str) -> Option<&str> {
        let container = self.containers.iter().find(|c| c.id == id)?;
        Some(&container.name)
    }

    /// Cuts every string to what it may be, and refuses what no pod looks like.
    #[must_use]
    pub fn bounded(mut self) -> Option<Self> {
        let is_uid = |uid: &str| {
            (1..=64).contains(&uid.len())
                && uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        if !is_uid(&self.uid) || self.name.is_empty() {
            return None;
        }
        for text in [
            &mut self.mirror_uid,
            &mut self.namespace,
            &mut self.name,
            &mut self.owner,
        ] {
            clip(text, MAX_NAME);
        }
        self.containers
            .retain(|c| !c.id.is_empty() && c.id.len() <= 128);
        self.containers.truncate(MAX_CONTAINERS);
        for container in &mut self.containers {
            clip(&mut container.name, MAX_NAME);
        }
        Some(self)
    }
}

fn clip(text: &mut String, max: usize) {
    text.truncate(text.floor_char_boundary(max));
}

/// The few labels that are kept, of any.
#[must_use]
pub fn select_labels(labels: &BTreeMap<String, String>) -> Labels {
    let pairs = LABELS.iter().filter_map(|key| {
        let mut value = labels.get(*key)?.clone();
        clip(&mut value, MAX_LABEL);
        Some(((*key).to_owned(), value))
    });
    Labels::new(pairs.collect())
}

/// A Pod object of the Kubernetes API, the members that matter; the others are skipped while
/// reading.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodObject {
    /// `metadata`.
    pub metadata: Metadata,
    /// `spec`.
    pub spec: PodSpec,
    /// `status`.
    pub status: PodStatus,
}

/// `metadata` of an object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(
    missing_docs,
    reason = "the members' names and meaning are Kubernetes'"
)]
pub struct Metadata {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub resource_version: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: Annotations,
    pub owner_references: Vec<OwnerReference>,
}

/// Those of `metadata.annotations` that matter; people put whole documents into the others.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Annotations {
    /// Hash of the manifest that a mirror pod stands for.
    #[serde(rename = "kubernetes.io/config.mirror")]
    pub mirror: Option<String>,
    /// Where a kubelet has the pod from.
    #[serde(rename = "kubernetes.io/config.source")]
    pub source: Option<String>,
}

/// One of `metadata.ownerReferences`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(
    missing_docs,
    reason = "the members' names and meaning are Kubernetes'"
)]
pub struct OwnerReference {
    pub kind: String,
    pub name: String,
    pub controller: bool,
}

/// `spec` of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(
    missing_docs,
    reason = "the members' names and meaning are Kubernetes'"
)]
pub struct PodSpec {
    pub node_name: String,
}

/// `status` of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(
    missing_docs,
    reason = "the members' names and meaning are Kubernetes'"
)]
pub struct PodStatus {
    pub container_statuses: Vec<ContainerStatus>,
    pub init_container_statuses: Vec<ContainerStatus>,
    pub ephemeral_container_statuses: Vec<ContainerStatus>,
}

/// One of a pod's container statuses.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(
    missing_docs,
    reason = "the members' names and meaning are Kubernetes'"
)]
pub struct ContainerStatus {
    pub name: String,
    #[serde(rename = "containerID")]
    pub container_id: String,
    pub state: ContainerState,
    #[serde(rename = "lastState")]
    pub last_state: ContainerState,
}

/// `state` of a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(
    missing_docs,
    reason = "the members' names and meaning are Kubernetes'"
)]
pub struct ContainerState {
    pub terminated: Option<Terminated>,
}

/// `terminated` of a container's state.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(
    missing_docs,
    reason = "the members' names and meaning are Kubernetes'"
)]
pub struct Terminated {
    #[serde(rename = "containerID")]
    pub container_id: String,
}

impl PodObject {
    /// The pod that `from` tells of; `None` for what is no pod, or not one that could run.
    #[must_use]
    pub fn into_pod(self, from: NamesFrom) -> Option<Pod> {
        let PodObject {
            metadata,
            spec,
            status,
        } = self;
        // The kubelet names the cgroup of a static pod by its manifest's hash. Annotations are
        // the word of whoever made the object: no other pod has such a uid.
        let hash = metadata
            .annotations
            .mirror
            .as_ref()
            .filter(|hash| is_manifest_hash(hash));
        let (uid, mirror_uid) = match hash {
            Some(hash) => (hash.clone(), metadata.uid.clone()),
            None => (metadata.uid.clone(), String::new()),
        };
        let statuses = [
            status.container_statuses,
            status.init_container_statuses,
            status.ephemeral_container_statuses,
        ];
        let containers = statuses.into_iter().flatten().flat_map(|status| {
            let ids = [
                Some(status.container_id),
                status.state.terminated.map(|t| t.container_id),
                status.last_state.terminated.map(|t| t.container_id),
            ];
            ids.into_iter().flatten().map(move |id| PodContainer {
                id: bare_id(&id).to_owned(),
                name: status.name.clone(),
            })
        });
        let mut known = Vec::new();
        for container in containers {
            if !known.contains(&container) {
                known.push(container);
            }
        }
        Pod {
            uid,
            mirror_uid,
            owner: owner(&metadata, &spec.node_name, from),
            labels: select_labels(&metadata.labels),
            namespace: metadata.namespace,
            name: metadata.name,
            containers: known,
        }
        .bounded()
    }
}

/// An MD5 sum, in hexadecimal without dashes.
fn is_manifest_hash(uid: &str) -> bool {
    uid.len() == 32 && uid.bytes().all(|b| b.is_ascii_hexdigit())
}

/// `containerd://ID`, `cri-o://ID`, `docker://ID`.
fn bare_id(id: &str) -> &str {
    id.rsplit_once("://").map_or(id, |(_, id)| id)
}

/// The controller; a ReplicaSet whose name ends with the pod's template hash was made by the
/// Deployment of the rest of the name, so that ReplicaSets need not be asked for.
fn owner(metadata: &Metadata, node: &str, from: NamesFrom) -> String {
    let Some(owner) = metadata.owner_references.iter().find(|o| o.controller) else {
        // A kubelet tells of a pod of its own as it has it, and where it has each from; the API of
        // a mirror that the node owns, and of anybody's annotations.
        let source = metadata.annotations.source.as_ref();
        let source = source.filter(|_| from == NamesFrom::Kubelet);
        return match source {
            Some(source) if source != "api" && !node.is_empty() => format!("Node/{node}"),
            _ => String::new(),
        };
    };
    let deployment = metadata
        .labels
        .get("pod-template-hash")
        .filter(|hash| owner.kind == "ReplicaSet" && !hash.is_empty())
        .and_then(|hash| owner.name.strip_suffix(&**hash)?.strip_suffix('-'));
    match deployment {
        Some(name) => format!("Deployment/{name}"),
        None => format!("{}/{}", owner.kind, owner.name),
    }
}

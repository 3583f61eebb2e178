//! The workload: what a person recognises behind a process.

pub mod directory;
pub mod path;
pub mod pod;

use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};

/// Names of a workload; empty strings where unknown. None of them is to be trusted:
/// escape on output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Workload {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kubernetes pod name.
    pub pod: String,
    /// Kubernetes pod uid.
    pub pod_uid: String,
    /// Who made the pod, as `Deployment/web`; a ReplicaSet's Deployment, where its name says so.
    pub owner: String,
    /// Selected labels of the pod.
    pub labels: Labels,
    /// Container name.
    pub container: String,
    /// Container id, 64 hexadecimal digits for the usual runtimes.
    pub container_id: String,
    /// systemd unit; of a cgroup that neither systemd nor an engine made, its last component
    /// (then `runtime` is empty).
    pub unit: String,
    /// `containerd`, `docker`, `systemd`, ...
    pub runtime: String,
    /// Process name, the last resort for a name.
    pub process: String,
    /// Inode of its cgroup directory.
    pub cgroup_id: u64,
    /// Who gave namespace, pod and container; empty when nobody did.
    pub names_from: NamesFrom,
}

/// Whose word the names of a workload are, weakest first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum NamesFrom {
    /// Nobody's: ids at most.
    #[default]
    #[serde(rename = "")]
    Nobody,
    /// The names of the kubelet's log files.
    Logs,
    /// Files that the container engine keeps.
    Engine,
    /// What an earlier run of the agent was told, not yet confirmed.
    Cache,
    /// The container runtime interface.
    Cri,
    /// The node's kubelet.
    Kubelet,
    /// The Kubernetes API.
    Api,
}

/// Labels of a pod, few and short; sorted by key, shared by clone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Labels(Option<Arc<[(String, String)]>>);

impl Labels {
    /// Of pairs; they are sorted here.
    #[must_use]
    pub fn new(mut pairs: Vec<(String, String)>) -> Self {
        pairs.sort_unstable();
        Self((!pairs.is_empty()).then(|| pairs.into()))
    }

    /// Key and value, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.0.as_deref().unwrap_or_default();
        pairs.iter().map(|(key, value)| (&**key, &**value))
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in self.iter() {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = std::collections::BTreeMap::<String, String>::deserialize(deserializer)?;
        Ok(Self::new(map.into_iter().collect()))
    }
}

impl Workload {
    /// The `container` label of the metrics: container name, else the id (of one that is
    /// a hash the first 12 digits, as engines show it), else the unit, else the process name.
    #[must_use]
    pub fn container_label(&self) -> &str {
        let id = &*self.container_id;
        let is_hash = id.len() >= 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
        let short_id = if is_hash { &id[..12] } else { id };
        [&*self.container, short_id, &*self.unit, &*self.process]
            .into_iter()
            .find(|s| !s.is_empty())
            .unwrap_or("")
    }

    /// The `pod` label of the metrics: pod name, else its uid; empty outside of pods.
    #[must_use]
    pub fn pod_label(&self) -> &str {
        if self.pod.is_empty() {
            &self.pod_uid
        } else {
            &self.pod
        }
    }

    /// Whether somebody who tells of pods may tell what it is called.
    #[must_use]
    pub fn may_be_a_pods(&self) -> bool {
        !self.pod_uid.is_empty() || !self.container_id.is_empty()
    }

    /// Whether it is a pod's and somebody may still tell what it is called.
    #[must_use]
    pub fn lacks_names(&self) -> bool {
        let container = self.container.is_empty() && !self.container_id.is_empty();
        !self.pod_uid.is_empty() && (self.pod.is_empty() || container)
    }

    /// What to call it in a sentence: `namespace/pod/container`, or the container label.
    #[must_use]
    pub fn display_name(&self) -> String {
        [&*self.namespace, self.pod_label(), self.container_label()]
            .into_iter()
            .filter(|name| !name.is_empty())
            .collect::<Vec<_>>()
            .join("/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_calls_it() {
        let names = |namespace: &str, pod: &str, container: &str, process: &str| {
            let workload = Workload {
                namespace: namespace.into(),
                pod: pod.into(),
                pod_uid: if pod.is_empty() { "" } else { "uid" }.into(),
                container: container.into(),
                process: process.into(),
                ..Workload::default()
            };
            workload.display_name()
        };
        assert_eq!(names("shop", "web-0", "http", "java"), "shop/web-0/http");
        assert_eq!(
            names("shop", "web-0", "", ""),
            "shop/web-0",
            "the pod's own group"
        );
        assert_eq!(names("", "", "", "java"), "java");
        let by_id = Workload {
            pod_uid: "uid".into(),
            container_id: "0123456789abcdef".repeat(4),
            unit: "in.service".into(),
            ..Workload::default()
        };
        assert_eq!(by_id.display_name(), "uid/0123456789ab");
        let by_chosen_id = Workload {
            container_id: "payments-gateway-7".into(),
            ..Workload::default()
        };
        assert_eq!(by_chosen_id.display_name(), "payments-gateway-7");
        assert_eq!(Workload::default().display_name(), "");
    }
}

//! The workload: what a person recognises behind a process.

pub mod path;

use serde::Serialize;

/// Names of a workload; empty strings where unknown. None of them is to be trusted:
/// escape on output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Workload {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kubernetes pod name.
    pub pod: String,
    /// Kubernetes pod uid.
    pub pod_uid: String,
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
}

impl Workload {
    /// The `container` label of the metrics: container name, else the first 12 digits of
    /// the id, else the unit, else the process name.
    #[must_use]
    pub fn container_label(&self) -> &str {
        let short_id = self.container_id.get(..12).unwrap_or(&self.container_id);
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
            container_id: "0123456789abcdef".into(),
            unit: "in.service".into(),
            ..Workload::default()
        };
        assert_eq!(by_id.display_name(), "uid/0123456789ab");
        assert_eq!(Workload::default().display_name(), "");
    }
}

//! Names of pods and containers without an API server: the kubelet names every container's
//! log `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log`, and every pod's directory
//! `/var/log/pods/NAMESPACE_POD_UID`. Only root writes there.

use std::{
    collections::HashMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::stack::process::LogNames;

/// The directories are listed again at most this often.
const LIFETIME: Duration = Duration::from_secs(2);
/// Entries looked at.
const MAX_ENTRIES: usize = 16_384;

/// The listings, cached.
#[derive(Debug)]
pub struct KubeletLogs {
    /// The host's root directory; without it nothing is known.
    root: Option<PathBuf>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    read_at: Option<Instant>,
    containers: HashMap<String, LogNames>,
    pods: HashMap<String, LogNames>,
}

impl KubeletLogs {
    /// Looks below the host's root directory.
    #[must_use]
    pub fn new(root: Option<PathBuf>) -> Self {
        Self {
            root,
            inner: Mutex::default(),
        }
    }

    /// The names of a container (by id), or at least of its pod (by uid).
    #[must_use]
    pub fn names(&self, container_id: &str, pod_uid: &str) -> LogNames {
        let mut inner = self.inner.lock();
        if let Some(names) = inner.containers.get(container_id) {
            return names.clone();
        }
        self.list_if_due(&mut inner);
        let known = inner.containers.get(container_id);
        known
            .or_else(|| inner.pods.get(pod_uid))
            .cloned()
            .unwrap_or_default()
    }

    /// Uid of a pod by its names; with an empty namespace only if the name is unique here.
    #[must_use]
    pub fn pod_uid(&self, namespace: &str, pod: &str) -> Option<String> {
        let mut inner = self.inner.lock();
        self.list_if_due(&mut inner);
        let mut found = inner.pods.iter().filter(|(_, names)| {
            names.pod == pod && (namespace.is_empty() || names.namespace == namespace)
        });
        let (uid, _) = found.next()?;
        found.next().is_none().then(|| uid.clone())
    }

    fn list_if_due(&self, inner: &mut Inner) {
        let Some(root) = &self.root else { return };
        let fresh = inner.read_at.is_some_and(|at| at.elapsed() < LIFETIME);
        if fresh {
            return;
        }
        inner.read_at = Some(Instant::now());
        let list = |dir: &str| {
            let entries = std::fs::read_dir(root.join("var/log").join(dir));
            let entries = entries.into_iter().flatten().flatten().take(MAX_ENTRIES);
            entries.filter_map(|entry| entry.file_name().into_string().ok())
        };
        inner.containers = list("containers").filter_map(|n| container(&n)).collect();
        inner.pods = list("pods").filter_map(|n| pod(&n)).collect();
    }
}

/// `POD_NAMESPACE_CONTAINER-ID.log`; none of the names may hold an underscore.
fn container(name: &str) -> Option<(String, LogNames)> {
    let (rest, id) = name.strip_suffix(".log")?.rsplit_once('-')?;
    let mut parts = rest.split('_');
    let names = LogNames {
        pod: parts.next()?.to_owned(),
        namespace: parts.next()?.to_owned(),
        container: parts.next()?.to_owned(),
    };
    parts.next().is_none().then(|| (id.to_owned(), names))
}

/// `NAMESPACE_POD_UID`.
fn pod(name: &str) -> Option<(String, LogNames)> {
    let mut parts = name.split('_');
    let names = LogNames {
        namespace: parts.next()?.to_owned(),
        pod: parts.next()?.to_owned(),
        container: String::new(),
    };
    let uid = parts.next()?.to_owned();
    parts.next().is_none().then_some((uid, names))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_by_id_uid_and_name() {
        let dir = tempfile::tempdir().unwrap();
        let id = "6e899e8adb076670dd192fa0cee52aef8c493640b730232ed3d8433a12f1184b";
        for path in [
            format!("containers/web-0_shop_http-server-{id}.log"),
            "containers/odd".to_owned(),
            "pods/shop_web-0_uid-1".to_owned(),
            "pods/other_web-0_uid-2".to_owned(),
            "pods/other_db_uid-3".to_owned(),
        ] {
            std::fs::create_dir_all(dir.path().join("var/log").join(path)).unwrap();
        }
        let logs = KubeletLogs::new(Some(dir.path().to_owned()));
        let names = |namespace: &str, pod: &str, container: &str| LogNames {
            namespace: namespace.into(),
            pod: pod.into(),
            container: container.into(),
        };
        assert_eq!(
            logs.names(id, "uid-1"),
            names("shop", "web-0", "http-server")
        );
        assert_eq!(logs.names("pause", "uid-1"), names("shop", "web-0", ""));
        assert_eq!(logs.names("x", "x"), LogNames::default());
        assert_eq!(logs.pod_uid("other", "web-0").as_deref(), Some("uid-2"));
        assert_eq!(logs.pod_uid("", "web-0"), None, "two of that name");
        assert_eq!(logs.pod_uid("", "db").as_deref(), Some("uid-3"));
        assert_eq!(KubeletLogs::new(None).names(id, ""), LogNames::default());
    }
}

//! What low-level runtimes keep about their containers, below the host's root.

use std::path::Path;

use serde_json::Value;

use crate::{
    host::proc::read_bounded,
    stack::process::RuntimeState,
    workload::path::{PathKind, PathNames},
};

/// Most bytes read of a file; runc's holds its whole configuration, seccomp filter included.
const MAX_FILE: u64 = 8 << 20;

/// A runtime, the file that is there for as long as the container, and the one beside it that
/// says which cgroup it was given; `{}` is the container's id.
const STATES: &[(&str, &str, &str)] = &[
    ("runc", "run/containerd/runc/k8s.io/{}", "state.json"),
    ("runc", "run/containerd/runc/moby/{}", "state.json"),
    ("runc", "run/containerd/runc/default/{}", "state.json"),
    ("runc", "run/docker/runtime-runc/moby/{}", "state.json"),
    ("runc", "run/runc/{}", "state.json"),
    ("crun", "run/crun/{}", "status"),
    ("youki", "run/youki/{}", "youki_config.json"),
];

/// The state of the container of a cgroup.
pub(super) fn find(root: &Path, names: &PathNames, path: &str) -> Option<RuntimeState> {
    let (id, by_name) = match names.kind {
        PathKind::Container if !names.container_id.is_empty() => (&*names.container_id, false),
        // A runtime called by hand: the group has the container's name.
        PathKind::Plain => (path.rsplit('/').next()?, true),
        _ => return None,
    };
    STATES.iter().find_map(|(technology, directory, file)| {
        let file = format!("{}/{file}", directory.replace("{}", id));
        let there = root.join(&file);
        // A name is anybody's: the state must say that it is of this very group.
        let is_its = match by_name {
            true => read_bounded(&there, MAX_FILE)
                .ok()
                .and_then(|state| serde_json::from_slice(&state).ok())
                .is_some_and(|state: Value| says(&state, path)),
            false => there.exists(),
        };
        is_its.then(|| RuntimeState {
            technology: (*technology).to_owned(),
            id: id.to_owned(),
            path: format!("/{file}"),
        })
    })
}

/// Whether a state has this group in it, as a path of the hierarchy or of the file system.
fn says(state: &Value, path: &str) -> bool {
    match state {
        Value::String(text) => text.strip_suffix(path).is_some_and(is_mount),
        Value::Array(items) => items.iter().any(|item| says(item, path)),
        Value::Object(fields) => fields.values().any(|item| says(item, path)),
        _ => false,
    }
}

/// Where a hierarchy is mounted, or nothing: the whole of version 2, one controller's of 1.
fn is_mount(text: &str) -> bool {
    text.is_empty()
        || text
            .strip_prefix("/sys/fs/cgroup")
            .is_some_and(|rest| rest.is_empty() || rest.rfind('/') == Some(0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_group_of_a_containers_name_is_not_that_container() {
        let root = tempfile::tempdir().unwrap();
        let state = root.path().join("run/runc/web");
        std::fs::create_dir_all(&state).unwrap();
        let paths = json!({ "cgroup_paths": {
            "cpu": "/sys/fs/cgroup/cpu,cpuacct/shop/web", "": "/sys/fs/cgroup/unified/shop/web",
        } });
        std::fs::write(state.join("state.json"), paths.to_string()).unwrap();
        let find = |path: &str| find(root.path(), &PathNames::parse(path), path);
        let found = find("/shop/web").unwrap();
        assert_eq!((&*found.technology, &*found.id), ("runc", "web"));
        for other in ["/web", "/evil/web", "/evil/shop/web", "/shop/web/web"] {
            assert_eq!(find(other), None, "{other}");
        }
        assert!(says(&json!({ "cgroup-path": "/web" }), "/web"));
        assert!(says(&json!(["/sys/fs/cgroup/web"]), "/web"));
        assert!(!says(&json!("/sys/fs/cgroup/a/b/web"), "/web"));
        assert!(!says(&json!("/elsewhere/web"), "/web"));
    }
}

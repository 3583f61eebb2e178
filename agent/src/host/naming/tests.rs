use serde_json::json;

use super::*;
use crate::workload::{
    path::PathNames,
    pod::{Pod, PodContainer},
};

const A: &str = "aaaa9e8adb076670dd192fa0cee52aef8c493640b730232ed3d8433a12f1184b";
const B: &str = "bbbb9e8adb076670dd192fa0cee52aef8c493640b730232ed3d8433a12f1184b";
const UID: &str = "aaaaaaaa-d6c9-4ef9-818e-131c4cf4f220";

/// Without a cgroup file system: paths are all there is.
struct Host {
    root: tempfile::TempDir,
    naming: Naming,
}

impl Host {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        Self {
            naming: Naming::new(Some(root.path().to_owned())),
            root,
        }
    }

    fn write(&self, path: &str, content: &serde_json::Value) {
        let path = self.root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content.to_string()).unwrap();
    }

    fn name(&self, path: &str) -> Workload {
        let names = PathNames::parse(path);
        let mut workload = Workload {
            pod_uid: names.pod_uid,
            container: names.container,
            container_id: names.container_id,
            unit: names.unit,
            ..Workload::default()
        };
        self.naming.complete(&mut workload, path);
        workload
    }
}

fn web(uid: &str, container: &str) -> Pod {
    Pod {
        uid: uid.into(),
        namespace: "shop".into(),
        name: "web-0".into(),
        owner: "StatefulSet/web".into(),
        containers: vec![PodContainer {
            id: container.into(),
            name: "http".into(),
        }],
        ..Pod::default()
    }
}

#[test]
fn the_strongest_word_counts_and_the_node_fills_in() {
    let host = Host::new();
    let path = format!("/kubepods/burstable/pod{UID}/{A}");
    let workload = host.name(&path);
    assert_eq!(workload.display_name(), format!("{UID}/{}", &A[..12]));
    assert_eq!(workload.names_from, NamesFrom::Nobody);

    let bundle = "run/containerd/io.containerd.runtime.v2.task/k8s.io";
    host.write(
        &format!("{bundle}/{B}/config.json"),
        &json!({ "annotations": {
            "io.kubernetes.cri.container-name": "side", "io.kubernetes.cri.sandbox-name": "web-0",
            "io.kubernetes.cri.sandbox-namespace": "shop", "io.kubernetes.cri.sandbox-uid": UID,
        } }),
    );
    let side = format!("/kubepods/burstable/pod{UID}/{B}");
    let workload = host.name(&side);
    assert_eq!(workload.display_name(), "shop/web-0/side");
    assert_eq!(workload.names_from, NamesFrom::Engine);
    let elsewhere = host.name(&format!("/kubepods/pod{}/{B}", UID.replace('a', "b")));
    assert_eq!(elsewhere.pod, "", "the bundle's pod is another one");

    host.naming.directory().apply(web(UID, A), NamesFrom::Api);
    let workload = host.name(&path);
    assert_eq!(workload.display_name(), "shop/web-0/http");
    assert_eq!(workload.owner, "StatefulSet/web");
    assert_eq!(workload.names_from, NamesFrom::Api);
    assert!(!workload.lacks_names());
    // Started a moment ago: the API does not have its id yet.
    assert_eq!(host.name(&side).display_name(), "shop/web-0/side");
    assert_eq!(host.name(&side).names_from, NamesFrom::Api);
}

#[test]
fn an_engine_s_name_is_for_the_group_that_it_made() {
    let host = Host::new();
    host.write(
        &format!("var/lib/docker/containers/{A}/config.v2.json"),
        &json!({ "Name": "/db" }),
    );
    host.write(
        &format!("run/containerd/io.containerd.runtime.v2.task/moby/{A}/config.json"),
        &json!({ "linux": { "cgroupsPath": format!("system.slice:docker:{A}") } }),
    );
    let workload = host.name(&format!("/system.slice/docker-{A}.scope"));
    assert_eq!(
        (&*workload.container, workload.names_from),
        ("db", NamesFrom::Engine)
    );
    // In a group that the engine did not ask for it is another's, if anybody's.
    for imitation in [
        format!("/user.slice/user-1000.slice/user@1000.service/docker-{A}.scope"),
        format!("/system.slice/evil.service/docker-{A}.scope"),
        format!("/docker/{B}/docker/{A}"),
    ] {
        assert_eq!(
            host.naming.word_on(A, &imitation),
            Some(true),
            "{imitation}"
        );
        assert_ne!(host.name(&imitation).container, "db", "{imitation}");
    }
    let own = format!("/system.slice/docker-{A}.scope");
    assert_eq!(host.naming.word_on(A, &own), Some(false));
    assert_eq!(host.naming.word_on(B, &own), None);
    // Of what Kubernetes tells, everybody else's group is an imitation.
    host.naming.directory().apply(web(UID, B), NamesFrom::Api);
    for id in [UID, B] {
        assert_eq!(host.naming.word_on(id, "/evil"), Some(true));
    }
}

#[test]
fn a_runtime_s_pod_is_named_wherever_the_runtime_keeps_it() {
    let host = Host::new();
    let path = format!("/k8s.io/{A}");
    assert_eq!(host.name(&path).display_name(), A[..12]);
    // The bundle has a name, too: the runtime's own word comes first.
    let bundle = |id: &str, group: &str| {
        host.write(
            &format!("run/containerd/io.containerd.runtime.v2.task/k8s.io/{id}/config.json"),
            &json!({
                "annotations": { "io.kubernetes.cri.container-name": "bundle" },
                "linux": { "cgroupsPath": group },
            }),
        );
    };
    bundle(B, "/own/group");
    host.naming.directory().apply(web(UID, A), NamesFrom::Cri);
    let workload = host.name(&path);
    assert_eq!(workload.display_name(), "shop/web-0/http");
    assert_eq!(
        (&*workload.pod_uid, workload.names_from),
        (UID, NamesFrom::Cri)
    );

    // One that asked for a group is there, and nowhere else.
    let other = UID.replace('a', "b");
    host.naming
        .directory()
        .apply(web(&other, B), NamesFrom::Cri);
    assert_eq!(host.naming.word_on(B, "/own/group"), Some(false));
    assert_eq!(host.naming.word_on(B, "/evil/group"), Some(true));
    assert_eq!(host.naming.word_on(A, "/evil/group"), Some(true));
}

use std::path::Path;

use serde_json::json;

use super::*;

const ID: &str = "6e899e8adb076670dd192fa0cee52aef8c493640b730232ed3d8433a12f1184b";

fn with(files: &[(&str, serde_json::Value)]) -> (tempfile::TempDir, EngineFiles) {
    let root = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = root.path().join(path.replace("{}", ID));
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
        std::fs::write(path, content.to_string()).unwrap();
    }
    let engines = EngineFiles::new(Some(root.path().to_owned()));
    (root, engines)
}

#[test]
fn a_pod_s_container_by_its_bundle() {
    let (root, engines) = with(&[(
        BUNDLES[0],
        json!({
            "ociVersion": "1.1.0",
            "annotations": {
                "io.kubernetes.cri.container-name": "loop",
                "io.kubernetes.cri.sandbox-name": "busy",
                "io.kubernetes.cri.sandbox-namespace": "default",
                "io.kubernetes.cri.sandbox-uid": "u-1",
            },
            "linux": { "cgroupsPath": "kubepods-burstable-podu_1.slice:cri-containerd:abc" },
        }),
    )]);
    let names = engines.get(ID).unwrap();
    assert_eq!(
        (
            &*names.name,
            &*names.pod,
            &*names.namespace,
            &*names.pod_uid
        ),
        ("loop", "busy", "default", "u-1")
    );
    let own = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podu_1.slice/cri-containerd-abc.scope";
    assert_eq!(names.cgroup, own);
    assert!(names.is_at(own) && names.is_at(&format!("{own}/inner")));
    assert!(!names.is_at(&format!("{own}2")) && !names.is_at(&format!("/user.slice{own}")));
    // Its end takes the files away, not what was learned from them.
    drop(root);
    assert_eq!(engines.get(ID), Some(names));
}

#[test]
fn cri_o_docker_and_podman() {
    let (_root, engines) = with(&[(
        BUNDLES[5],
        json!({ "annotations": {
            "io.kubernetes.container.name": "http", "io.kubernetes.pod.name": "web",
            "io.kubernetes.pod.namespace": "shop", "io.kubernetes.pod.uid": "u-2",
        } }),
    )]);
    let names = engines.get(ID).unwrap();
    assert_eq!(
        (&*names.name, &*names.pod, &*names.cgroup),
        ("http", "web", "")
    );
    assert!(!names.is_at("") && !names.is_at("/"));

    let (_root, engines) = with(&[
        (
            DOCKER,
            json!({ "ID": ID, "Name": "/shop_db_1", "State": { "Pid": 1 } }),
        ),
        (
            BUNDLES[3],
            json!({ "linux": { "cgroupsPath": "/docker/abc" } }),
        ),
    ]);
    let names = engines.get(ID).unwrap();
    assert_eq!((&*names.name, &*names.cgroup), ("shop_db_1", "/docker/abc"));

    let (_root, engines) = with(&[
        (
            "var/lib/containers/storage/vfs-containers/containers.json",
            json!([{ "id": "other" }, { "id": ID, "names": ["cache", "second"] }]),
        ),
        (
            BUNDLES[7],
            json!({ "linux": { "cgroupsPath": "machine.slice:libpod:abc" } }),
        ),
    ]);
    let names = engines.get(ID).unwrap();
    assert_eq!(
        (&*names.name, &*names.cgroup),
        ("cache", "/machine.slice/libpod-abc.scope")
    );
}

#[test]
fn nothing_where_nothing_is_and_no_path_out_of_the_folders() {
    let (_root, engines) = with(&[(
        "secret/config.json",
        json!({ "annotations": { "nerdctl/name": "x" } }),
    )]);
    assert_eq!(engines.get(ID), None);
    assert_eq!(engines.get("../../../../secret"), None);
    assert_eq!(EngineFiles::new(None).get(ID), None);
    let (_root, engines) = with(&[(BUNDLES[0], json!(["not", "a", "bundle"]))]);
    assert_eq!(engines.get(ID), None);
}

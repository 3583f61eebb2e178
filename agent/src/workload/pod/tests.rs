use serde_json::json;

use super::*;

fn pod(value: serde_json::Value) -> Option<Pod> {
    pod_from(value, NamesFrom::Api)
}

fn pod_from(value: serde_json::Value, from: NamesFrom) -> Option<Pod> {
    let object: PodObject = serde_json::from_value(value).unwrap();
    object.into_pod(from)
}

#[test]
fn every_kind_of_container_has_its_name() {
    let of = |id: &str| json!({ "containerID": format!("containerd://{id}") });
    let pod = pod(json!({
        "metadata": { "name": "web-0", "namespace": "shop", "uid": "u-1" },
        "spec": { "ignored": ["what", { "is": "not needed" }] },
        "status": {
            "initContainerStatuses": [
                { "name": "prepare", "containerID": "containerd://i", "state": { "terminated": of("i") } },
            ],
            "containerStatuses": [
                { "name": "http", "containerID": "cri-o://c2", "lastState": { "terminated": of("c1") } },
                { "name": "waiting", "state": { "waiting": { "reason": "ContainerCreating" } } },
            ],
            "ephemeralContainerStatuses": [{ "name": "debug", "containerID": "docker://e" }],
        },
    }))
    .unwrap();
    let name = |id: &str| pod.container(id);
    assert_eq!(name("i"), Some("prepare"));
    assert_eq!(name("c2"), Some("http"));
    assert_eq!(name("c1"), Some("http"), "before its restart");
    assert_eq!(name("e"), Some("debug"));
    assert_eq!(name("x"), None);
    assert_eq!(name(""), None, "one that waits has no id yet");
    assert_eq!(pod.containers.len(), 4);
}

#[test]
fn a_static_pod_has_the_uid_of_its_cgroup() {
    let pod = pod(json!({
        "metadata": {
            "name": "etcd-node1", "namespace": "kube-system", "uid": "mirror",
            "annotations": { "kubernetes.io/config.mirror": "0f2e1f0a5d4b3c2e1f0a5d4b3c2e1f0a" },
            "ownerReferences": [{ "kind": "Node", "name": "node1", "controller": true }],
        },
    }))
    .unwrap();
    assert_eq!(pod.uid, "0f2e1f0a5d4b3c2e1f0a5d4b3c2e1f0a");
    assert_eq!((&*pod.mirror_uid, &*pod.owner), ("mirror", "Node/node1"));
}

#[test]
fn annotations_make_no_pod_another_one() {
    for other in [
        "4053557b-d6c9-4ef9-818e-131c4cf4f220",
        "4053557bd6c94ef9818e131c4cf4f22",
        "x053557bd6c94ef9818e131c4cf4f220",
        "",
    ] {
        let pod = pod(json!({ "metadata": {
            "name": "evil", "uid": "own", "annotations": { "kubernetes.io/config.mirror": other },
        } }));
        let pod = pod.unwrap();
        assert_eq!((&*pod.uid, &*pod.mirror_uid), ("own", ""), "{other}");
    }
    let from_file = json!({
        "metadata": {
            "name": "p", "uid": "u", "annotations": { "kubernetes.io/config.source": "file" },
        },
        "spec": { "nodeName": "node1" },
    });
    let owner = |from| pod_from(from_file.clone(), from).unwrap().owner;
    assert_eq!(owner(NamesFrom::Kubelet), "Node/node1");
    assert_eq!(owner(NamesFrom::Api), "", "anybody can annotate a pod so");
}

#[test]
fn owners() {
    let owner = |kind: &str, name: &str, hash: &str| {
        let object = json!({
            "metadata": {
                "name": "p", "uid": "u", "labels": { "pod-template-hash": hash },
                "ownerReferences": [
                    { "kind": "Other", "name": "no controller" },
                    { "kind": kind, "name": name, "controller": true },
                ],
            },
        });
        pod(object).unwrap().owner
    };
    assert_eq!(owner("ReplicaSet", "web-5d4b", "5d4b"), "Deployment/web");
    assert_eq!(owner("ReplicaSet", "web-5d4b", ""), "ReplicaSet/web-5d4b");
    assert_eq!(owner("ReplicaSet", "own", "5d4b"), "ReplicaSet/own");
    assert_eq!(owner("DaemonSet", "logs", ""), "DaemonSet/logs");
    assert_eq!(owner("StatefulSet", "db", ""), "StatefulSet/db");
    assert_eq!(owner("Job", "once", ""), "Job/once");
}

#[test]
fn strings_are_bounded_and_labels_selected() {
    let long = "x".repeat(10_000);
    let labels = json!({ "app": long, "secret": "not kept", "k8s-app": "dns" });
    let pod = pod(json!({
        "metadata": { "name": long, "namespace": long, "uid": "u", "labels": labels },
        "status": { "containerStatuses": (0..1000).map(|i| json!({
            "name": long, "containerID": format!("containerd://{i}"),
        })).collect::<Vec<_>>() },
    }))
    .unwrap();
    assert_eq!((pod.name.len(), pod.namespace.len()), (253, 253));
    assert_eq!(pod.containers.len(), MAX_CONTAINERS);
    assert!(pod.containers.iter().all(|c| c.name.len() == 253));
    let labels: Vec<_> = pod.labels.iter().map(|(k, v)| (k, v.len())).collect();
    assert_eq!(labels, [("app", 63), ("k8s-app", 3)]);
}

#[test]
fn what_is_no_pod_is_refused() {
    assert_eq!(pod(json!({})), None);
    assert_eq!(
        pod(json!({ "metadata": { "name": "a", "uid": "../x" } })),
        None
    );
    assert_eq!(pod(json!({ "metadata": { "uid": "u" } })), None);
}

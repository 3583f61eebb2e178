use std::{fs, path::PathBuf, process::Command};

use isostack_agent::{span::Resource, vocabulary::Confidence};

use crate::{
    join::{lab, process, shop},
    lab::{Net, Running, Server, key, start},
};

/// A bundle with a static busybox, and the container made from it.
struct Container {
    id: String,
    bundle: tempfile::TempDir,
}

impl Container {
    fn new(script: &str, cgroup: &str, net: &Net) -> Self {
        let bundle = tempfile::tempdir().unwrap();
        let root = bundle.path().join("rootfs");
        for dir in ["bin", "proc", "dev", "sys"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox"))
            .expect("needs /bin/busybox: install busybox-static");
        let spec = Command::new("runc")
            .args(["spec", "--bundle"])
            .arg(bundle.path())
            .status()
            .expect("needs runc: install it");
        assert!(spec.success());
        let path = bundle.path().join("config.json");
        let text = fs::read_to_string(&path).unwrap();
        let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
        config["process"]["terminal"] = false.into();
        config["process"]["args"] = serde_json::json!(["/bin/busybox", "sh", "-c", script]);
        config["linux"]["cgroupsPath"] = cgroup.into();
        config["linux"]["resources"] = serde_json::json!({});
        // No new filter or limits: the machine may not allow them.
        config["process"].as_object_mut().unwrap().remove("rlimits");
        for namespace in config["linux"]["namespaces"].as_array_mut().unwrap() {
            if namespace["type"] == "network" {
                namespace["path"] = format!("/run/netns/{}", net.name).into();
            }
        }
        fs::write(&path, config.to_string()).unwrap();
        let id = cgroup.rsplit('/').next().unwrap().to_owned();
        Self { id, bundle }
    }

    fn run(&self) -> Running {
        let bundle = self.bundle.path().to_str().unwrap();
        start("runc", &["run", "--bundle", bundle, &self.id])
    }

    fn pid(&self) -> u32 {
        let state = Command::new("runc")
            .args(["state", &self.id])
            .output()
            .unwrap();
        let state: serde_json::Value = serde_json::from_slice(&state.stdout).unwrap();
        u32::try_from(state["pid"].as_u64().unwrap()).unwrap()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = Command::new("runc")
            .args(["delete", "--force", &self.id])
            .output();
    }
}

/// Removes what a runtime leaves of a made-up parent cgroup.
pub struct Groups(pub &'static str);

impl Drop for Groups {
    fn drop(&mut self) {
        let mut mounts = vec![PathBuf::from("/sys/fs/cgroup")];
        let entries = fs::read_dir(&mounts[0]).unwrap().flatten();
        mounts.extend(entries.map(|entry| entry.path()));
        for mount in mounts {
            let mut dir = mount.join(self.0);
            while dir != mount && fs::remove_dir(&dir).is_ok() {
                dir.pop();
            }
        }
    }
}

fn hexadecimal_id() -> String {
    format!(
        "{:064x}",
        u128::from(std::process::id()) << 64 | 0xdead_beef
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_of_a_pod_sends_from_its_own_namespaces() {
    let lab = lab();
    let net = Net::new();
    let server = Server::on(&format!("{}:0", net.host_address));
    let uid = "11111111-2222-3333-4444-555555555555";
    // Not where the kubelet of a real node here would clear up what it knows nothing of.
    const PARENT: &str = "kubelet/kubepods/burstable/pod11111111-2222-3333-4444-555555555555";
    let _groups = Groups(PARENT);
    let id = hexadecimal_id();
    let address = server.address();
    let script = format!("/bin/busybox nc {} {}", address.ip(), address.port());
    let container = Container::new(&script, &format!("/{PARENT}/{id}"), &net);
    let mut run = container.run();
    let (_stream, connection) = server.accept();

    // busybox's sh may exec its last command or not: pid 1 either way is the container's.
    let claim = |pid: Option<u32>| Resource {
        pid,
        pod: "web-0".into(),
        namespace: "shop".into(),
        ..shop()
    };
    let joined = lab.join(&connection, claim(None)).await;
    assert_eq!(joined.confidence, Confidence::Process);
    let identity = joined.identity.unwrap();
    let workload = &identity.workload;
    assert_eq!((&*workload.container_id, &*workload.pod_uid), (&*id, uid));
    assert_eq!((&*workload.pod, &*workload.namespace), ("web-0", "shop"));
    assert_eq!(workload.runtime, "runc");
    let first = &identity.stack.0[0];
    assert_eq!(
        (first.layer.as_str(), &*first.technology),
        ("L-3", "runc"),
        "{first:?}"
    );
    assert_ne!(identity.cgroup_id, 0);
    let by_cgroup = lab.identifier.workload_of_cgroup(identity.cgroup_id);
    assert_eq!(
        (by_cgroup.container_id, by_cgroup.pod_uid),
        (id.clone(), uid.to_owned())
    );

    // Another's pod or container is not taken on the sender's word.
    let lie = Resource {
        pod_uid: "99999999-2222-3333-4444-555555555555".into(),
        ..claim(Some(1))
    };
    let joined = lab.join(&connection, lie).await;
    assert_eq!(process(&joined), (None, Confidence::Host));

    // Through a collector elsewhere: by id, and exactly with the pid inside.
    let init = key(container.pid());
    let elsewhere = isostack_agent::otlp::Connection::Tcp {
        local: address,
        peer: "198.51.100.9:1234".parse().unwrap(),
    };
    let by_id = |pid| Resource {
        container_id: id.clone(),
        ..claim(pid)
    };
    let joined = lab.join(&elsewhere, by_id(None)).await;
    assert_eq!(process(&joined), (Some(init), Confidence::Container));
    let joined = lab.join(&elsewhere, by_id(Some(1))).await;
    assert_eq!(process(&joined), (Some(init), Confidence::Process));
    let by_uid = Resource {
        pod_uid: uid.into(),
        ..shop()
    };
    let joined = lab.join(&elsewhere, by_uid).await;
    assert_eq!(process(&joined), (Some(init), Confidence::Container));
    run.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_runc_was_asked_for_by_hand() {
    let lab = lab();
    let net = Net::new();
    let server = Server::on(&format!("{}:0", net.host_address));
    let id = format!("isostack-hand-{}", std::process::id());
    let address = server.address();
    let script = format!("exec /bin/busybox nc {} {}", address.ip(), address.port());
    let container = Container::new(&script, &format!("/{id}"), &net);
    let mut run = container.run();
    let (_stream, connection) = server.accept();
    let joined = lab
        .join(
            &connection,
            Resource {
                pid: Some(1),
                ..shop()
            },
        )
        .await;
    assert_eq!(
        process(&joined),
        (Some(key(container.pid())), Confidence::Process)
    );
    let identity = joined.identity.unwrap();
    assert_eq!(identity.workload.container_id, id);
    assert_eq!(
        (&*identity.workload.runtime, &*identity.workload.unit),
        ("runc", "")
    );
    assert_eq!(identity.stack.0[0].technology, "runc");
    let evidence = &identity.stack.0[0].evidence;
    assert!(evidence.contains("runc"), "{evidence}");
    run.kill();
}

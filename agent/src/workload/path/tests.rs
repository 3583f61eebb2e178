use super::*;

const ID: &str = "6e899e8adb076670dd192fa0cee52aef8c493640b730232ed3d8433a12f1184b";
const OUTER: &str = "aaaa9e8adb076670dd192fa0cee52aef8c493640b730232ed3d8433a12f1184b";
const UID: &str = "4053557b-d6c9-4ef9-818e-131c4cf4f220";
const UID_: &str = "4053557b_d6c9_4ef9_818e_131c4cf4f220";
const STATIC: &str = "0f2e1f0a5d4b3c2e1f0a5d4b3c2e1f0a";

fn parse(path: &str) -> PathNames {
    let path = path
        .replace("{ID}", ID)
        .replace("{OUTER}", OUTER)
        .replace("{UID}", UID)
        .replace("{UID_}", UID_)
        .replace("{STATIC}", STATIC);
    PathNames::parse(&path)
}

#[test]
fn containers() {
    let table: &[(&str, &str, &str)] = &[
        ("/kubepods/burstable/pod{UID}/{ID}", "", UID),
        ("/kubepods/pod{UID}/{ID}", "", UID),
        ("/kubepods/besteffort/pod{STATIC}/{ID}", "", STATIC),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/cri-containerd-{ID}.scope",
            "containerd",
            UID,
        ),
        (
            "/kubepods.slice/kubepods-pod{UID_}.slice/crio-{ID}.scope",
            "cri-o",
            UID,
        ),
        (
            "/kubepods.slice/kubepods-pod{UID_}.slice/crio-{ID}.scope/container",
            "cri-o",
            UID,
        ),
        (
            "/kubepods.slice/kubepods-pod{UID_}.slice/docker-{ID}.scope",
            "docker",
            UID,
        ),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{STATIC}.slice/cri-containerd-{ID}.scope",
            "containerd",
            STATIC,
        ),
        (
            "/system.slice/containerd.service/kubepods-burstable-pod{UID_}.slice:cri-containerd:{ID}",
            "containerd",
            UID,
        ),
        (
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{UID_}.slice/cri-containerd-{ID}.scope",
            "containerd",
            UID,
        ),
        (
            "/docker/{OUTER}/kubelet/kubepods/burstable/pod{UID}/{ID}",
            "",
            UID,
        ),
        (
            "/system.slice/docker-{OUTER}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{UID_}.slice/cri-containerd-{ID}.scope",
            "containerd",
            UID,
        ),
        ("/docker/{ID}", "docker", ""),
        ("/docker/{OUTER}/docker/{ID}", "docker", ""),
        ("/system.slice/docker-{ID}.scope", "docker", ""),
        ("/system.slice:docker:{ID}", "docker", ""),
        ("/actions_job/{ID}", "docker", ""),
        ("/ecs/cluster/1234abcd/{ID}", "docker", ""),
        (
            "/ecstasks.slice/ecstasks-1234abcd.slice/docker-{ID}.scope",
            "docker",
            "",
        ),
        ("/k8s.io/{ID}", "containerd", ""),
        ("/system.slice/nerdctl-{ID}.scope", "containerd", ""),
        ("/libpod_parent/libpod-{ID}", "podman", ""),
        ("/machine.slice/libpod-{ID}.scope", "podman", ""),
        (
            "/machine.slice/machine-libpod_pod_{OUTER}.slice/libpod-{ID}.scope/container",
            "podman",
            "",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container",
            "podman",
            "",
        ),
        ("/azure.slice/runtime.slice/{ID}", "", ""),
        ("/../../burstable/pod{UID}/{ID}", "", UID),
    ];
    for (path, engine, uid) in table {
        let expected = PathNames {
            kind: PathKind::Container,
            container_id: ID.to_owned(),
            pod_uid: (*uid).to_owned(),
            engine,
            ..PathNames::default()
        };
        assert_eq!(parse(path), expected, "{path}");
    }
}

#[test]
fn a_unit_inside_a_container_stays_in_the_container() {
    let names = parse("/docker/{ID}/system.slice/containerd.service");
    assert_eq!(
        (names.kind, &*names.container_id),
        (PathKind::Container, ID)
    );
    assert_eq!(
        (names.engine, &*names.unit),
        ("docker", "containerd.service")
    );
}

#[test]
fn machines() {
    for (path, engine, name) in [
        ("/lxc.payload.web", "lxc", "web"),
        ("/lxc.payload.web/system.slice", "lxc", "web"),
        (
            "/machine.slice/systemd-nspawn@db.service/payload",
            "nspawn",
            "db",
        ),
        (r"/machine.slice/machine-my\x2ddb.scope", "nspawn", "my-db"),
    ] {
        let names = parse(path);
        assert_eq!(names.kind, PathKind::Container, "{path}");
        assert_eq!((names.engine, &*names.container), (engine, name), "{path}");
        assert_eq!(names.container_id, "", "{path}");
    }
}

#[test]
fn units_pods_and_plain_groups() {
    for (path, kind, unit) in [
        ("/", PathKind::Root, ""),
        ("", PathKind::Root, ""),
        ("/../..", PathKind::Root, ""),
        (
            "/system.slice/nginx.service",
            PathKind::Unit,
            "nginx.service",
        ),
        (
            "/system.slice/nginx.service/worker",
            PathKind::Unit,
            "nginx.service",
        ),
        (
            "/system.slice/system-getty.slice/getty@tty1.service",
            PathKind::Unit,
            "getty@tty1.service",
        ),
        (
            "/user.slice/user-0.slice/session-3.scope",
            PathKind::Unit,
            "session-3.scope",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/app-x.service",
            PathKind::Unit,
            "user@1000.service/app-x.service",
        ),
        ("/init.scope", PathKind::Unit, "init.scope"),
        ("/system.slice", PathKind::Unit, "system.slice"),
        (
            r"/machine.slice/machine-qemu\x2d1\x2dvm1.scope/libvirt/emulator",
            PathKind::Unit,
            r"machine-qemu\x2d1\x2dvm1.scope",
        ),
        (
            "/machine.slice/libpod-conmon-{ID}.scope",
            PathKind::Unit,
            "libpod-conmon-6e899e8adb076670dd192fa0cee52aef8c493640b730232ed3d8433a12f1184b.scope",
        ),
        ("/isostack-demo/shop", PathKind::Plain, "shop"),
        ("/podcast", PathKind::Plain, "podcast"),
        ("/libpod_parent/conmon", PathKind::Plain, "conmon"),
        ("/kubepods/burstable", PathKind::Plain, "kubepods"),
        ("/deadbeef", PathKind::Plain, "deadbeef"),
    ] {
        let names = parse(path);
        let expected = unit.to_owned();
        assert_eq!((names.kind, names.unit), (kind, expected), "{path}");
        assert_eq!((&*names.container_id, &*names.pod_uid), ("", ""), "{path}");
    }
    for path in [
        "/kubepods/burstable/pod{UID}",
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice",
    ] {
        let names = parse(path);
        assert_eq!(
            (names.kind, &*names.pod_uid),
            (PathKind::Pod, UID),
            "{path}"
        );
    }
    let conmon = parse("/kubepods.slice/kubepods-pod{UID_}.slice/crio-conmon-{ID}.scope");
    assert_eq!((conmon.kind, &*conmon.container_id), (PathKind::Pod, ""));
}

#[test]
fn odd_names_survive_as_data() {
    let name = format!("we\"ird\u{202e}\n{}", "x".repeat(4096));
    assert_eq!(parse(&format!("/{name}")).unit, name);
    assert_eq!(unescape(r"a\x2db\x"), r"a-b\x");
    assert_eq!(unescape("a\\xé"), "a\\xé");
}

#[test]
fn who_is_not_root_has_no_unit_of_the_system() {
    let unit = |path: &str| PathNames::parse(path).unit;
    let user = "/user.slice/user-1000.slice/user@1000.service";
    assert_eq!(
        unit(&format!("{user}/app.slice/nginx.service")),
        "user@1000.service/nginx.service"
    );
    assert_eq!(
        unit("/system.slice/ci.service/nginx.service/mysql.service"),
        "ci.service/mysql.service"
    );
    // Delegated without systemd: by whose the directory is.
    let owned = |path: &str, maker| PathNames::parse(path).of_maker(path, maker).unit;
    for (path, parent, named) in [
        ("/given/nginx.service", "/given", "nginx.service"),
        ("/given/a/b.service/c", "/given/a", "b.service"),
        ("/given/system.slice", "/given", "system.slice"),
        ("/given/payments", "/given", "payments"),
        ("/nginx.service", "", "nginx.service"),
        ("/payments", "", "payments"),
    ] {
        assert_eq!(made_in(path), parent, "{path}");
        assert_eq!(owned(path, 0), named, "{path}");
        assert_eq!(owned(path, 1000), path[1..], "{path}");
    }
    assert_eq!(
        made_in(&format!("{user}/app.slice/x.service")),
        "/user.slice/user-1000.slice",
        "root's, as its parts are called after it"
    );
    let container = format!("/given/docker-{ID}.scope");
    assert_eq!(owned(&container, 1000), "", "see belief");
    let long = owned(&format!("/given/{}", "\u{e9}".repeat(500)), 1000);
    assert!(long.starts_with("given/") && long.len() <= MAX_UNIT);
}

use super::*;

const A: &str = "aaaa9e8adb076670dd192fa0cee52aef8c493640b730232ed3d8433a12f1184b";
const B: &str = "bbbb9e8adb076670dd192fa0cee52aef8c493640b730232ed3d8433a12f1184b";
const PA: &str = "aaaaaaaa-d6c9-4ef9-818e-131c4cf4f220";
const PB: &str = "bbbbbbbb-d6c9-4ef9-818e-131c4cf4f220";

/// Pod uid, container id, unit, place.
fn settle(path: &str, roots: &[&str]) -> (String, String, String, Place) {
    let fill = |text: &str| {
        text.replace("{A}", A)
            .replace("{B}", B)
            .replace("{PA}", PA)
            .replace("{PB}", PB)
            .replace("{PA_}", &PA.replace('-', "_"))
            .replace("{PB_}", &PB.replace('-', "_"))
    };
    let roots: Vec<String> = roots.iter().map(|root| fill(root)).collect();
    let Settled { names, place } = PathNames::settled(&fill(path), &roots);
    (names.pod_uid, names.container_id, names.unit, place)
}

#[test]
fn a_container_is_what_its_kubelet_says_whatever_it_makes_below() {
    for path in [
        "/kubepods/burstable/pod{PA}/{A}",
        "/kubepods/pod{PA}/{A}",
        "/kubepods/pod{PA}/{A}/{B}",
        "/kubepods/pod{PA}/{A}/pod{PB}/{B}",
        "/kubepods/besteffort/pod{PA}/{A}/kubepods/burstable/pod{PB}/{B}",
        "/kubepods.slice/kubepods-pod{PA_}.slice/cri-containerd-{A}.scope/docker/{B}",
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{PA_}.slice/crio-{A}.scope/container",
        "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{PA_}.slice/cri-containerd-{A}.scope",
        "/kubelet/kubepods/pod{PA}/{A}",
        "/../../burstable/pod{PA}/{A}",
        "/system.slice/containerd.service/kubepods-burstable-pod{PA_}.slice:cri-containerd:{A}",
    ] {
        let expected = (PA.into(), A.into(), String::new(), Place::Kubelet);
        assert_eq!(settle(path, &[]), expected, "{path}");
    }
    // What it calls its own groups is told as that, and no more.
    for path in [
        "/kubepods/pod{PA}/{A}/cri-containerd-{B}.scope",
        "/kubepods/pod{PA}/{A}/kubepods.slice/kubepods-pod{PB_}.slice/cri-containerd-{B}.scope",
    ] {
        let unit = format!("cri-containerd-{B}.scope");
        let expected = (PA.into(), A.into(), unit, Place::Kubelet);
        assert_eq!(settle(path, &[]), expected, "{path}");
    }
}

#[test]
fn a_pod_elsewhere_is_no_pod() {
    for (path, container, unit) in [
        ("/docker/{A}/kubepods/pod{PB}/{B}", A, ""),
        ("/system.slice/docker-{A}.scope/pod{PB}/{B}", A, ""),
        (
            "/user.slice/user-1000.slice/user@1000.service/kubepods/pod{PB}/{B}",
            "",
            "user@1000.service",
        ),
        ("/evil/kubepods/burstable/pod{PB}/{B}", "", "evil"),
        ("/evil/pod{PB}/{B}", "", "evil"),
        (
            "/system.slice/evil.service/kubepods.slice/kubepods-pod{PB_}.slice/cri-containerd-{B}.scope",
            "",
            "evil.service",
        ),
    ] {
        let (pod, id, found, _) = settle(path, &[]);
        assert_eq!((&*pod, &*id, &*found), ("", container, unit), "{path}");
    }
}

#[test]
fn a_kubelet_in_a_container_is_believed_where_it_is_known() {
    let path = "/docker/{B}/kubelet/kubepods/burstable/pod{PA}/{A}";
    let root = "/docker/{B}";
    let expected = (PA.into(), A.into(), String::new(), Place::Kubelet);
    assert_eq!(settle(path, &[root]), expected);
    let imitation = "/docker/{B}2/kubelet/kubepods/burstable/pod{PA}/{A}";
    assert_eq!(settle(imitation, &[root]).0, "");
    let own = path.replace("{PA}", PA);
    assert_eq!(kubelet_root(&own).as_deref(), Some("/docker/{B}"));
    for (path, root) in [
        (format!("/kubepods/pod{PA}/{A}"), Some("")),
        (
            format!(
                "/kubepods.slice/kubepods-pod{}.slice/cri-containerd-{A}.scope",
                PA.replace('-', "_")
            ),
            Some(""),
        ),
        (
            format!("/custom/kubepods/burstable/pod{PA}/{A}"),
            Some("/custom"),
        ),
        (format!("/docker/{A}"), None),
        ("/".to_owned(), None),
    ] {
        assert_eq!(kubelet_root(&path).as_deref(), root, "{path}");
    }
}

#[test]
fn containers_without_kubernetes() {
    for (path, id, place) in [
        ("/docker/{A}", A, Place::Usual),
        ("/docker/{A}/docker/{B}", A, Place::Usual),
        ("/system.slice/docker-{A}.scope", A, Place::Usual),
        ("/machine.slice/libpod-{A}.scope/container", A, Place::Usual),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{A}.scope/container",
            A,
            Place::Elsewhere,
        ),
        ("/system.slice/evil.service/{B}", B, Place::Elsewhere),
        ("/evil/docker-{B}.scope", B, Place::Elsewhere),
    ] {
        let (_, container, _, found) = settle(path, &[]);
        assert_eq!((&*container, found), (&*id.to_owned(), place), "{path}");
    }
    let lxc = PathNames::settled(&format!("/lxc.payload.web/docker/{B}"), &[]).names;
    assert_eq!((&*lxc.container, &*lxc.container_id), ("web", ""));
}

#[test]
fn what_is_no_container_is_as_it_was() {
    for path in [
        "/",
        "/system.slice/nginx.service",
        "/plain/group",
        "/kubepods/burstable",
    ] {
        let names = PathNames::settled(path, &[]).names;
        if path != "/kubepods/burstable" {
            assert_eq!(names, PathNames::parse(path), "{path}");
        }
    }
}

use super::*;
use crate::workload::path::place::kubelet_root;

const A: &str = "aaaa9e8adb076670dd192fa0cee52aef8c493640b730232ed3d8433a12f1184b";
const B: &str = "bbbb9e8adb076670dd192fa0cee52aef8c493640b730232ed3d8433a12f1184b";
const PA: &str = "aaaaaaaa-d6c9-4ef9-818e-131c4cf4f220";
const PB: &str = "bbbbbbbb-d6c9-4ef9-818e-131c4cf4f220";

/// Pod uid, container id and unit that are believed, of groups that root made and no process
/// vouches for.
fn settle(path: &str, roots: &[&str]) -> (String, String, String) {
    let fill = |text: &str| {
        text.replace("{A}", A)
            .replace("{B}", B)
            .replace("{PA}", PA)
            .replace("{PB}", PB)
            .replace("{PA_}", &PA.replace('-', "_"))
            .replace("{PB_}", &PB.replace('-', "_"))
    };
    let roots: Vec<String> = roots.iter().map(|root| fill(root)).collect();
    let names = believed(&fill(path), &roots, 0, &[]);
    (names.pod_uid, names.container_id, names.unit)
}

fn believed(path: &str, kubelet_roots: &[String], maker: u32, foreign: &[&str]) -> PathNames {
    let foreign_ids: Vec<String> = foreign.iter().map(|id| (*id).to_owned()).collect();
    let known = Circumstances {
        kubelet_roots,
        maker,
        unit_maker: maker,
        foreign_ids: &foreign_ids,
    };
    Belief::of(path, &known, |_, _| false).names(path)
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
        let expected = (PA.into(), A.into(), String::new());
        assert_eq!(settle(path, &[]), expected, "{path}");
    }
    // What it calls its own groups is not told.
    for path in [
        "/kubepods/pod{PA}/{A}/cri-containerd-{B}.scope",
        "/kubepods/pod{PA}/{A}/kubepods.slice/kubepods-pod{PB_}.slice/cri-containerd-{B}.scope",
    ] {
        let expected = (PA.into(), A.into(), String::new());
        assert_eq!(settle(path, &[]), expected, "{path}");
    }
    let unit = settle("/kubepods/pod{PA}/{A}/in.service", &[]);
    assert_eq!(unit, (PA.into(), A.into(), "in.service".into()));
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
        let (pod, id, found) = settle(path, &[]);
        assert_eq!((&*pod, &*id, &*found), ("", container, unit), "{path}");
    }
}

#[test]
fn a_kubelet_in_a_container_is_believed_where_it_is_known() {
    let path = "/docker/{B}/kubelet/kubepods/burstable/pod{PA}/{A}";
    let root = "/docker/{B}";
    let expected = (PA.into(), A.into(), String::new());
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
fn a_container_is_outside_of_those_that_it_makes() {
    for (path, id) in [
        ("/docker/{A}", A),
        ("/docker/{A}/docker/{B}", A),
        ("/system.slice/docker-{A}.scope", A),
        ("/machine.slice/libpod-{A}.scope/container", A),
        ("/system.slice/evil.service/{B}", B),
    ] {
        assert_eq!(settle(path, &[]).1, id, "{path}");
    }
    let lxc = believed(&format!("/lxc.payload.web/docker/{B}"), &[], 0, &[]);
    assert_eq!((&*lxc.container, &*lxc.container_id), ("web", ""));
}

#[test]
fn who_rules_the_host_may_put_one_into_another() {
    let inner = format!("/docker/{A}/docker/{B}");
    let pod = format!("/docker/{A}/kubelet/kubepods/pod{PB}/{B}");
    for (path, foreign, id) in [
        (&inner, None, B),
        (&inner, Some(B), A),
        (&pod, None, B),
        (&pod, Some(PB), A),
        (&pod, Some(B), A),
    ] {
        let foreign_ids: Vec<String> = foreign.into_iter().map(str::to_owned).collect();
        let known = Circumstances {
            foreign_ids: &foreign_ids,
            ..Circumstances::default()
        };
        let belief = Belief::of(path, &known, |levels, index| {
            assert_eq!((levels.len(), index), (2, 1), "asked where it matters");
            true
        });
        assert_eq!(belief.names(path).container_id, id, "{path} {foreign:?}");
        assert_eq!(belief.doubt.is_some(), foreign.is_some());
    }
}

#[test]
fn what_a_pods_container_starts_is_the_pods_whoever_vouches() {
    let path = format!("/kubepods/pod{PA}/{A}/docker/{B}");
    let belief = Belief::of(&path, &Circumstances::default(), |_, _| true);
    let names = belief.names(&path);
    assert_eq!((&*names.pod_uid, &*names.container_id), (PA, A));
    assert_eq!(doubtful_ids(&path, &levels(&path), 0, &[]), []);
    // A cluster in a pod has pods of its own.
    let path = format!("/kubepods/pod{PA}/{A}/kubelet/kubepods/pod{PB}/{B}");
    let belief = Belief::of(&path, &Circumstances::default(), |_, _| true);
    assert_eq!(belief.names(&path).pod_uid, PB);
}

#[test]
fn what_a_user_made_is_a_container_if_nobody_elses() {
    const USER: &str = "/user.slice/user-1000.slice/user@1000.service";
    let path = format!("{USER}/user.slice/libpod-{A}.scope/container");
    assert_eq!(believed(&path, &[], 1000, &[]).container_id, A);
    assert_eq!(believed(&path, &[], 1000, &[A]).container_id, "");
    let pod = format!("/kubepods/pod{PA}/{A}");
    assert_eq!(believed(&pod, &[], 1000, &[]).pod_uid, "");
    assert_eq!(believed(&pod, &[], 0, &[]).pod_uid, PA);
}

#[test]
fn ids_are_asked_about_where_anybody_may_have_made_them() {
    let asked = |path: &str, maker, roots: &[String]| -> Vec<(String, String)> {
        let levels = levels(path);
        let ids = doubtful_ids(path, &levels, maker, roots);
        let owned = |(id, own): (&str, &str)| (id.to_owned(), own.to_owned());
        ids.into_iter().map(owned).collect()
    };
    let kind = format!("/docker/{B}/kubelet/kubepods/pod{PA}/{A}");
    for usual in [
        format!("/docker/{A}/in.service"),
        format!("/kubepods/burstable/pod{PA}/{A}"),
        format!("/system.slice/docker-{A}.scope"),
    ] {
        assert_eq!(asked(&usual, 0, &[]), [], "{usual}");
    }
    assert_eq!(asked(&kind, 0, &[format!("/docker/{B}")]), []);
    let pod = format!("/docker/{B}/kubelet/kubepods/pod{PA}");
    let expected = [(PA.to_owned(), pod), (A.to_owned(), kind.clone())];
    assert_eq!(asked(&kind, 0, &[]), expected);
    let users = format!("/system.slice/docker-{A}.scope");
    assert_eq!(asked(&users, 1000, &[]), [(A.to_owned(), users.clone())]);
    let elsewhere = format!("/system.slice/evil.service/docker-{A}.scope");
    assert_eq!(asked(&elsewhere, 0, &[]).len(), 1);
}

#[test]
fn what_is_no_container_is_as_it_was() {
    for path in [
        "/",
        "/system.slice/nginx.service",
        "/plain/group",
        "/kubepods/burstable",
    ] {
        let names = believed(path, &[], 0, &[]);
        assert_eq!(names, PathNames::parse(path), "{path}");
    }
}

#[test]
fn a_machine_of_a_user_has_nobody_elses_name() {
    const USER: &str = "/user.slice/user-1000.slice/user@1000.service";
    for group in [
        "lxc.payload.web",
        "machine-web.scope",
        "systemd-nspawn@web.service",
    ] {
        let name = |path: &str, maker| believed(path, &[], maker, &[]).container;
        let users = format!("{USER}/{group}/payload");
        assert_eq!(name(&users, 1000), "user@1000.service/web", "{group}");
        assert_eq!(name(&format!("/{group}"), 1000), "uid 1000/web");
        assert_eq!(name(&format!("/given/{group}"), 1000), "given/web");
        assert_eq!(name(&format!("/{group}"), 0), "web", "root's is its own");
    }
}

#[test]
fn what_is_not_believed_leaves_no_other_s_unit() {
    let users = |path: &str| believed(path, &[], 1000, &[A]).unit;
    let path = format!("/given/nginx.service/kubepods/pod{PA}/{A}");
    assert_eq!(users(&path), "given/nginx.service");
    let path = format!("/given/nginx.service/docker-{A}.scope");
    assert_eq!(users(&path), "given/nginx.service");
    assert_eq!(outside(&path, &levels(&path)), "/given/nginx.service");
}

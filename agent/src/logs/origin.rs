//! Whose log a file is, by its name.

use std::path::Path;

use crate::workload::Workload;

/// The container whose log the kubelet or Docker keeps in this file; empty for others.
///
/// * `/var/log/pods/NAMESPACE_POD_UID/CONTAINER/N.log`
/// * `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log`
/// * `/var/lib/docker/containers/ID/ID-json.log`
#[must_use]
pub fn workload(path: &Path) -> Workload {
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    match parts.as_slice() {
        [.., "log", "pods", pod, container, _] => in_pod(pod, container),
        [.., "log", "containers", file] => by_symlink(file),
        [.., "containers", id, file] if file.starts_with(id) && is_id(id) => Some(Workload {
            container_id: (*id).to_owned(),
            runtime: "docker".to_owned(),
            ..Workload::default()
        }),
        _ => None,
    }
    .unwrap_or_default()
}

fn in_pod(pod: &str, container: &str) -> Option<Workload> {
    let mut names = pod.split('_');
    let workload = Workload {
        namespace: names.next()?.to_owned(),
        pod: names.next()?.to_owned(),
        pod_uid: names.next()?.to_owned(),
        container: container.to_owned(),
        ..Workload::default()
    };
    names.next().is_none().then_some(workload)
}

fn by_symlink(file: &str) -> Option<Workload> {
    let (rest, id) = file.strip_suffix(".log")?.rsplit_once('-')?;
    let mut names = rest.split('_');
    let workload = Workload {
        pod: names.next()?.to_owned(),
        namespace: names.next()?.to_owned(),
        container: names.next()?.to_owned(),
        container_id: id.to_owned(),
        ..Workload::default()
    };
    (names.next().is_none() && is_id(id)).then_some(workload)
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_log_a_file_is() {
        let of = |path: &str| workload(Path::new(path));
        let pod = of("/var/log/pods/shop_web-0_1f2e-77/cart/3.log");
        assert_eq!(pod.display_name(), "shop/web-0/cart");
        assert_eq!(pod.pod_uid, "1f2e-77");
        let id = "6e899e8adb076670dd192fa0cee52aef8c493640b730232ed3d8433a12f1184b";
        let link = of(&format!("/var/log/containers/web-0_shop_cart-{id}.log"));
        assert_eq!(link.display_name(), "shop/web-0/cart");
        assert_eq!(link.container_id, id);
        let docker = of(&format!("/var/lib/docker/containers/{id}/{id}-json.log"));
        assert_eq!(docker.container_id, id);
        for other in [
            "/var/log/syslog",
            "/srv/containers/a/a.log",
            "/var/log/pods/odd/x/0.log",
        ] {
            assert_eq!(of(other), Workload::default(), "{other}");
        }
    }
}

//! The groups in which a kubelet keeps its pods.

use super::{PARENTS, pod_uid};

/// Whether pods right below this group are a kubelet's: at the top of the hierarchy, or below one
/// of `roots`, with none but the kubelet's own groups in between.
#[must_use]
pub fn is_kubelets_place(outer: &str, roots: &[String]) -> bool {
    let below = |root: &String| is_below(outer, root).then(|| &outer[root.len()..]);
    // Where containerd with the cgroupfs driver is given systemd's form of a path.
    let top = outer
        .strip_prefix("/system.slice/containerd.service")
        .unwrap_or(outer);
    let mut tops = roots.iter().filter_map(below).chain([top]);
    tops.any(|top| components(top).all(is_kubelet_group))
}

/// The root that this cgroup's kubelet uses, if it is a pod's: what is in front of `kubepods`.
#[must_use]
pub fn kubelet_root(path: &str) -> Option<String> {
    let components: Vec<&str> = components(path).collect();
    // The innermost pod: the asker's own, whatever it runs in.
    let pod = components.iter().rposition(|c| pod_uid(c).is_some())?;
    let first = components[..pod]
        .iter()
        .rposition(|c| !is_kubelet_group(c))
        .map_or(0, |at| at + 1);
    let root: String = components[..first]
        .iter()
        .map(|component| format!("/{component}"))
        .collect();
    (first < pod).then_some(root)
}

/// Groups that a kubelet makes between its root and its pods.
#[must_use]
pub fn is_kubelet_group(component: &str) -> bool {
    const NAMES: &[&str] = &["kubelet", "kubelet.slice", "kubepods", "kubepods.slice"];
    NAMES.contains(&component)
        || matches!(component, "burstable" | "besteffort")
        || (pod_uid(component).is_none()
            && component
                .strip_suffix(".slice")
                .is_some_and(|name| name.contains("kubepods")))
}

/// Whether a group of this name is made for groups of different people: engines', the kubelet's,
/// and slices but a user's own.
#[must_use]
pub fn holds_others(component: &str) -> bool {
    let slice = component.ends_with(".slice") && !component.starts_with("user-");
    let engines = PARENTS.iter().any(|(name, _)| *name == component);
    pod_uid(component).is_none()
        && (slice || engines || is_kubelet_group(component) || component == "lxc")
}

/// Whether a group is this one or below it.
#[must_use]
pub fn is_below(path: &str, top: &str) -> bool {
    path.strip_prefix(top)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|c| !matches!(*c, "" | "." | ".."))
}

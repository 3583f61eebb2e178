//! Which of the names in a cgroup path can be believed. Whoever may write below a cgroup, a
//! container in its own or a user in a delegated one, can make groups there that look like
//! anybody's: so what an outer group says is never overruled by an inner one, and a pod is a
//! pod only where a kubelet of this host makes them.

#[cfg(test)]
mod tests;

use super::{PARENTS, PathKind, PathNames, container, pod_uid};

/// Where in the hierarchy the names come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Below a kubelet's own root: only the kubelet and the runtime write there.
    Kubelet,
    /// Where engines put containers, or no container at all.
    #[default]
    Usual,
    /// A container's form where others than engines may have made it.
    Elsewhere,
}

/// Names, and where they were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// The names.
    pub names: PathNames,
    /// Where.
    pub place: Place,
}

impl PathNames {
    /// As [`PathNames::parse`], but believing only what the process could not have made up.
    /// `roots` are the groups that kubelets of this host were told to use besides `/`.
    #[must_use]
    pub fn settled(path: &str, roots: &[String]) -> Settled {
        let below = |root: &String| {
            let rest = path.strip_prefix(&**root)?;
            rest.starts_with('/').then_some(rest)
        };
        let pod = roots
            .iter()
            .filter_map(below)
            .chain([path])
            .find_map(kubelet_pod);
        if let Some(names) = pod {
            return Settled {
                names,
                place: Place::Kubelet,
            };
        }
        outermost(path)
    }
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

/// A pod right below groups that a kubelet makes, and its container.
fn kubelet_pod(path: &str) -> Option<PathNames> {
    // Where containerd with the cgroupfs driver is given systemd's form of a path.
    let path = path
        .strip_prefix("/system.slice/containerd.service")
        .unwrap_or(path);
    let mut components = components(path).skip_while(|c| is_kubelet_group(c));
    let first = components.next()?;
    // With the systemd driver on a runtime without it: `...slice:cri-containerd:ID`.
    let mut names = PathNames::default();
    names.take(first, "");
    if names.pod_uid.is_empty() {
        return None;
    }
    for component in components {
        if names.kind == PathKind::Pod && container(component, "").is_some() {
            names.take(component, "");
        } else if is_unit(component) {
            component.clone_into(&mut names.unit);
        }
    }
    Some(names)
}

/// The outermost container that is not a pod's; a pod's form counts for nothing here.
fn outermost(path: &str) -> Settled {
    let mut names = PathNames::default();
    let mut prefix = String::new();
    let mut place = Place::Usual;
    let mut parent_engine = "";
    for component in components(path) {
        if names.kind == PathKind::Container {
            if is_unit(component) {
                component.clone_into(&mut names.unit);
            }
            continue;
        }
        if pod_uid(component).is_some() || component.starts_with("kubepods") {
            // Somebody's imitation, or a kubelet in a place that nobody told of.
            return Settled {
                names: PathNames::parse(&prefix),
                place: Place::Elsewhere,
            };
        }
        if let Some((_, engine)) = PARENTS.iter().find(|(name, _)| *name == component) {
            parent_engine = engine;
        }
        names.take(component, parent_engine);
        if names.kind != PathKind::Container && !is_engines_group(component) {
            place = Place::Elsewhere;
        }
        prefix.push('/');
        prefix.push_str(component);
    }
    if names.kind == PathKind::Container {
        return Settled { names, place };
    }
    Settled {
        names: PathNames::parse(path),
        place: Place::Usual,
    }
}

fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|c| !matches!(*c, "" | "." | ".."))
}

fn is_unit(component: &str) -> bool {
    super::UNIT_SUFFIXES.iter().any(|s| component.ends_with(s))
}

/// Groups that a kubelet makes between its root and its pods.
fn is_kubelet_group(component: &str) -> bool {
    const NAMES: &[&str] = &["kubelet", "kubelet.slice", "kubepods", "kubepods.slice"];
    NAMES.contains(&component)
        || matches!(component, "burstable" | "besteffort")
        || (pod_uid(component).is_none()
            && component
                .strip_suffix(".slice")
                .is_some_and(|name| name.contains("kubepods")))
}

/// Groups in which engines put containers, and in which unprivileged users cannot make any.
fn is_engines_group(component: &str) -> bool {
    PARENTS.iter().any(|(name, _)| *name == component)
        || (component.ends_with(".slice") && !component.starts_with("user"))
        || matches!(component, "lxc" | "lxc.payload" | "containerd.service")
}

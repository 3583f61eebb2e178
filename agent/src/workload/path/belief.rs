//! Which of the containers and pods in a cgroup path can be believed. Whoever may write below a
//! cgroup, a container in its own or a user in a delegated one, can make groups there that look
//! like anybody's. So a group counts by who can have made it, and nobody's by its form alone.
//! Pure.

#[cfg(test)]
mod tests;

use super::{
    Level, PARENTS, PathNames, levels,
    place::{is_kubelet_group, is_kubelets_place},
};

/// What is known of the groups in a path and is not written there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Circumstances<'a> {
    /// Groups besides `/` in which kubelets of this host keep their pods.
    pub kubelet_roots: &'a [String],
    /// Owner of the directory that the outermost container's or pod's group was made in.
    pub maker: u32,
    /// Owner of the directory that the group [`outside`] of them was made in.
    pub unit_maker: u32,
    /// Ids of containers and pods in this path that are another's on this host.
    pub foreign_ids: &'a [String],
}

/// The containers and pods that a path names, and how many of them are believed.
#[derive(Clone, Debug, Default)]
pub struct Belief {
    /// Outermost first.
    pub levels: Vec<Level>,
    /// How many of them are believed.
    pub believed: usize,
    /// Why not all are.
    pub doubt: Option<&'static str>,
    maker: u32,
    unit_maker: u32,
}

impl Belief {
    /// What of a path is believed. `vouched` says of a level inside another one whether a process
    /// stands between the two that rules the host: whoever does could have made it anywhere.
    #[must_use]
    pub fn of(
        path: &str,
        known: &Circumstances<'_>,
        vouched: impl Fn(&[Level], usize) -> bool,
    ) -> Self {
        let levels = levels(path);
        let mut doubt = None;
        let mut believed = 0;
        while believed < levels.len() && doubt.is_none() {
            doubt = known.doubt_about(path, &levels, believed, || vouched(&levels, believed));
            believed += usize::from(doubt.is_none());
        }
        Self {
            levels,
            believed,
            doubt,
            maker: known.maker,
            unit_maker: known.unit_maker,
        }
    }

    /// What the believed part of the path says.
    #[must_use]
    pub fn names(&self, path: &str) -> PathNames {
        let Some(doubted) = self.levels.get(self.believed) else {
            let names = PathNames::parse(path);
            return match self.levels.is_empty() {
                true => names.of_maker(path, self.unit_maker),
                false => names.in_group_of(outside(path, &self.levels), self.maker),
            };
        };
        let before = before(path, doubted);
        PathNames::parse(before).of_maker(before, self.unit_maker)
    }
}

/// The group that the containers and pods of a path were made in; of a path without any, itself.
#[must_use]
pub fn outside<'a>(path: &'a str, levels: &[Level]) -> &'a str {
    levels.first().map_or(path, |level| before(path, level))
}

/// What is in front of a level, without groups that are made for pods: they say nothing without
/// one.
fn before<'a>(path: &'a str, level: &Level) -> &'a str {
    let mut before = path[..level.begin].trim_end_matches('/');
    while let Some((outer, last)) = before.rsplit_once('/')
        && is_kubelet_group(last)
    {
        before = outer;
    }
    before
}

impl Circumstances<'_> {
    fn doubt_about(
        &self,
        path: &str,
        levels: &[Level],
        index: usize,
        vouched: impl FnOnce() -> bool,
    ) -> Option<&'static str> {
        let (level, outermost) = (&levels[index], index == 0);
        let kind = kind(levels, index);
        if kind == Kind::InsidePod {
            return Some("made inside a pod's container, which the pod names");
        }
        let is_pod = kind == Kind::Pod;
        let outer = &path[..level.begin];
        let kubelets = is_pod && is_kubelets_place(outer, self.kubelet_roots);
        let foreign = self.is_foreign(level);
        match (outermost, is_pod) {
            (true, true) if self.maker != 0 => {
                Some("made in a group that is not root's: a user cannot make pods")
            }
            (_, true) if kubelets => None,
            (true, true) => Some("no kubelet of this host keeps pods there"),
            (true, false) if !foreign => None,
            (true, false) if self.maker != 0 => {
                Some("made in a group that is not root's, with another container's id")
            }
            (true, false) => Some("made where no engine does, with another container's id"),
            (false, _) if !vouched() => Some("made inside the container by itself"),
            (false, _) => foreign.then_some("made inside the container, with another's id"),
        }
    }

    fn is_foreign(&self, level: &Level) -> bool {
        let names = &level.names;
        let is = |id: &String| [&names.pod_uid, &names.container_id].contains(&id);
        self.foreign_ids.iter().any(is)
    }
}

/// What a level is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A container that is in no pod.
    Container,
    /// A pod, and its container.
    Pod,
    /// A container inside a pod's container.
    InsidePod,
}

fn kind(levels: &[Level], index: usize) -> Kind {
    let uid = &levels[index].names.pod_uid;
    let outer = index.checked_sub(1).map(|outer| &levels[outer]);
    if uid.is_empty() {
        Kind::Container
    } else if outer.is_some_and(|outer| outer.names.pod_uid == *uid) {
        Kind::InsidePod
    } else {
        Kind::Pod
    }
}

/// The ids in a path that must be asked about before they are believed: whether another has them.
/// Each with the part of the path that is its own.
#[must_use]
pub fn doubtful_ids<'a>(
    path: &'a str,
    levels: &'a [Level],
    maker: u32,
    kubelet_roots: &[String],
) -> Vec<(&'a str, &'a str)> {
    let mut ids = Vec::new();
    for (index, level) in levels.iter().enumerate() {
        let outer = &path[..level.begin];
        let names = &level.names;
        let kind = kind(levels, index);
        let usual = match (index, kind) {
            // Decided without.
            (0, Kind::Pod) | (_, Kind::InsidePod) => true,
            (0, Kind::Container) => maker == 0 && is_engines_place(outer),
            (_, Kind::Pod) => is_kubelets_place(outer, kubelet_roots),
            (_, Kind::Container) => false,
        };
        if usual {
            continue;
        }
        if kind == Kind::Pod {
            ids.push((&*names.pod_uid, level.first(path)));
        }
        if !names.container_id.is_empty() {
            ids.push((&*names.container_id, level.path(path)));
        }
    }
    ids
}

/// Groups in which engines put containers, and in which unprivileged users cannot make any.
fn is_engines_place(outer: &str) -> bool {
    let mut components = outer.split('/').filter(|c| !matches!(*c, "" | "." | ".."));
    components.all(|component| {
        PARENTS.iter().any(|(name, _)| *name == component)
            || (component.ends_with(".slice") && !component.starts_with("user"))
            || matches!(component, "lxc" | "lxc.payload" | "containerd.service")
    })
}

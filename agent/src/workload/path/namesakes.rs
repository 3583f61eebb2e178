//! Which groups of a host name which container or pod, to find those that two of them name. Pure.

use std::collections::{HashMap, HashSet};

use super::{levels, place::is_below};

/// The groups that each container's and pod's id names, as far as a path tells: what merely has the
/// id in its own name, as the group of a container's monitor has, does not count.
#[derive(Debug, Default)]
pub struct Namesakes(HashMap<String, HashSet<String>>);

impl Namesakes {
    /// From the paths of all groups.
    pub fn of<'a>(paths: impl IntoIterator<Item = &'a str>) -> Self {
        let mut found = Self::default();
        for path in paths {
            for level in levels(path) {
                found.add(&level.names.pod_uid, level.first(path));
                found.add(&level.names.container_id, level.path(path));
            }
        }
        found
    }

    fn add(&mut self, id: &str, group: &str) {
        if id.is_empty() {
            return;
        }
        // Many groups below a container name it: nothing is copied for all but the first.
        match self.0.get_mut(id) {
            Some(groups) if groups.contains(group) => {}
            Some(groups) => {
                groups.insert(group.to_owned());
            }
            None => {
                self.0.insert(id.to_owned(), [group.to_owned()].into());
            }
        }
    }

    /// Whether another group is of this id: one that is not `own` nor below it.
    #[must_use]
    pub fn has_another(&self, id: &str, own: &str) -> bool {
        let groups = self.0.get(id).into_iter().flatten();
        groups.into_iter().any(|group| !is_below(group, own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaa9e8adb076670dd192fa0cee52aef8c493640b730232ed3d8433a12f1184b";
    const B: &str = "bbbb9e8adb076670dd192fa0cee52aef8c493640b730232ed3d8433a12f1184b";
    const POD: &str = "aaaaaaaa-d6c9-4ef9-818e-131c4cf4f220";

    fn has_another(id: &str, own: &str, others: &[&str]) -> bool {
        let all = others.iter().copied().chain([own]);
        Namesakes::of(all).has_another(id, own)
    }

    #[test]
    fn a_container_s_monitor_is_not_that_container() {
        let own = format!("/user.slice/user.slice/libpod-{A}.scope");
        for beside in [
            format!("/user.slice/user.slice/libpod-conmon-{A}.scope"),
            format!("/user.slice/user.slice/crio-conmon-{A}.scope"),
            format!("/user.slice/user.slice/libpod-{A}.scope/container"),
            format!("/system.slice/backup-of-{A}.service"),
        ] {
            assert!(!has_another(A, &own, &[&beside]), "{beside}");
        }
        for other in [
            format!("/system.slice/docker-{A}.scope"),
            format!("/docker/{A}/in.service"),
            format!("/kubepods/pod{POD}/{A}"),
            format!("/docker/{B}/docker/{A}"),
            format!("/user.slice/other/libpod-{A}.scope"),
        ] {
            assert!(has_another(A, &own, &[&other]), "{other}");
        }
    }

    #[test]
    fn a_pod_is_one_in_either_form() {
        let own = format!("/a/pod{POD}");
        assert!(!has_another(POD, &own, &[&format!("{own}/{B}"), "/a"]));
        assert!(has_another(POD, &own, &[&format!("/b/pod{POD}")]));
        let systemd = POD.replace('-', "_");
        let systemd = format!("/kubepods.slice/kubepods-pod{systemd}.slice");
        assert!(has_another(POD, &own, &[&systemd]));
    }
}

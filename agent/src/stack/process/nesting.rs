//! Containers in containers, and which of their names may be believed.
//!
//! A cgroup's path names containers and pods from the outside in. Whoever may make groups
//! below its own can write anything there: the inside of a container may claim to be another
//! pod. So a name counts only where its maker could have done anything on the host anyway:
//! the outermost one in a directory of root's, an inner one when a process between the two
//! rules the host. The *stack* shows all of them, as each is a layer; the *workload* is the
//! innermost that is believed.

use super::{Ancestor, ProcessFacts};
use crate::{
    host::platform::HostFacts,
    workload::path::{PathKind, PathNames},
};

/// One container, or a pod's own group, that a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level {
    /// Where the component begins that made it one.
    pub begin: usize,
    /// Where its path ends.
    pub end: usize,
    /// What the path says up to there.
    pub names: PathNames,
}

/// Levels of one path at most; the innermost beyond it are not looked at.
const MAX_LEVELS: usize = 8;

/// The containers and pods that a path names, outermost first.
#[must_use]
pub fn levels(path: &str) -> Vec<Level> {
    let mut levels: Vec<Level> = Vec::new();
    let named = |kind| matches!(kind, PathKind::Container | PathKind::Pod);
    if !named(PathNames::parse(path).kind) {
        return levels;
    }
    let mut begin = 0;
    for part in path.split_inclusive('/') {
        let end = begin + part.trim_end_matches('/').len();
        let from = begin;
        begin += part.len();
        if end == from {
            continue;
        }
        let names = PathNames::parse(&path[..end]);
        if !named(names.kind) {
            continue;
        }
        let key = |n: &PathNames| {
            (
                n.pod_uid.clone(),
                n.container_id.clone(),
                n.container.clone(),
            )
        };
        let full = levels.len() == MAX_LEVELS;
        match levels.last_mut() {
            Some(last) if key(&last.names) == key(&names) => {}
            // The container of the pod just named.
            Some(last)
                if last.names.kind == PathKind::Pod && last.names.pod_uid == names.pod_uid =>
            {
                last.end = end;
                last.names = names;
            }
            _ if full => break,
            _ => levels.push(Level {
                begin: from,
                end,
                names,
            }),
        }
    }
    levels
}

/// Where a process sits, and how much of what its path says is believed.
#[derive(Debug)]
pub(super) struct Place<'a> {
    facts: &'a ProcessFacts,
    /// Outermost first.
    pub levels: Vec<Level>,
    /// How many of them are believed.
    pub believed: usize,
    /// Why not all are.
    pub doubt: Option<&'static str>,
}

impl<'a> Place<'a> {
    pub fn find(facts: &'a ProcessFacts, host: &HostFacts) -> Self {
        let mut place = Self {
            levels: levels(&facts.cgroup_path),
            believed: 0,
            doubt: None,
            facts,
        };
        for index in 0..place.levels.len() {
            match place.doubt_about(index, host) {
                None => place.believed = index + 1,
                Some(doubt) => {
                    place.doubt = Some(doubt);
                    break;
                }
            }
        }
        place
    }

    fn doubt_about(&self, index: usize, host: &HostFacts) -> Option<&'static str> {
        let level = &self.levels[index];
        if index == 0 {
            return match self.facts.cgroup_maker {
                0 => None,
                _ if !level.names.pod_uid.is_empty() => {
                    Some("made in a group that is not root's: a user cannot make pods")
                }
                _ if self.facts.id_is_taken => {
                    Some("made in a group that is not root's, with another container's id")
                }
                _ => None,
            };
        }
        let vouched = self.makers(index).any(|maker| maker.rules_the_host(host));
        (!vouched).then_some("made inside the container by itself")
    }

    /// Ancestors between this level and the one around it: who made it is among them.
    pub fn makers(&self, index: usize) -> impl Iterator<Item = &'a Ancestor> {
        let inner = self.levels[index].path(&self.facts.cgroup_path).to_owned();
        let outer = index
            .checked_sub(1)
            .map(|outer| self.levels[outer].path(&self.facts.cgroup_path).to_owned());
        self.facts.ancestors.iter().filter(move |ancestor| {
            // Where the ancestor's group is not known, it is taken to be outside of all.
            let path = &*ancestor.cgroup_path;
            if path.is_empty() {
                return outer.is_none();
            }
            !is_below(path, &inner) && outer.as_ref().is_none_or(|outer| is_below(path, outer))
        })
    }

    /// What the believed part of the path says.
    pub fn names(&self) -> PathNames {
        if self.believed == self.levels.len() {
            return PathNames::parse(&self.facts.cgroup_path);
        }
        // The groups between the last that is believed and the first that is not.
        let end = self.levels[self.believed].begin;
        PathNames::parse(self.facts.cgroup_path[..end].trim_end_matches('/'))
    }
}

impl Level {
    /// Its part of the path.
    #[must_use]
    pub fn path<'a>(&self, whole: &'a str) -> &'a str {
        &whole[..self.end]
    }
}

fn is_below(path: &str, top: &str) -> bool {
    path.strip_prefix(top)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    const POD: &str = "pod11111111-2222-3333-4444-555555555555";

    fn ends(path: &str) -> Vec<&str> {
        let levels = levels(path);
        levels.into_iter().map(|l| &path[..l.end]).collect()
    }

    #[test]
    fn each_container_and_lone_pod_is_a_level() {
        assert_eq!(ends("/system.slice/nginx.service"), [""; 0]);
        assert_eq!(
            ends(&format!("/docker/{A}/x.service")),
            [format!("/docker/{A}")]
        );
        let pod = format!("/kubepods/burstable/{POD}");
        assert_eq!(ends(&pod), [&*pod]);
        let container = format!("{pod}/{A}");
        assert_eq!(ends(&format!("{container}/sub")), [&*container]);
        let kind = format!("/docker/{B}/kubelet{container}");
        assert_eq!(ends(&kind), [&*format!("/docker/{B}"), &*kind]);
        let fake = format!("{container}/kubepods/pod99999999-2222-3333-4444-555555555555");
        assert_eq!(ends(&fake), [&*container, &*fake]);
    }

    #[test]
    fn deep_paths_cost_no_more_than_a_few_levels() {
        let deep = format!("/docker/{A}/docker/{B}").repeat(50);
        assert_eq!(levels(&deep).len(), MAX_LEVELS);
    }
}

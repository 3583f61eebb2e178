//! The containers and pods that a cgroup path names, one inside the other.

use super::{PathKind, PathNames};

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

impl Level {
    /// Its part of the path.
    #[must_use]
    pub fn path<'a>(&self, whole: &'a str) -> &'a str {
        &whole[..self.end]
    }

    /// Its part of the path up to the component that made it one: of a container in a pod, the
    /// pod's.
    #[must_use]
    pub fn first<'a>(&self, whole: &'a str) -> &'a str {
        let end = whole[self.begin..].find('/');
        &whole[..end.map_or(whole.len(), |end| self.begin + end)]
    }
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

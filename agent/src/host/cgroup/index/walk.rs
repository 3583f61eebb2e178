//! One walk over the hierarchy, which leaves nobody out for another's sake: where there are more
//! groups than are kept, each user, pod, container and service has as many of them as the next.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    os::unix::fs::{DirEntryExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use super::super::inode;
use crate::workload::path::place::holds_others;

/// Deepest directory visited.
const MAX_DEPTH: usize = 64;

/// What a walk found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Id and path.
    pub groups: Vec<(u64, String)>,
    /// Groups that were seen and are not among them; those below were not even looked for.
    pub left_out: usize,
}

/// A group that is yet to be taken.
#[derive(Debug)]
struct Group {
    id: u64,
    dir: PathBuf,
    /// Empty for the root.
    path: String,
    depth: usize,
    /// Its groups are different people's: each has a share of its own.
    divides: bool,
}

/// One party's groups: how many were taken, and which are waiting.
#[derive(Debug, Default)]
struct Share {
    taken: usize,
    waiting: VecDeque<Group>,
}

/// Groups, from whoever has had the fewest.
#[derive(Debug, Default)]
struct Queue {
    shares: Vec<Share>,
    /// Shares with groups that wait, by what was taken of them.
    turns: BinaryHeap<Reverse<(usize, usize)>>,
}

impl Queue {
    fn new_share(&mut self) -> usize {
        self.shares.push(Share::default());
        self.shares.len() - 1
    }

    fn push(&mut self, share: usize, group: Group) {
        let Share { taken, waiting } = &mut self.shares[share];
        waiting.push_back(group);
        if waiting.len() == 1 {
            self.turns.push(Reverse((*taken, share)));
        }
    }

    fn next(&mut self) -> Option<(usize, Group)> {
        let Reverse((_, index)) = self.turns.pop()?;
        let share = &mut self.shares[index];
        let group = share.waiting.pop_front()?;
        share.taken += 1;
        if !share.waiting.is_empty() {
            self.turns.push(Reverse((share.taken, index)));
        }
        Some((index, group))
    }
}

/// Walks the hierarchy below this directory and takes at most `max` groups.
pub(super) fn walk(mount: &Path, max: usize) -> Found {
    let mut found = Found::default();
    let mut queue = Queue::default();
    let root = queue.new_share();
    let Some(id) = inode(mount) else {
        return found;
    };
    let group = Group {
        id,
        dir: mount.to_owned(),
        path: String::new(),
        depth: 0,
        divides: true,
    };
    queue.push(root, group);
    while let Some((share, group)) = queue.next() {
        if found.groups.len() == max {
            let waiting = queue.shares.iter().map(|share| share.waiting.len());
            found.left_out += 1 + waiting.sum::<usize>();
            break;
        }
        for child in children(&group) {
            let own = match group.divides {
                true => queue.new_share(),
                false => share,
            };
            // More than all that are kept is nobody's share.
            if queue.shares[own].waiting.len() < max {
                queue.push(own, child);
            } else {
                found.left_out += 1;
            }
        }
        let path = match group.path.is_empty() {
            true => "/".to_owned(),
            false => group.path,
        };
        found.groups.push((group.id, path));
    }
    found
}

fn children(group: &Group) -> impl Iterator<Item = Group> {
    let entries = (group.depth < MAX_DEPTH).then(|| std::fs::read_dir(&group.dir));
    let entries = entries.and_then(Result::ok).into_iter().flatten().flatten();
    let groups = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    groups.map(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let dir = entry.path();
        // Who owns a directory makes all that is in it.
        let is_roots = || std::fs::metadata(&dir).is_ok_and(|dir| dir.uid() == 0);
        Group {
            id: entry.ino(),
            path: format!("{}/{name}", group.path),
            depth: group.depth + 1,
            divides: group.divides && holds_others(&name) && is_roots(),
            dir,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, os::unix::fs::chown};

    use super::*;

    fn tree(groups: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for group in groups {
            std::fs::create_dir_all(dir.path().join(group)).unwrap();
        }
        dir
    }

    fn paths(found: &Found) -> BTreeSet<&str> {
        found.groups.iter().map(|(_, path)| &**path).collect()
    }

    #[test]
    fn a_user_s_many_groups_push_out_nobody_else_s() {
        const OTHERS: &[&str] = &[
            "kubepods/burstable/pod1/c1/inner",
            "kubepods/burstable/pod2/c1",
            "system.slice/nginx.service/worker",
            "docker/aa/in",
            "user.slice/user-1001.slice/user@1001.service/app.slice/x.service",
        ];
        let dir = tree(OTHERS);
        let many = |below: &str| {
            for n in 0..300 {
                let path = dir.path().join(format!("{below}/n{n}/deeper"));
                std::fs::create_dir_all(path).unwrap();
            }
        };
        // A user below systemd, a container's root, and a user who was given what looks like a
        // folder of many people's groups.
        many("user.slice/user-1000.slice/user@1000.service");
        many("kubepods/burstable/pod1/c1/kubepods");
        let given = dir.path().join("given/docker");
        std::fs::create_dir_all(&given).unwrap();
        for dir in [given.parent().unwrap(), &given] {
            chown(dir, Some(65_534), None).unwrap();
        }
        many("given/docker");

        let all = walk(dir.path(), usize::MAX);
        assert_eq!((all.groups.len() > 1800, all.left_out), (true, 0));
        let some = walk(dir.path(), 100);
        assert_eq!(some.groups.len(), 100);
        assert!(some.left_out > 800, "{}", some.left_out);
        let found = paths(&some);
        for path in &OTHERS[1..] {
            assert!(found.contains(&*format!("/{path}")), "{path}: {found:?}");
        }
        assert!(found.contains("/") && found.contains("/kubepods/burstable/pod1/c1"));
        for flood in ["/given/docker/", "user@1000.service/"] {
            assert!(found.iter().any(|path| path.contains(flood)), "{flood}");
        }
    }

    #[test]
    fn neither_loops_nor_depths_are_followed_for_ever() {
        let deep = "d/".repeat(MAX_DEPTH + 8);
        let dir = tree(&[&deep]);
        std::os::unix::fs::symlink(dir.path(), dir.path().join("d/loop")).unwrap();
        assert_eq!(walk(dir.path(), usize::MAX).groups.len(), MAX_DEPTH + 1);
        assert!(walk(&dir.path().join("none"), 9).groups.is_empty());
    }
}

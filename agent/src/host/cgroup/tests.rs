use std::{fs, time::Duration};

use super::*;

const POD: &str = "/kubepods/burstable/pod1";

struct Tree {
    dir: tempfile::TempDir,
    cgroups: Cgroups,
}

fn tree(version: Version) -> Tree {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    match version {
        Version::V2 => fs::write(root.join("cgroup.controllers"), "cpu\n").unwrap(),
        Version::V1 => fs::create_dir(root.join("cpu,cpuacct")).unwrap(),
    }
    let roots = Roots {
        procfs: root.join("no-proc"),
        sysfs: root.join("no-sys"),
        cgroupfs: root.to_owned(),
    };
    let cgroups = Cgroups::new(&roots);
    fs::create_dir_all(cgroups.directory(&format!("{POD}/c1/inner")).unwrap()).unwrap();
    Tree { dir, cgroups }
}

impl Tree {
    fn write(&self, path: &str, file: &str, text: &str) {
        fs::write(self.cgroups.directory(path).unwrap().join(file), text).unwrap();
    }

    fn limit(&self, path: &str, quota_us: i64) {
        match self.cgroups.layout().unwrap().version {
            Version::V2 if quota_us < 0 => self.write(path, "cpu.max", "max 100000\n"),
            Version::V2 => self.write(path, "cpu.max", &format!("{quota_us} 100000\n")),
            Version::V1 => {
                self.write(path, "cpu.cfs_quota_us", &format!("{quota_us}\n"));
                self.write(path, "cpu.cfs_period_us", "100000\n");
            }
        }
    }

    fn throttled(&self, path: &str, periods: u64, time: u64) {
        let name = match self.cgroups.layout().unwrap().version {
            Version::V2 => "throttled_usec",
            Version::V1 => "throttled_time",
        };
        self.write(
            path,
            "cpu.stat",
            &format!("nr_periods 9\nnr_throttled {periods}\n{name} {time}\n"),
        );
    }
}

#[test]
fn layouts() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    assert_eq!(Layout::detect(&root.join("absent")), None);
    assert_eq!(Layout::detect(root), None);
    fs::create_dir_all(root.join("unified")).unwrap();
    fs::write(root.join("unified/cgroup.controllers"), "hugetlb\n").unwrap();
    fs::create_dir_all(root.join("cpuset")).unwrap();
    assert_eq!(Layout::detect(root).unwrap().cpu, root.join("unified"));
    fs::create_dir_all(root.join("cpu,cpuacct")).unwrap();
    let hybrid = Layout::detect(root).unwrap();
    assert_eq!(
        (hybrid.version, hybrid.cpu),
        (Version::V1, root.join("cpu,cpuacct"))
    );
    fs::write(root.join("cgroup.controllers"), "cpu\n").unwrap();
    assert_eq!(Layout::detect(root).unwrap().version, Version::V2);
}

#[test]
fn the_path_is_that_of_the_hierarchy_with_the_cpu_controller() {
    let lines = CgroupLine::parse_all(b"9:name=systemd:/sd\n1:cpu,cpuacct:/v1\n0::/v2\n");
    assert_eq!(tree(Version::V1).cgroups.path_of(&lines), "/v1");
    assert_eq!(tree(Version::V2).cgroups.path_of(&lines), "/v2");
    assert_eq!(tree(Version::V2).cgroups.path_of(&[]), "/");
}

#[test]
fn paths_of_a_cgroup_namespace_are_made_absolute() {
    assert_eq!(
        resolve("/kubepods/burstable/podA/c1", "/../../podB/c2"),
        "/kubepods/burstable/podB/c2"
    );
    assert_eq!(resolve("/a/b", "/"), "/a/b");
    assert_eq!(resolve("/a/b", "/c"), "/a/b/c");
    assert_eq!(resolve("/", "/../../x"), "/x");
    let tree = tree(Version::V2);
    let lines = CgroupLine::parse_all(b"0::/../../../kubepods/pod1/x\n");
    assert_eq!(tree.cgroups.path_of(&lines), "/kubepods/pod1/x");
}

#[test]
fn ids_and_paths_go_both_ways_and_outlive_the_group() {
    let tree = tree(Version::V1);
    let path = format!("{POD}/c1");
    let id = tree.cgroups.id_of(&path);
    assert_ne!(id, 0);
    assert_eq!(tree.cgroups.path_by_id(id).as_deref(), Some(&*path));
    let inner = inode(&tree.cgroups.directory(&format!("{path}/inner")).unwrap()).unwrap();
    assert_eq!(
        tree.cgroups.path_by_id(inner).unwrap(),
        format!("{path}/inner").into(),
        "by walk"
    );
    fs::remove_dir_all(tree.cgroups.directory(&path).unwrap()).unwrap();
    assert_eq!(
        tree.cgroups.path_by_id(inner).unwrap(),
        format!("{path}/inner").into()
    );
    assert_eq!(tree.cgroups.id_of(&path), 0);
    assert_eq!(tree.cgroups.path_by_id(u64::MAX), None);
    drop(tree.dir);
}

#[test]
fn the_limiting_group_is_named() {
    for version in [Version::V1, Version::V2] {
        let tree = tree(version);
        let [pod, container, inner] = [
            POD.to_owned(),
            format!("{POD}/c1"),
            format!("{POD}/c1/inner"),
        ];
        let id = tree.cgroups.id_of(&inner);
        let mut now = Instant::now();
        let mut limiter = |hint: u64, later_ms: u64| {
            now += Duration::from_millis(later_ms);
            tree.cgroups.limiter_at(id, hint, now)
        };
        assert_eq!(limiter(0, 0), None, "no quota anywhere");

        tree.limit(&pod, 50_000);
        tree.limit(&container, -1);
        assert_eq!(limiter(0, 10), None, "what was read is fresh for a second");
        let only = limiter(0, 1_000).unwrap();
        assert_eq!(
            (&*only.cgroup_path, only.cores, only.is_ancestor),
            (&*pod, 0.5, true)
        );
        assert_eq!(only.cgroup_id, tree.cgroups.id_of(&pod));
        assert!(
            Arc::ptr_eq(&only, &limiter(0, 5).unwrap()),
            "shared while unchanged"
        );

        tree.limit(&inner, 20_000);
        tree.throttled(&pod, 70, 7_000);
        tree.throttled(&inner, 3, 300);
        assert_eq!(
            limiter(0, 1_000).unwrap().cgroup_path,
            pod,
            "by totals at first"
        );
        tree.throttled(&inner, 4, 400);
        let grew = limiter(0, 150).unwrap();
        assert_eq!(
            (&*grew.cgroup_path, grew.cores, grew.is_ancestor),
            (&*inner, 0.2, false)
        );
        tree.throttled(&pod, 71, 7_100);
        assert_eq!(
            limiter(0, 20).unwrap().cgroup_path,
            inner,
            "not read again yet"
        );
        assert_eq!(limiter(0, 150).unwrap().cgroup_path, pod);

        assert_eq!(
            limiter(id, 0).unwrap().cgroup_path,
            inner,
            "the kernel's word wins"
        );
        let hint = tree.cgroups.id_of(&pod);
        assert_eq!(limiter(hint, 0).unwrap().cgroup_path, pod);
    }
}

#[test]
fn real_hierarchy() {
    let cgroups = Cgroups::new(&Roots::default());
    let Some(layout) = cgroups.layout() else {
        panic!("no cgroup file system at {:?}", Roots::default().cgroupfs);
    };
    let me = ProcDir::new(&Roots::default(), std::process::id());
    let path = cgroups.path_of(&me.cgroups().unwrap());
    assert!(cgroups.processes(&path).contains(&std::process::id()));
    let id = cgroups.id_of(&path);
    assert_eq!(inode(&layout.directory(&path)), Some(id));
    assert!(cgroups.all().contains(&(id, path.into())));
}

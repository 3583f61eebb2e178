use super::*;
use crate::workload::NamesFrom;

#[test]
fn own_process() {
    let identifier = Identifier::new(Roots::default(), AgentMetrics::default());
    let me = std::process::id();
    let identity = identifier.identify(me).unwrap();
    assert_eq!(identity.process.pid, me);
    assert_eq!(identity.stack.0.last(), identifier.host_stack().0.last());
    assert!(
        Arc::ptr_eq(&identity, &identifier.identify(me).unwrap()),
        "cached"
    );
    let other_start = ProcessKey {
        start_ticks: identity.process.start_ticks + 1,
        ..identity.process
    };
    assert_eq!(
        identifier.identify_key(other_start),
        None,
        "a pid is not a process"
    );
    let by_cgroup = identifier
        .identify_event(other_start, identity.cgroup_id)
        .unwrap();
    assert_eq!(by_cgroup.process, other_start);
    assert_eq!(
        (&*by_cgroup.comm, by_cgroup.cgroup_id),
        ("", identity.cgroup_id)
    );
    assert_eq!(identifier.workload_of_cgroup(u64::MAX).cgroup_id, u64::MAX);
    let missing = identifier.look_up_pid(u32::MAX).unwrap_err();
    assert!(matches!(missing, ProcError::Gone { .. }), "{missing}");
    let all = identifier.all_report().workloads.unwrap();
    assert!(!all.is_empty());
}

#[test]
fn a_hundred_thousand_short_lives_fill_no_memory() {
    let metrics = AgentMetrics::default();
    let identifier = Identifier::new(Roots::default(), metrics.clone());
    let me = identifier.identify(std::process::id()).unwrap();
    for n in 0..100_000 {
        // Beyond every pid: gone before its event is looked at.
        let key = ProcessKey {
            pid: (1 << 22) + n,
            start_ticks: u64::from(n),
        };
        let identity = identifier.identify_event(key, me.cgroup_id).unwrap();
        assert_eq!(identity.cgroup_path, me.cgroup_path, "{n}");
    }
    assert!(metrics.identities.get() <= MAX_PROCESSES as i64);
    assert!(identifier.processes.lock().len() <= MAX_PROCESSES);
    assert!(identifier.inhabitants.lock().len() <= 8, "one group");
}

/// A process that filters its own system calls, in a cgroup of its own; both go with it.
struct Filtered {
    child: std::process::Child,
    dir: std::path::PathBuf,
}

impl Filtered {
    fn start(cgroups: &Cgroups) -> Self {
        use std::io::Read as _;
        let dir = cgroups
            .layout()
            .unwrap()
            .directory(&format!("/isostack-test-filtered-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        // prctl(PR_SET_NO_NEW_PRIVS), then PR_SET_SECCOMP with one instruction: allow.
        let script = "
import ctypes, struct, sys
libc = ctypes.CDLL(None)
code = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0x7fff0000))
program = ctypes.create_string_buffer(struct.pack('HP', 1, ctypes.addressof(code)))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, program, 0, 0) == 0
sys.stdout.write('+'); sys.stdout.flush()
sys.stdin.read()";
        let mut child = std::process::Command::new("python3")
            .args(["-c", script])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::fs::write(dir.join("cgroup.procs"), child.id().to_string()).unwrap();
        let mut ready = [0];
        let mut out = child.stdout.take().unwrap();
        let read = out.read_exact(&mut ready);
        let filtered = Self { child, dir };
        read.unwrap();
        filtered
    }
}

impl Drop for Filtered {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir(&self.dir);
    }
}

#[test]
fn the_layer_of_a_cgroup_is_that_of_its_processes() {
    let identifier = Identifier::new(Roots::default(), AgentMetrics::default());
    let filtered = Filtered::start(identifier.cgroups());
    let identity = identifier.identify(filtered.child.id()).unwrap();
    assert_eq!(identity.stack.layer(), Layer::Sandbox, "{}", identity.stack);
    let by_cgroup = identifier.inhabitant_of_cgroup(identity.cgroup_id);
    assert_eq!(by_cgroup.unwrap().0, Layer::Sandbox);
    assert_eq!(identifier.inhabitant_of_cgroup(u64::MAX), None);
}

#[test]
fn what_sits_in_the_root_cgroup_is_counted_under_the_host() {
    let identifier = Identifier::new(Roots::default(), AgentMetrics::default());
    let root = identifier.cgroups().id_of("/");
    let (layer, workload) = identifier.inhabitant_of_cgroup(root).unwrap();
    assert_eq!(layer, identifier.host_stack().layer());
    assert_eq!(workload.container_label(), "");
}

/// A process that waits, in a cgroup of its own; both go with it, and the groups above that
/// are empty then.
struct Inhabited {
    child: std::process::Child,
    top: std::path::PathBuf,
    dir: std::path::PathBuf,
}

impl Inhabited {
    fn start(cgroups: &Cgroups, path: &str) -> Self {
        let layout = cgroups.layout().unwrap();
        let (top, dir) = (layout.directory("/"), layout.directory(path));
        std::fs::create_dir_all(&dir).unwrap();
        let mut child = std::process::Command::new("sleep");
        let child = child.arg("60").spawn().unwrap();
        let inhabited = Self { child, top, dir };
        let procs = inhabited.dir.join("cgroup.procs");
        std::fs::write(procs, inhabited.child.id().to_string()).unwrap();
        inhabited
    }
}

impl Drop for Inhabited {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let groups = self.dir.ancestors().take_while(|dir| **dir != self.top);
        for dir in groups {
            if std::fs::remove_dir(dir).is_err() {
                break;
            }
        }
    }
}

fn pod(uid: &str, container: &str) -> crate::workload::pod::Pod {
    crate::workload::pod::Pod {
        uid: uid.into(),
        namespace: "shop".into(),
        name: "web-0".into(),
        containers: vec![crate::workload::pod::PodContainer {
            id: container.into(),
            name: "http".into(),
        }],
        ..Default::default()
    }
}

/// A pod uid and a container id that only this process has.
fn ids(salt: u32) -> (String, String) {
    let pid = std::process::id();
    (
        format!("{pid:08x}-2222-3333-4444-{salt:012x}"),
        format!("{pid:08x}{salt:056x}"),
    )
}

#[test]
fn names_that_come_after_the_end_reach_the_dead() {
    let identifier = Identifier::new(Roots::default(), AgentMetrics::default());
    let (uid, id) = ids(1);
    // Not where the kubelet of a real node here would clear up what it knows nothing of.
    let path = format!("/kubelet/kubepods/burstable/pod{uid}/{id}");
    let brief = Inhabited::start(identifier.cgroups(), &path);
    let identity = identifier.identify(brief.child.id()).unwrap();
    assert_eq!(identity.workload.pod_uid, uid);
    assert_eq!(
        (&*identity.workload.pod, identity.workload.names_from),
        ("", NamesFrom::Nobody)
    );
    let by_cgroup = identifier.workload_of_cgroup(identity.cgroup_id);
    assert_eq!((&*by_cgroup.container_id, &*by_cgroup.pod), (&*id, ""));
    drop(brief);

    identifier
        .naming()
        .directory()
        .apply(pod(&uid, &id), NamesFrom::Api);
    let late = identifier.identify_key(identity.process).unwrap();
    assert_eq!(late.workload.display_name(), "shop/web-0/http");
    let event = identifier.identify_event(identity.process, identity.cgroup_id);
    assert_eq!(event.unwrap().workload.names_from, NamesFrom::Api);
    let by_cgroup = identifier.workload_of_cgroup(identity.cgroup_id);
    assert_eq!(by_cgroup.display_name(), "shop/web-0/http");
    // Another process that was given its pid is not it.
    let other = ProcessKey {
        start_ticks: identity.process.start_ticks + 1,
        ..identity.process
    };
    assert_eq!(identifier.identify_key(other), None);
}

#[test]
fn names_that_come_during_a_look_are_not_missed() {
    let identifier = Identifier::new(Roots::default(), AgentMetrics::default());
    let (uid, id) = ids(4);
    let path = format!("/kubelet/kubepods/burstable/pod{uid}/{id}");
    let brief = Inhabited::start(identifier.cgroups(), &path);
    let look = identifier.look();
    let found = identifier.look_up_pid(brief.child.id()).unwrap();
    identifier
        .naming()
        .directory()
        .apply(pod(&uid, &id), NamesFrom::Api);
    identifier.remember(&found, 0, look);
    drop(brief);
    let late = identifier.identify_key(found.process).unwrap();
    assert_eq!(late.workload.display_name(), "shop/web-0/http");
}

#[test]
fn a_group_that_looks_like_a_pod_s_is_none() {
    let identifier = Identifier::new(Roots::default(), AgentMetrics::default());
    let (uid, id) = ids(2);
    identifier
        .naming()
        .directory()
        .apply(pod(&uid, &id), NamesFrom::Api);
    let top = format!("/isostack-test-evil-{}", std::process::id());
    for form in [
        format!("{top}/kubepods/burstable/pod{uid}/{id}"),
        format!("{top}/pod{uid}/cri-containerd-{id}.scope"),
    ] {
        let evil = Inhabited::start(identifier.cgroups(), &form);
        let identity = identifier.identify(evil.child.id()).unwrap();
        assert_eq!(identity.cgroup_path, form);
        let by_cgroup = identifier.workload_of_cgroup(identity.cgroup_id);
        for workload in [&identity.workload, &by_cgroup] {
            assert_eq!(
                (&*workload.pod_uid, &*workload.container_id),
                ("", ""),
                "{workload:?}"
            );
            assert_eq!(
                (&*workload.namespace, &*workload.pod),
                ("", ""),
                "{workload:?}"
            );
        }
    }
}

#[test]
fn a_user_s_group_is_not_the_system_s_unit() {
    let identifier = Identifier::new(Roots::default(), AgentMetrics::default());
    let given = format!("isostack-test-given-{}", std::process::id());
    let (uid, id) = ids(5);
    let path = format!("/{given}/nginx.service/pod{uid}/{id}");
    let evil = Inhabited::start(identifier.cgroups(), &path);
    for dir in evil.dir.ancestors().skip(1).take(3) {
        std::os::unix::fs::chown(dir, Some(65_534), None).unwrap();
    }
    let identity = identifier.identify(evil.child.id()).unwrap();
    let by_cgroup = identifier.workload_of_cgroup(identity.cgroup_id);
    for workload in [&identity.workload, &by_cgroup] {
        assert_eq!(workload.unit, format!("{given}/nginx.service"));
    }
}

#[test]
fn a_rootless_container_beside_its_monitor_is_that_container() {
    // Not where engines of root put theirs: the id is asked about.
    let top = format!("/isostack-test-rootless-{}", std::process::id());
    let (_, id) = ids(3);
    let of = |other: &str| {
        let identifier = Identifier::new(Roots::default(), AgentMetrics::default());
        let own = format!("{top}/libpod-{id}.scope/container");
        let own = Inhabited::start(identifier.cgroups(), &own);
        let other = Inhabited::start(identifier.cgroups(), other);
        let found = identifier.identify(own.child.id()).unwrap();
        drop((own, other));
        (
            found.workload.container_id.clone(),
            found.workload.unit.clone(),
        )
    };
    let beside = of(&format!("{top}/libpod-conmon-{id}.scope"));
    assert_eq!(beside, (id.clone(), String::new()));
    let (foreign, _) = of(&format!("{top}/other/docker-{id}.scope"));
    assert_eq!(foreign, "", "two have this id");
}

#[test]
fn a_cgroup_id_that_is_given_again_is_looked_up_anew() {
    let identifier = Identifier::new(Roots::default(), AgentMetrics::default());
    let (top, me) = ("/isostack-test-reused", std::process::id());
    let first = Inhabited::start(identifier.cgroups(), &format!("{top}-{me}-a"));
    let id = identifier.identify(first.child.id()).unwrap().cgroup_id;
    assert_eq!(
        identifier.workload_of_cgroup(id).unit,
        format!("isostack-test-reused-{me}-a")
    );
    // The kernel gives an id again only after 2^32 others: the index is told that it did.
    identifier.cgroups().remember(id, &format!("{top}-{me}-b"));
    assert_eq!(
        identifier.workload_of_cgroup(id).unit,
        format!("isostack-test-reused-{me}-b")
    );
}

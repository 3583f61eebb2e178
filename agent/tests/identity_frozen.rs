//! Frozen hosts in, stacks and workloads out: needs no privilege and no particular machine.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics has failed, helpers included"
)]

use std::path::Path;

use isostack_agent::{
    host::{identify::Identifier, roots::Roots},
    metrics::AgentMetrics,
    process::ProcessKey,
    stack::report::ProcessReport,
};

fn identifier(name: &str) -> Identifier {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name);
    let roots = Roots {
        procfs: root.join("proc"),
        sysfs: root.join("sys"),
        cgroupfs: root.join("cgroup"),
    };
    Identifier::new(roots, AgentMetrics::default())
}

/// `(pid, stack above the host's, display name, runtime)`.
type Case = (u32, &'static str, &'static str, &'static str);

fn check(name: &str, host: &str, cases: &[Case]) {
    let identifier = identifier(name);
    assert_eq!(identifier.host_stack().to_string(), host);
    for (pid, stack, display, runtime) in cases {
        let identity = identifier.look_up_pid(*pid).unwrap();
        let separator = if stack.is_empty() { "" } else { "/" };
        let stack = format!("{stack}{separator}{host}");
        assert_eq!(identity.stack.to_string(), stack, "{pid}: {identity:#?}");
        assert_eq!(
            identity.workload.display_name(),
            *display,
            "{pid}: {identity:#?}"
        );
        assert_eq!(identity.workload.runtime, *runtime, "{pid}: {identity:#?}");
        for entry in &identity.stack.0 {
            assert!(!entry.evidence.is_empty(), "{pid}: {entry:?}");
        }
        assert_eq!(ProcessReport::from(&*identity).pid, *pid);
    }
}

#[test]
fn hybrid_guest() {
    check(
        "hybrid",
        "L-2:virtio/L-1:kvm/L-0:svm",
        &[
            (7059, "", "bash", ""),
            (
                32009,
                "L-3:runc/L-3:seccomp",
                "11111111-2222-3333-4444-555555555555/0123456789ab",
                "runc",
            ),
            (31997, "", "runc", ""),
            (
                1381,
                "L-3:runc/L-3:podman/L-3:seccomp",
                "8fa07577256e",
                "podman",
            ),
            (1369, "", "conmon", ""),
            (23488, "L-1:qemu/L-1:kvm", "vm1", "qemu"),
            (1054, "", "bwrap", ""),
            (1056, "L-4:bubblewrap", "bwrap", ""),
            (1057, "L-4:bubblewrap", "sleep", ""),
            (
                32426,
                "L-4:gvisor/L-3:container/L-3:seccomp",
                "11111111-2222-3333-4444-555555555555/aaaa456789ab",
                "",
            ),
            (
                20240,
                "L-3:runc/L-3:containerd",
                "default/busy/web",
                "containerd",
            ),
            (
                20151,
                "L-3:runc/L-3:containerd",
                "default/busy/loop",
                "containerd",
            ),
            (
                19959,
                "L-3:runc/L-3:containerd/L-3:seccomp",
                "default/busy/65278cfeb535",
                "containerd",
            ),
            // Its shim was not frozen with it: then the runtime is not made up.
            (
                20273,
                "L-3:container/L-3:seccomp",
                "kube-system/guaranteed/a",
                "",
            ),
            (19912, "", "containerd-shim", ""),
        ],
    );
}

#[test]
fn unified_bare_metal() {
    check(
        "unified",
        "L-0:vmx",
        &[
            (1, "", "init.scope", "systemd"),
            (600, "", "nginx.service", "systemd"),
            (610, "L-4:seccomp", "systemd-resolved.service", "systemd"),
            (
                710,
                "L-3:runc/L-3:docker/L-3:seccomp",
                "aaaaaaaaaaaa",
                "docker",
            ),
            (
                720,
                "L-3:runc/L-3:docker/L-3:seccomp",
                "aaaaaaaaaaaa",
                "docker",
            ),
            (
                810,
                "L-3:crun/L-3:cri-o",
                "4053557b-d6c9-4ef9-818e-131c4cf4f220/bbbbbbbbbbbb",
                "cri-o",
            ),
            (910, "L-3:crun/L-3:podman", "cccccccccccc", "podman"),
            (950, "L-3:namespaces", "session-1.scope", "systemd"),
            (960, "", "shop", ""),
        ],
    );
}

#[test]
fn names_are_data_whatever_they_hold() {
    let identifier = identifier("unified");
    let identity = identifier.look_up_pid(710).unwrap();
    assert_eq!(identity.comm, "we\"ird)\n(x");
    assert_eq!(identity.process.start_ticks, 1710);
    let report = ProcessReport::from(&*identity);
    assert!(!report.table().lines().any(|line| line == "(x"));
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["comm"], "we\"ird)\n(x");
    assert_eq!(json["layer"], "L-3");
    assert_eq!(json["stack"][0]["technology"], "runc");
    let id = json["workload"]["container_id"].as_str().unwrap();
    assert_eq!(id, "a".repeat(64));
}

#[test]
fn a_reused_pid_is_never_the_process_before() {
    let identifier = identifier("unified");
    let now = identifier.identify(810).unwrap();
    let before = ProcessKey {
        start_ticks: now.process.start_ticks - 1,
        ..now.process
    };
    assert_eq!(identifier.identify_key(before), None);
    // An event of the process before still finds its container.
    let event = identifier.identify_event(before, now.cgroup_id).unwrap();
    assert_eq!((event.process, &*event.comm), (before, ""));
    assert_eq!(event.workload.container_id, "b".repeat(64));
    assert_eq!(event.stack.to_string(), "L-3:cri-o/L-0:vmx");
}

#[test]
fn the_limiting_cgroup_of_a_frozen_host() {
    let identifier = identifier("unified");
    for (pid, path, cores, is_ancestor) in [
        (600, "/system.slice/nginx.service", 0.5, false),
        (
            810,
            "/kubepods.slice/kubepods-pod4053557b_d6c9_4ef9_818e_131c4cf4f220.slice",
            1.0,
            true,
        ),
        (960, "/isostack-demo/shop", 0.2, false),
    ] {
        let id = identifier.identify(pid).unwrap().cgroup_id;
        let limiter = identifier.limiter(id, 0).unwrap();
        assert_eq!(limiter.cgroup_path, path);
        assert_eq!((limiter.cores, limiter.is_ancestor), (cores, is_ancestor));
    }
    let unlimited = identifier.identify(1).unwrap();
    assert_eq!(identifier.limiter(unlimited.cgroup_id, 0), None);
}

#[test]
fn all_workloads_once() {
    let report = identifier("unified").all_report();
    let workloads = report.workloads.as_ref().unwrap();
    let pids: Vec<u32> = workloads.iter().map(|w| w.pid).collect();
    assert_eq!(
        pids,
        [1, 600, 610, 700, 710, 720, 800, 810, 900, 910, 950, 960]
    );
    assert!(report.table().contains("nginx.service"));
}

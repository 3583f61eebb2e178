//! An agent in a cgroup namespace of its own sees `/../..` paths; identities must not.

use std::process::Command;

use isostack_agent::{
    host::{cgroup::Cgroups, identify::Identifier, roots::Roots},
    metrics::AgentMetrics,
};

use crate::{lab::start, runc::Groups};

const GROUP: &str = "isostack-cgroupns";
/// Set inside the namespace: a process in another cgroup.
const SIBLING: &str = "ISOSTACK_TEST_SIBLING";

#[test]
fn paths_and_ids_are_the_hosts() {
    // The test starts itself again inside the namespace.
    if let Ok(sibling) = std::env::var(SIBLING) {
        return inside(sibling.parse().unwrap());
    }
    let layout = Cgroups::new(&Roots::default()).layout().unwrap().clone();
    let _groups = [
        Groups("isostack-cgroupns/agent/deep"),
        Groups("isostack-cgroupns/shop"),
    ];
    for name in ["agent/deep", "shop"] {
        std::fs::create_dir_all(layout.directory(&format!("{GROUP}/{name}"))).unwrap();
    }
    let mut sibling = start("bash", &["-c", "read"]);
    let join = |name: &str, pid: &str| {
        let file = layout
            .directory(&format!("{GROUP}/{name}"))
            .join("cgroup.procs");
        format!("echo {pid} > {}", file.display())
    };
    let inside = format!(
        "{}; {}; exec unshare --cgroup \"$0\" --exact cgroup_namespace::paths_and_ids_are_the_hosts",
        join("shop", &sibling.pid().to_string()),
        join("agent/deep", "$$"),
    );
    let done = Command::new("bash")
        .args(["-c", &inside])
        .arg(std::env::current_exe().unwrap())
        .env(SIBLING, sibling.pid().to_string())
        .output()
        .unwrap();
    sibling.kill();
    let output = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{output}");
    assert!(output.contains("1 passed"), "{output}");
}

fn inside(sibling: u32) {
    let shown = std::fs::read_to_string(format!("/proc/{sibling}/cgroup")).unwrap();
    assert!(
        shown.contains(":/../../shop"),
        "not in a namespace: {shown}"
    );
    let identifier = Identifier::new(Roots::default(), AgentMetrics::default());
    for (pid, name) in [(sibling, "shop"), (std::process::id(), "agent/deep")] {
        let identity = identifier.identify(pid).unwrap();
        assert_eq!(identity.cgroup_path, format!("/{GROUP}/{name}"));
        assert_ne!(identity.cgroup_id, 0);
        let path = identifier.cgroups().path_by_id(identity.cgroup_id).unwrap();
        assert_eq!(*path, *identity.cgroup_path);
    }
    let sibling = identifier.identify(sibling).unwrap();
    assert_eq!(sibling.workload.display_name(), "shop");
}

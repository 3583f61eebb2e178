use super::*;

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

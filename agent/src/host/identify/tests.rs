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

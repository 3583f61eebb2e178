use super::*;

#[test]
fn comm_with_parentheses_and_newlines_does_not_shift_the_start_time() {
    let line = b"77 (a) R 1 (b\n) S 5 77 77 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 9 0 123456 99 0\n";
    let stat = Stat::parse(line).unwrap();
    assert_eq!(stat.comm, "a) R 1 (b\n");
    assert_eq!((stat.state, stat.ppid), ('S', 5));
    assert_eq!(stat.start_ticks, 123_456);
    assert_eq!(Stat::parse(b"77 (cut) S 5 77"), None);
    assert_eq!(Stat::parse(b""), None);
    assert_eq!(Stat::parse(b"1 )x("), None);
}

#[test]
fn own_process_reads_as_the_kernel_has_it() {
    let roots = Roots::default();
    let me = ProcDir::new(&roots, std::process::id());
    assert_eq!(own_pid(&roots), Some(std::process::id()));
    assert!(is_live(&roots));
    assert_eq!(
        me.status().unwrap().ns_pids.first(),
        Some(&std::process::id())
    );
    let exe = std::env::current_exe().unwrap();
    assert_eq!(me.exe().unwrap(), exe.to_string_lossy());
    assert!(me.namespace("net").unwrap() > 0);
    assert!(!me.cgroups().unwrap().is_empty());
    assert_eq!(me.cmdline().unwrap(), std::env::args().collect::<Vec<_>>());
    assert!(me.key().unwrap().start_ticks > 0);
    assert!(pids(&roots).contains(&std::process::id()));
}

#[test]
fn a_process_that_is_not_there_says_so() {
    let gone = ProcDir::new(&Roots::default(), u32::MAX);
    let error = gone.stat().unwrap_err();
    assert!(matches!(error, ProcError::Gone { pid: u32::MAX, .. }));
    assert!(error.to_string().contains("no process 4294967295"));
}

#[test]
fn status_lines() {
    let status = Status::parse(
        b"Name:\tx\\nSeccomp:\t0\nUid:\t1\t1000\t1\t1\nNSpid:\t20240\t17\t1\n\
          CapEff:\t00000000a80425fb\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n",
    );
    assert_eq!(status.ns_pids, [20240, 17, 1]);
    assert_eq!((status.seccomp_mode, status.seccomp_filters), (2, 3));
    assert_eq!((status.uid, status.no_new_privs), (1000, true));
    assert_eq!(status.effective_capabilities, 0xa804_25fb);
}

#[test]
fn cgroup_paths_may_hold_colons() {
    let lines = CgroupLine::parse_all(
        b"4:cpu,cpuacct:/system.slice/containerd.service/kubepods.slice:cri-containerd:ab\n\
          1:name=systemd:/x (deleted)\n0::/\nnonsense\n",
    );
    assert_eq!(lines.len(), 3);
    assert!(lines[0].path.ends_with("kubepods.slice:cri-containerd:ab"));
    assert!(lines[0].has_controller("cpu") && !lines[1].has_controller("cpu"));
    assert_eq!(lines[1].path, "/x");
}

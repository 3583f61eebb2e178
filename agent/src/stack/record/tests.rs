use super::*;

#[test]
fn what_names_a_host_or_a_person_is_taken_out() {
    let names = Names {
        host: "node-17.example".into(),
    };
    let process = ProcessFacts {
        exe: "/home/alice/bin/tool".into(),
        cmdline: vec!["--node=node-17.example".into(), "--api-token=abc".into()],
        cgroup_path: "/machine.slice/node-17.example".into(),
        ..ProcessFacts::default()
    };
    let host = HostFacts {
        dmi_asset_tag: "SN-0815".into(),
        dmi_vendor: "QEMU".into(),
        ..HostFacts::default()
    };
    let process = names.scrub(&process).unwrap();
    assert_eq!(process.exe, "/home/user/bin/tool");
    assert_eq!(process.cmdline, ["--node=host", "(taken out)"]);
    assert_eq!(process.cgroup_path, "/machine.slice/host");
    let host = names.scrub(&host).unwrap();
    assert_eq!((&*host.dmi_asset_tag, &*host.dmi_vendor), ("", "QEMU"));
}

#[test]
fn a_record_gives_the_same_answer_when_read_back() {
    let record = Record::new(
        HostFacts {
            arch: "x86_64".into(),
            svm: true,
            ..HostFacts::default()
        },
        ProcessFacts {
            pid: 7,
            comm: "we\"ird\n".into(),
            seccomp_mode: 2,
            exe: "/usr/bin/x".into(),
            ..ProcessFacts::default()
        },
    );
    assert_eq!(record.stack, "L-4:seccomp/L-0:svm");
    let text = serde_json::to_string_pretty(&record).unwrap();
    let back: Record = serde_json::from_str(&text).unwrap();
    assert_eq!(back, record);
    assert_eq!(back.ask().0, record.stack);
}

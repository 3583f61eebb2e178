use std::{fs, os::unix::fs::symlink};

use super::*;

#[test]
fn a_frozen_tree_of_files_and_dangling_links_is_read_and_nothing_of_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    let roots = Roots {
        procfs: dir.path().join("proc"),
        sysfs: dir.path().join("sys"),
        cgroupfs: dir.path().join("cgroup"),
    };
    let sys = &roots.sysfs;
    for (path, content) in [
        ("class/dmi/id/sys_vendor", "Amazon EC2\n"),
        ("class/dmi/id/product_name", "m5.large\n"),
        (
            "devices/system/clocksource/clocksource0/available_clocksource",
            "kvm-clock tsc \n",
        ),
    ] {
        fs::create_dir_all(sys.join(path).parent().unwrap()).unwrap();
        fs::write(sys.join(path), content).unwrap();
    }
    for (device, driver) in [("0000:00:05.0", "ena"), ("0000:00:04.0", "nvme")] {
        let device = sys.join("bus/pci/devices").join(device);
        fs::create_dir_all(&device).unwrap();
        symlink(
            format!("../../../bus/pci/drivers/{driver}"),
            device.join("driver"),
        )
        .unwrap();
    }
    fs::create_dir_all(roots.procfs.join("1/ns")).unwrap();
    symlink("pid:[4026531836]", roots.procfs.join("1/ns/pid")).unwrap();
    fs::write(
        roots.procfs.join("cpuinfo"),
        "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu vmx hypervisor\n",
    )
    .unwrap();
    let facts = HostFacts::read(&roots);
    let expected = HostFacts {
        arch: "x86_64".into(),
        cpu_vendor: "GenuineIntel".into(),
        vmx: true,
        hypervisor_flag: true,
        cpu_flags: vec!["vmx".into(), "hypervisor".into()],
        dmi_vendor: "Amazon EC2".into(),
        dmi_product: "m5.large".into(),
        clocksources: vec!["kvm-clock".into(), "tsc".into()],
        devices: vec![Device {
            bus: "pci".into(),
            name: "0000:00:05.0".into(),
            driver: "ena".into(),
            ..Device::default()
        }],
        init_namespaces: Namespaces {
            pid: Some(4_026_531_836),
            ..Namespaces::default()
        },
        ..HostFacts::default()
    };
    assert_eq!(facts, expected);
    let nothing = HostFacts::read(&Roots {
        procfs: dir.path().join("absent"),
        sysfs: dir.path().join("absent"),
        cgroupfs: dir.path().join("absent"),
    });
    assert_eq!(nothing, HostFacts::default());
}

#[test]
fn this_machine() {
    let facts = HostFacts::read(&Roots::default());
    assert_eq!(facts.arch, std::env::consts::ARCH);
    assert!(facts.init_namespaces.pid.is_some());
    if facts.hypervisor_flag {
        assert_ne!(facts.hypervisor_signature, "");
    }
}

use std::{fs, os::unix::fs::symlink};

use super::*;

fn facts(name: &str, kind: &str, parent: &str) -> DeviceFacts {
    let mut facts = DeviceFacts::EMPTY;
    facts.name[..name.len()].copy_from_slice(name.as_bytes());
    facts.kind[..kind.len()].copy_from_slice(kind.as_bytes());
    facts.parent[..parent.len()].copy_from_slice(parent.as_bytes());
    facts.hardware = 1;
    facts
}

fn kind(sysfs: &Path, facts: DeviceFacts) -> DeviceKind {
    Devices::new(sysfs, Box::new(move |_| Some(facts)))
        .get(1)
        .kind
}

#[test]
fn software_devices_by_their_kind() {
    let sysfs = tempfile::tempdir().unwrap();
    for (name, word) in [
        ("veth", "veth"),
        ("bridge", "bridge"),
        ("tun", "tap"),
        ("openvswitch", "openvswitch"),
        ("macvlan", "macvlan"),
        ("dummy", "software"),
    ] {
        let kind = kind(sysfs.path(), facts("x0", name, ""));
        assert_eq!(kind.as_str(), word, "{name}");
    }
    let mut lo = facts("lo", "", "");
    lo.hardware = 772;
    let kind = kind(sysfs.path(), lo);
    assert_eq!((kind.as_str(), kind.slice()), ("loopback", None));
    assert_eq!(kind.slice_word(), "loopback");
}

#[test]
fn hardware_devices_by_their_bus_and_driver() {
    let sysfs = tempfile::tempdir().unwrap();
    let pci = sysfs.path().join("bus/pci/devices");
    fs::create_dir_all(sysfs.path().join("bus/virtio/devices/virtio1")).unwrap();
    fs::create_dir_all(sysfs.path().join("bus/vmbus/devices/f8b3781b-aaaa")).unwrap();
    for (address, driver) in [("0000:00:05.0", "ena"), ("0000:00:06.0", "e1000e")] {
        fs::create_dir_all(pci.join(address)).unwrap();
        // Dangling, as in a frozen tree.
        symlink(
            format!("../drivers/{driver}"),
            pci.join(address).join("driver"),
        )
        .unwrap();
    }
    fs::create_dir_all(pci.join("0000:01:10.0")).unwrap();
    symlink("../0000:01:00.0", pci.join("0000:01:10.0/physfn")).unwrap();
    for (parent, expected) in [
        ("virtio1", Slice::Paravirtual),
        ("f8b3781b-aaaa", Slice::Paravirtual),
        ("0000:00:05.0", Slice::VirtualFunction),
        ("0000:01:10.0", Slice::VirtualFunction),
        ("0000:00:06.0", Slice::Physical),
    ] {
        let kind = kind(sysfs.path(), facts("eth0", "", parent));
        assert_eq!(kind.slice(), Some(expected), "{parent}");
    }
    assert_eq!(
        kind(sysfs.path(), facts("eth0", "", "../../x")),
        DeviceKind::Unknown
    );
}

#[test]
fn a_vlan_is_what_it_lies_on() {
    let sysfs = tempfile::tempdir().unwrap();
    let net = sysfs.path().join("class/net");
    fs::create_dir_all(sysfs.path().join("bus/virtio/devices/virtio0")).unwrap();
    for name in ["bond0", "eth0", "loop0"] {
        fs::create_dir_all(net.join(name)).unwrap();
    }
    symlink("../bond0", net.join("loop0/lower_loop0")).unwrap();
    symlink("../eth0", net.join("bond0/lower_eth0")).unwrap();
    symlink("../../../virtio0", net.join("eth0/device")).unwrap();
    assert_eq!(
        kind(sysfs.path(), facts("bond0", "bond", "")),
        DeviceKind::Virtio
    );
    // A loop ends.
    assert_eq!(
        kind(sysfs.path(), facts("loop0", "vlan", "")),
        DeviceKind::Software
    );
}

#[test]
fn a_device_that_was_not_met_is_unknown_and_asked_for_again() {
    let devices = Devices::new(Path::new("/sys"), Box::new(|_| None));
    assert_eq!(devices.get(7).kind, DeviceKind::Unknown);
    assert!(devices.known.lock().is_empty());
}

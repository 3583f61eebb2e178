//! L-2: devices and clocks that the guest kernel co-operates with.

use super::entry;
use crate::{
    host::platform::{Device, HostFacts},
    stack::StackEntry,
    vocabulary::Layer,
};

/// L-2: one entry for each family of paravirtual devices.
pub(super) fn paravirtual(facts: &HostFacts) -> Vec<StackEntry> {
    let mut families: Vec<(&str, Vec<String>)> = Vec::new();
    for device in &facts.devices {
        let Some(technology) = family(device) else {
            continue;
        };
        let text = match (&*device.driver, virtio_kind(&device.kind)) {
            ("", "") => device.name.clone(),
            ("", kind) => format!("{kind} device ({}), no driver bound", device.name),
            (driver, _) => format!("{driver} ({})", device.name),
        };
        match families.iter_mut().find(|(known, _)| *known == technology) {
            Some((_, devices)) => devices.push(text),
            None => families.push((technology, vec![text])),
        }
    }
    // virtio first: on a mixed machine it is what most loads go through.
    families.sort_by_key(|(technology, _)| (*technology != "virtio", *technology));
    let mut entries: Vec<StackEntry> = families
        .into_iter()
        .map(|(technology, devices)| {
            let more = devices.len().saturating_sub(8);
            let mut text = devices.into_iter().take(8).collect::<Vec<_>>().join(", ");
            if more > 0 {
                text.push_str(&format!(" and {more} more"));
            }
            entry(Layer::Paravirtualisation, technology, text)
        })
        .collect();
    // The clock is no device: said with the devices, and alone where there are none.
    let clock = clock(facts);
    match entries.first_mut() {
        Some(first) if !clock.is_empty() => {
            first.evidence = format!("{}; {clock}", first.evidence);
        }
        None if !clock.is_empty() => {
            entries.push(entry(Layer::Paravirtualisation, "kvm-clock", clock));
        }
        _ => {}
    }
    entries
}

/// KVM's paravirtual clock and steal time, and what is missing of them.
fn clock(facts: &HostFacts) -> String {
    const STEAL_TIME: u32 = 1 << 5;
    if !facts.clocksources.iter().any(|c| c == "kvm-clock") {
        return String::new();
    }
    let in_use = match &*facts.clocksource {
        "kvm-clock" => "kvm-clock in use".to_owned(),
        "" => "kvm-clock offered".to_owned(),
        other => format!("kvm-clock offered, {other} in use"),
    };
    let steal = if facts.kvm_features & STEAL_TIME != 0 || facts.steal_seen {
        ", steal time reported"
    } else if facts.kvm_features != 0 {
        ", no steal time: waits for the hypervisor cannot be told from running"
    } else {
        ""
    };
    format!("{in_use}{steal}")
}

/// Kinds of virtio devices by their number.
fn virtio_kind(number: &str) -> &'static str {
    match number {
        "0x0001" => "net",
        "0x0002" => "blk",
        "0x0003" => "console",
        "0x0004" => "rng",
        "0x0005" => "balloon",
        "0x0008" => "scsi",
        "0x0013" => "vsock",
        "0x001a" => "fs",
        _ => "",
    }
}

/// The family of a device that the guest kernel co-operates with.
fn family(device: &Device) -> Option<&'static str> {
    Some(match (&*device.bus, &*device.driver) {
        ("virtio", _) => "virtio",
        ("xen", _) => "xen",
        ("vmbus", _) => "vmbus",
        ("vdpa", _) => "vdpa",
        (_, "ena") => "ena",
        (_, "gvnic" | "gve") => "gvnic",
        (_, "vmxnet3") => "vmxnet3",
        (_, "vmw_pvscsi") => "pvscsi",
        _ => return None,
    })
}

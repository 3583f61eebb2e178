//! The network devices that the programs met, of every network namespace.

use agent_common::device::DeviceFacts;
use aya_ebpf::{bindings::BPF_ANY, macros::map, maps::LruHashMap};

use crate::kernel::net::Device;

/// By device id. A device that is evicted is described anew when it is met again; one that
/// got another name keeps the old one until then.
#[map]
static DEVICES: LruHashMap<u64, DeviceFacts> = LruHashMap::with_max_entries(4096, 0);

/// Its id, and that user space can learn what it is; 0 where there is none.
#[inline(always)]
pub fn meet(device: Device) -> u64 {
    if device.is_null() {
        return 0;
    }
    let id = device.id();
    if id != 0 && DEVICES.get_ptr(id).is_none() {
        let mut facts = DeviceFacts::EMPTY;
        device.describe(&mut facts);
        // Without it the device is shown as unknown.
        let _ = DEVICES.insert(id, facts, u64::from(BPF_ANY));
    }
    id
}

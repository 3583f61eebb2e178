//! The table of network devices that the kernel side met.

use std::io;

use agent_common::device::DeviceFacts;
use aya::{Ebpf, maps::HashMap};
use parking_lot::Mutex;

use super::object::{take, wrong};
use crate::host::devices::Describe;

/// Looks a device up in the table.
pub fn describe(ebpf: &mut Ebpf) -> io::Result<Describe> {
    let table: HashMap<_, u64, DeviceFacts> =
        HashMap::try_from(take(ebpf, "DEVICES")?).map_err(wrong)?;
    let table = Mutex::new(table);
    // No such key: not met yet, or evicted.
    Ok(Box::new(move |id| table.lock().get(&id, 0).ok()))
}

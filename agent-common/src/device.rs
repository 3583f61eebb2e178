//! Network devices as the kernel side describes them: it meets them in every network
//! namespace, where user space would have to go first.

/// Bytes of a device's name, the terminating 0 included (`IFNAMSIZ`).
pub const NAME_BYTES: usize = 16;
/// Bytes kept of the name of the bus device behind it; a vmbus one has 36 characters.
pub const PARENT_BYTES: usize = 40;

/// What tells a device from all others of the host: inode of its network namespace in the
/// upper half, its index there in the lower; 0 where not known.
#[must_use]
pub const fn device_id(netns: u32, ifindex: u32) -> u64 {
    (netns as u64) << 32 | ifindex as u64
}

/// Value of the table of devices, whose key is a [`device_id`]. Texts end with a 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceFacts {
    /// Its name, e.g. `eth0`.
    pub name: [u8; NAME_BYTES],
    /// What `ip link add type` calls it, e.g. `veth`; empty for the hardware's and `lo`.
    pub kind: [u8; NAME_BYTES],
    /// Name of the bus device that it is of, e.g. `virtio1` or `0000:00:03.0`; empty for
    /// software devices.
    pub parent: [u8; PARENT_BYTES],
    /// `ARPHRD_` type: 1 for Ethernet, 772 for loopback.
    pub hardware: u32,
    /// No meaning.
    pub _pad: u32,
}

impl DeviceFacts {
    /// Nothing known.
    pub const EMPTY: Self = Self {
        name: [0; NAME_BYTES],
        kind: [0; NAME_BYTES],
        parent: [0; PARENT_BYTES],
        hardware: 0,
        _pad: 0,
    };
}

const _: () = assert!(size_of::<DeviceFacts>() == 80);

#[cfg(feature = "user")]
// SAFETY: `repr(C)` of integers without padding (asserted above): any bytes are a valid value.
unsafe impl aya::Pod for DeviceFacts {}

//! Who consumed how much of what others waited for, in short stretches: what the kernel side
//! adds up by cgroup before it tells of it.

/// `kind` of a record that tells a consumption, of every sensor that tells any: the cgroup
/// `cgroup_id` (in the hierarchy of the sensor's controller) consumed `extra` of the resource
/// `detail` from `start_ns` to `end_ns`. What the two mean is the sensor's:
///
/// - `block`: the disk, with [`BY_PAGE`]; microseconds that its I/O was under way, added up
///   over all of it.
/// - `net`: the device id; UDP datagrams sent.
/// - `memory`: 1 if a memory cgroup was at its limit, 0 if the host was; pages freed for it.
pub const KIND_CONSUMED: u32 = 100;

/// Set in `detail` of `block`: the cgroup is the memory controller's. What the kernel writes back
/// by itself is nobody's to the I/O controller of version 1; its pages know whose they are.
pub const BY_PAGE: u64 = 1 << 32;

/// Key of the table of what is being added up.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsumerKey {
    /// Inode of the cgroup's directory.
    pub cgroup_id: u64,
    /// `detail` of the record.
    pub resource: u64,
    /// One of [`crate::event::sensor`].
    pub sensor: u64,
}

const _: () = assert!(size_of::<ConsumerKey>() == 24 && align_of::<ConsumerKey>() == 8);

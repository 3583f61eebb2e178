//! What the kernel side aggregates by cgroup, as user space reads it.

use agent_common::{
    histogram::{FIRST_SLOT_LOG2_NS as KERNEL_FIRST_SLOT, Histogram},
    series::SeriesKey,
};

/// A metric that the kernel side keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// One of `agent_common::series::family`.
    pub id: u32,
    /// Name in Prometheus, without `_total`.
    pub name: &'static str,
    /// What it counts, one sentence.
    pub help: &'static str,
    /// Its shape.
    pub kind: FamilyKind,
    /// Names of the labels that it has beside the workload's, in the order of
    /// [`super::Interpreter::labels`].
    pub labels: &'static [&'static str],
}

/// Shape of a [`Family`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FamilyKind {
    /// A count of things, of no unit.
    Counter,
    /// Durations; nanoseconds in the kernel, seconds on the page.
    Histogram,
}

/// One counter or histogram of one cgroup, since the agent started (monotonic).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Whose, which, and the labels as numbers.
    pub key: SeriesKey,
    /// The metric.
    pub family: &'static Family,
    /// Values of the family's own labels.
    pub labels: Vec<String>,
    /// What was counted.
    pub value: Value,
}

/// Value of a [`Measured`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Of a counter.
    Count(u64),
    /// Of a histogram.
    Histogram(KernelHistogram),
}

/// A histogram as the kernel side keeps it: log2 slots of nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelHistogram {
    /// `slots[i]` counts values below `2^(FIRST_SLOT_LOG2_NS + i)` ns that no lower slot
    /// counts; the last one counts all the rest.
    pub slots: Vec<u64>,
    /// Sum of all values in nanoseconds, exact.
    pub sum_ns: u64,
}

/// Upper bound of the first slot: 2^10 ns, about a microsecond.
pub const FIRST_SLOT_LOG2_NS: u32 = KERNEL_FIRST_SLOT;

impl KernelHistogram {
    /// Adds what one CPU counted.
    pub fn add(&mut self, other: &Histogram) {
        self.sum_ns = self.sum_ns.wrapping_add(other.sum_ns);
        self.slots.resize(other.slots.len(), 0);
        for (sum, slot) in self.slots.iter_mut().zip(other.slots) {
            *sum = sum.wrapping_add(slot);
        }
    }

    /// Number of values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.slots.iter().sum()
    }
}

/// What the `cpu` sensor counted for one cgroup since the agent started (monotonic).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupCpu {
    /// Inode of the cgroup's directory.
    pub cgroup_id: u64,
    /// Single throttled intervals.
    pub throttled: KernelHistogram,
    /// Waits for a CPU, throttle time subtracted.
    pub runqueue: KernelHistogram,
}

/// Everything that the kernel side counted, by cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// By the `cpu` sensor.
    pub cpu: Vec<CgroupCpu>,
    /// By the others.
    pub measured: Vec<Measured>,
}

//! What every sensor has in common: its name, its state, its reasons; and the one table of
//! them. A new sensor is a module here, a row in [`SENSORS`], its kinds in
//! `agent_common::event` and its programs in `agent-ebpf`.

pub mod cpu;
pub mod decode;
pub mod hook;
pub mod memory;
pub mod net;
pub mod selection;
pub mod series;
pub mod status;
pub mod steal;
pub mod tcp;

pub use self::{
    decode::{DecodeError, Decoder, Interpreter, Meaning},
    hook::{Hook, HookKind, Probe},
    selection::{Selection, UnknownSensor},
    series::{
        CgroupCpu, Counted, FIRST_SLOT_LOG2_NS, Family, FamilyKind, KernelHistogram, Measured,
        Value,
    },
    status::{SensorState, SensorStatus, WhyNot},
};
use std::sync::Arc;

use crate::{
    event::Event,
    host::{
        btf::{FieldOffsets, KernelTypes},
        devices::Devices,
        roots::Roots,
    },
    time::MonoNs,
};

/// A row of [`SENSORS`].
pub struct Entry {
    /// `cpu`, `tcp`, ...
    pub name: &'static str,
    /// One of the four without which `doctor` fails.
    pub core: bool,
    /// What is not known while it is off.
    pub loses: &'static str,
    /// The sensor; none in versions of the agent that do not have it.
    pub sensor: Option<&'static dyn Sensor>,
}

/// Every sensor that users may name, in the order of `doctor`.
pub const SENSORS: &[Entry] = &[
    Entry {
        name: "cpu",
        core: true,
        loses: "CPU throttling, run-queue delay and steal",
        sensor: Some(&cpu::Cpu),
    },
    Entry {
        name: "tcp",
        core: true,
        loses: "connection set-up, round-trip and retransmission delays",
        sensor: Some(&tcp::Tcp),
    },
    Entry {
        name: "net",
        core: false,
        loses: "dropped packets, stuck virtqueues, conntrack failures",
        sensor: Some(&net::Net),
    },
    absent("block", true, "disk throttling, queueing and service time"),
    absent("seccomp", true, "system calls refused by a filter"),
    Entry {
        name: "memory",
        core: false,
        loses: "reclaim stalls and out-of-memory kills",
        sensor: Some(&memory::Memory),
    },
    absent(
        "wait",
        false,
        "time blocked on locks, sockets, sleeps and disk",
    ),
    absent("kvm", false, "time of virtual CPUs out of guest mode"),
    absent("logs", false, "meaning and layer of log lines"),
];

const fn absent(name: &'static str, core: bool, loses: &'static str) -> Entry {
    Entry {
        name,
        core,
        loses,
        sensor: None,
    }
}

/// What a sensor may look at before it starts.
#[derive(Clone, Copy)]
pub struct Kernel<'a> {
    /// Where the members of kernel structures are.
    pub fields: &'a FieldOffsets,
    /// The kernel's types: names of enumerators, prototypes.
    pub types: &'a KernelTypes,
    /// Where `/proc` and `/sys` are.
    pub roots: &'a Roots,
    /// The network devices that the kernel side met.
    pub devices: &'a Arc<Devices>,
}

/// The sensor side that differs: what it needs, where it hooks, what its records mean.
pub trait Sensor: Sync {
    /// Its id in `agent_common::event::sensor`.
    fn id(&self) -> u32;

    /// Its name in [`SENSORS`].
    fn name(&self) -> &'static str;

    /// What it has to see in the kernel.
    fn probes(&self) -> &'static [Probe];

    /// Whether this kernel has what it needs, beside the members of [`Kernel::fields`] that
    /// the table says it needs. Changes nothing.
    ///
    /// # Errors
    ///
    /// The reason and the remedy.
    fn check(&self, _kernel: &Kernel<'_>) -> Result<(), WhyNot> {
        Ok(())
    }

    /// Values of constants of its programs that depend on the kernel, by name, beside the
    /// offsets and prototypes of `agent_common::kernel_fields`.
    fn constants(&self, _kernel: &Kernel<'_>) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// Gives its records and series their meaning; one for each thread that needs it.
    fn interpreter(&self, kernel: &Kernel<'_>) -> Box<dyn Interpreter>;

    /// The metrics that its kernel side aggregates.
    fn families(&self) -> &'static [Family] {
        &[]
    }

    /// What it reads by itself, now and then, without a program in the kernel.
    fn poller(&self, _roots: &Roots) -> Option<Box<dyn Poller>> {
        None
    }
}

/// What a sensor reads by itself. Runs on the thread that empties the ring buffer, and so
/// must be quick; it decides itself whether it is time again.
pub trait Poller: Send {
    /// Appends what happened since the last call.
    fn poll(&mut self, now: MonoNs, out: &mut Vec<Event>);
}

/// All metrics that the kernel side aggregates, with the sensor's id.
pub fn families() -> impl Iterator<Item = (u32, &'static Family)> {
    let sensors = SENSORS.iter().filter_map(|entry| entry.sensor);
    sensors.flat_map(|s| s.families().iter().map(move |family| (s.id(), family)))
}

#[cfg(test)]
mod tests;

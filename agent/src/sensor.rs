//! What every sensor has in common: its name, its state, its reasons; and the one table of
//! them. A new sensor is a module here, a row in [`SENSORS`], its kinds in
//! `agent_common::event` and its programs in `agent-ebpf`.

pub mod block;
pub mod context;
pub mod cpu;
pub mod decode;
pub mod hook;
pub mod kvm;
pub mod logs;
pub mod memory;
pub mod net;
pub mod process;
pub mod seccomp;
pub mod selection;
pub mod series;
pub mod status;
pub mod steal;
pub mod system_calls;
pub mod tcp;
pub mod wait;

pub use self::{
    decode::{DecodeError, Decoded, Decoder, Interpreter, Meaning},
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
    Entry {
        name: "block",
        core: true,
        loses: "disk throttling, queueing and service time",
        sensor: Some(&block::Block),
    },
    Entry {
        name: "seccomp",
        core: true,
        loses: "system calls refused by a filter",
        sensor: Some(&seccomp::Seccomp),
    },
    Entry {
        name: "memory",
        core: false,
        loses: "reclaim stalls and out-of-memory kills",
        sensor: Some(&memory::Memory),
    },
    Entry {
        name: "wait",
        core: false,
        loses: "time blocked on locks, sockets, sleeps and disk",
        sensor: Some(&wait::Wait),
    },
    Entry {
        name: "context",
        core: false,
        loses: "the join by thread: which span a thread works on where its program publishes it",
        sensor: Some(&context::Context),
    },
    Entry {
        name: "kvm",
        core: false,
        loses: "time of virtual CPUs out of guest mode",
        sensor: Some(&kvm::Kvm),
    },
    Entry {
        name: "logs",
        core: false,
        loses: "meaning and layer of log lines",
        sensor: Some(&logs::LogLines),
    },
    Entry {
        name: process::NAME,
        core: false,
        loses: "the moment at which a process becomes another program or moves: all are looked \
                at again every 10 seconds",
        sensor: Some(&process::Process),
    },
];

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

    /// What this kernel lacks that the sensor can do without, and what that loses.
    fn reduced(&self, _kernel: &Kernel<'_>) -> Option<(String, &'static str)> {
        None
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

    /// When its programs are attached.
    fn activation(&self) -> Activation {
        Activation::Always
    }

    /// Contents of the arrays of the object that only user space can know, by map's name.
    fn arrays(&self, _kernel: &Kernel<'_>) -> Vec<(&'static str, Vec<u32>)> {
        Vec::new()
    }

    /// Whether what [`Sensor::check`] may have missed at the start has appeared since: then it
    /// is tried again. Only for sensors whose hooks are raw tracepoints. Asked every few
    /// seconds.
    fn has_appeared(&self, _roots: &Roots) -> bool {
        false
    }

    /// Array of the object, of one number, that is 0 while not all of its programs are
    /// attached, and another number each time that they are: for who must not take a half
    /// of what happened for the whole.
    fn epoch(&self) -> Option<&'static str> {
        None
    }

    /// What it reads instead of having programs in the kernel, for `doctor`.
    fn reads(&self) -> &'static str {
        ""
    }

    /// For a sensor without a part in the kernel, which runs whatever the kernel is: what it
    /// lacks here, if anything. `None` for all others.
    fn alone(&self) -> Option<Option<Lack>> {
        None
    }

    /// What it reads by itself, now and then, without a program in the kernel.
    fn poller(&self, _roots: &Roots) -> Option<Box<dyn Poller>> {
        None
    }
}

/// What a sensor can do without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// What is missing.
    pub reason: String,
    /// What that loses.
    pub loses: &'static str,
    /// What would help.
    pub fix: &'static str,
}

/// When a sensor's programs are attached. That they can be is tried at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// From start to end.
    Always,
    /// While there are processes that send spans.
    WhileTracking,
    /// While there are processes under a seccomp filter that send spans.
    WhileFiltered,
    /// While there are processes that publish which span each of their threads works on.
    WhilePublishing,
    /// While a limit holds back I/O: of the `block` sensor, whose kernel side says so.
    WhileThrottled,
}

/// What a sensor reads by itself. Runs on the thread that empties the ring buffer, and so
/// must be quick; it decides itself whether it is time again.
pub trait Poller: Send {
    /// Appends what happened since the last call.
    fn poll(&mut self, now: MonoNs, out: &mut Vec<Event>);
}

/// The name of the sensor with this id.
#[must_use]
pub fn name_of(id: u32) -> Option<&'static str> {
    let is = |entry: &&Entry| entry.sensor.is_some_and(|sensor| sensor.id() == id);
    SENSORS.iter().find(is).map(|entry| entry.name)
}

/// All metrics that the kernel side aggregates, with the sensor's id.
pub fn families() -> impl Iterator<Item = (u32, &'static Family)> {
    let sensors = SENSORS.iter().filter_map(|entry| entry.sensor);
    sensors.flat_map(|s| s.families().iter().map(move |family| (s.id(), family)))
}

#[cfg(test)]
mod tests;

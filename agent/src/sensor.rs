//! What every sensor has in common: its name, its state, its reasons; and the one table of
//! them. A new sensor is a module here, a row in [`SENSORS`], an id and a payload in
//! `agent_common::event` and its programs in `agent-ebpf`.

pub mod cpu;
pub mod steal;

use agent_common::cpu::{FIRST_SLOT_LOG2_NS as KERNEL_FIRST_SLOT, Histogram};
use serde::Serialize;

use crate::{event::Event, host::btf::FieldOffsets};

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
    absent(
        "tcp",
        true,
        "connection set-up, round-trip and retransmission delays",
    ),
    absent(
        "net",
        false,
        "dropped packets, stuck virtqueues, conntrack failures",
    ),
    absent("block", true, "disk throttling, queueing and service time"),
    absent("seccomp", true, "system calls refused by a filter"),
    absent("memory", false, "reclaim stalls and out-of-memory kills"),
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

/// The sensor side that differs: what it needs, where it hooks, what its records mean.
pub trait Sensor: Sync {
    /// Its id in `agent_common::event::sensor`.
    fn id(&self) -> u32;

    /// Its programs, best first; the first that the kernel takes is used.
    fn hooks(&self) -> &'static [Hook];

    /// Whether this kernel has what it needs. Changes nothing.
    ///
    /// # Errors
    ///
    /// The reason and the remedy.
    fn check(&self, fields: &FieldOffsets) -> Result<(), WhyNot>;

    /// One record of the ring buffer.
    ///
    /// # Errors
    ///
    /// If the bytes are not what the kernel side writes.
    fn decode(&self, bytes: &[u8]) -> Result<Event, DecodeError>;
}

/// One program of a sensor and the place it attaches to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Name of the program in the eBPF object.
    pub program: &'static str,
    /// How it attaches.
    pub kind: HookKind,
    /// Name of the tracepoint.
    pub target: &'static str,
    /// What is lost with it against the first; empty for the first.
    pub loses: &'static str,
}

/// How a program attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookKind {
    /// Tracepoint with arguments typed by BTF.
    TpBtf,
    /// Raw tracepoint.
    RawTp,
}

impl std::fmt::Display for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            HookKind::TpBtf => "tp_btf",
            HookKind::RawTp => "raw_tp",
        };
        write!(f, "{kind}/{}", self.target)
    }
}

/// Why a sensor cannot run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhyNot {
    /// What is missing.
    pub reason: String,
    /// What would help.
    pub fix: String,
}

/// A record that the kernel side cannot have written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Its length is wrong.
    #[error("a record of {0} bytes has the wrong length")]
    Length(usize),
    /// No such sensor or kind.
    #[error("a record of sensor {sensor}, kind {kind} is unknown")]
    Unknown {
        /// The sensor's id.
        sensor: u32,
        /// The kind; 0 where the sensor is not known.
        kind: u32,
    },
    /// Its numbers make no sense.
    #[error("a record has an impossible {0}")]
    Impossible(&'static str),
}

/// Decodes one record by the sensor id in its first four bytes.
///
/// # Errors
///
/// If the bytes are not what the kernel side writes.
pub fn decode(bytes: &[u8]) -> Result<Event, DecodeError> {
    let Some((id, _)) = bytes.split_first_chunk() else {
        return Err(DecodeError::Length(bytes.len()));
    };
    let id = u32::from_ne_bytes(*id);
    SENSORS
        .iter()
        .filter_map(|entry| entry.sensor)
        .find(|sensor| sensor.id() == id)
        .ok_or(DecodeError::Unknown {
            sensor: id,
            kind: 0,
        })?
        .decode(bytes)
}

/// Which sensors to start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Selection {
    /// All that can run.
    #[default]
    Auto,
    /// These, each of them mandatory; with `auto`, whatever else can run as well.
    Named {
        /// Names out of [`SENSORS`].
        required: Vec<&'static str>,
        /// `auto` was among them.
        and_auto: bool,
    },
}

/// A word in `--sensors` that names no sensor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no sensor {0:?}; there are auto, {names}", names = names())]
pub struct UnknownSensor(pub String);

impl Selection {
    /// Parses `auto`, `cpu`, `cpu,tcp`, `cpu,auto`.
    ///
    /// # Errors
    ///
    /// On a name that is not in [`SENSORS`].
    pub fn parse(text: &str) -> Result<Self, UnknownSensor> {
        let (mut required, mut and_auto) = (Vec::new(), false);
        for word in text.split(',').map(str::trim) {
            if word == "auto" {
                and_auto = true;
                continue;
            }
            let entry = SENSORS
                .iter()
                .find(|entry| entry.name == word)
                .ok_or_else(|| UnknownSensor(word.to_owned()))?;
            required.push(entry.name);
        }
        Ok(if required.is_empty() {
            Self::Auto
        } else {
            Self::Named { required, and_auto }
        })
    }

    /// Whether to try this one at all.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        match self {
            Self::Auto => true,
            Self::Named { required, and_auto } => *and_auto || required.contains(&name),
        }
    }

    /// Whether the start fails without it.
    #[must_use]
    pub fn requires(&self, name: &str) -> bool {
        matches!(self, Self::Named { required, .. } if required.contains(&name))
    }
}

fn names() -> String {
    SENSORS
        .iter()
        .map(|entry| entry.name)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Whether a sensor works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SensorState {
    /// By its primary hook.
    On,
    /// By a fallback; `loses` says what that costs.
    Reduced,
    /// Not at all; `reason` says why.
    Off,
}

/// One line of `doctor` and of `/api/v1/sensors`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SensorStatus {
    /// `cpu`, `tcp`, ...
    pub name: &'static str,
    /// See [`SensorState`].
    pub state: SensorState,
    /// The hook in use, e.g. `tp_btf/sched_switch`; empty when off.
    pub hook: String,
    /// Why it is reduced or off; empty when on.
    pub reason: String,
    /// What that loses; empty when on.
    pub loses: String,
    /// What would fix it; empty when on.
    pub fix: String,
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

#[cfg(test)]
mod tests;

//! What the kernel kept from a program: it does not run one that is running on the same CPU
//! already, as when an interrupt completes I/O in the middle of another completion.

use std::{
    collections::HashMap,
    fs,
    os::fd::{AsFd, AsRawFd},
    path::PathBuf,
};

use aya::Ebpf;
use parking_lot::Mutex;

use crate::{
    host::roots::Roots,
    metrics::{AgentMetrics, Sensor as SensorLabel},
    sensor::SENSORS,
};

/// Compares each reading with the one before.
pub struct Missed {
    descriptors: PathBuf,
    last: Mutex<HashMap<&'static str, u64>>,
}

impl Missed {
    /// Reads `self/fdinfo` under procfs.
    pub fn new(roots: &Roots) -> Self {
        Self {
            descriptors: roots.procfs.join("self/fdinfo"),
            last: Mutex::default(),
        }
    }

    /// Adds what was missed since the last call to the lost events of each sensor.
    pub fn count(&self, ebpf: &Ebpf, metrics: &AgentMetrics) {
        let mut last = self.last.lock();
        for entry in SENSORS {
            let probes = entry.sensor.map_or(&[][..], |sensor| sensor.probes());
            for hook in probes.iter().flat_map(|probe| probe.hooks) {
                let Some(misses) = self.misses(ebpf, hook.program) else {
                    continue; // not needed and so not loaded, or a kernel before 5.12
                };
                let before = last.insert(hook.program, misses).unwrap_or(0);
                metrics
                    .events_lost
                    .get_or_create(&SensorLabel { sensor: entry.name })
                    .inc_by(misses.saturating_sub(before));
            }
        }
    }

    fn misses(&self, ebpf: &Ebpf, program: &str) -> Option<u64> {
        let descriptor = ebpf.program(program)?.fd().ok()?;
        let number = descriptor.as_fd().as_raw_fd().to_string();
        let text = fs::read_to_string(self.descriptors.join(number)).ok()?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("recursion_misses:"));
        line?.trim().parse().ok()
    }
}

//! Sensors whose kernel module appears while the agent runs.

use aya::Ebpf;

use super::{
    attach::{brief, on},
    demand::{Link, OnDemand, attach},
    object::fill_arrays,
};
use crate::{
    host::{btf::KernelTypes, roots::Roots},
    sensor::{Activation, Entry, Hook, Kernel, SENSORS, SensorState, SensorStatus},
    time::MonoNs,
};

/// Between looks.
const PERIOD_NS: u64 = 5_000_000_000;

/// See the module.
pub struct Late {
    roots: Roots,
    /// The sensors that were wanted and could not start.
    waiting: Vec<&'static Entry>,
    next: MonoNs,
}

impl Late {
    /// As things are after the start; `wants` says which sensors are wanted.
    pub fn new(roots: Roots, statuses: &[SensorStatus], wants: impl Fn(&str) -> bool) -> Self {
        let is_off = |entry: &&Entry| {
            let status = statuses.iter().find(|status| status.name == entry.name);
            status.is_some_and(|status| status.state == SensorState::Off)
        };
        Self {
            roots,
            waiting: SENSORS
                .iter()
                .filter(|entry| wants(entry.name))
                .filter(is_off)
                .collect(),
            next: MonoNs(0),
        }
    }

    /// To be called about once a second: starts what can run now.
    pub fn tick(
        &mut self,
        now: MonoNs,
        ebpf: &mut Ebpf,
        on_demand: &mut OnDemand,
        statuses: &mut [SensorStatus],
    ) {
        if now < self.next {
            return;
        }
        self.next = MonoNs(now.0.saturating_add(PERIOD_NS));
        let roots = &self.roots;
        self.waiting.retain(|entry| {
            let appeared = entry.sensor.is_some_and(|s| s.has_appeared(roots));
            if !appeared {
                return true;
            }
            match start(ebpf, on_demand, entry, roots) {
                Ok(status) => {
                    tracing::info!(sensor = entry.name, hook = %status.hook, "Sensor on");
                    if let Some(old) = statuses.iter_mut().find(|s| s.name == entry.name) {
                        *old = status;
                    }
                }
                Err(reason) => {
                    tracing::warn!(sensor = entry.name, %reason, "Sensor off");
                    if let Some(old) = statuses.iter_mut().find(|s| s.name == entry.name) {
                        old.reason = reason;
                    }
                }
            }
            // Tried once: a module that is there and refused will be so again.
            false
        });
    }
}

fn start(
    ebpf: &mut Ebpf,
    on_demand: &mut OnDemand,
    entry: &'static Entry,
    roots: &Roots,
) -> Result<SensorStatus, String> {
    let sensor = entry.sensor.ok_or("not in this version")?;
    let types = KernelTypes::read(&roots.sysfs).map_err(|error| error.to_string())?;
    let kernel = Kernel {
        fields: &types.fields(),
        types: &types,
        roots,
    };
    sensor.check(&kernel).map_err(|why| why.reason)?;
    fill_arrays(ebpf, sensor.arrays(&kernel)).map_err(|error| error.to_string())?;
    let mut programs: Vec<(&'static Hook, Link)> = Vec::new();
    for probe in sensor.probes() {
        for hook in probe.hooks {
            let program = ebpf.program_mut(hook.program).ok_or("no such program")?;
            let loaded = <&mut aya::programs::RawTracePoint>::try_from(program)
                .and_then(|program| program.load());
            match loaded.and_then(|()| attach(ebpf, hook)) {
                Ok(link) => programs.push((hook, link)),
                Err(error) if probe.optional.is_none() => {
                    return Err(format!("{hook}: {}", brief(&error)));
                }
                Err(error) => tracing::debug!(%hook, %error, "Hook refused"),
            }
        }
    }
    let status = on(entry, &programs);
    on_demand.add(ebpf, sensor, Activation::Always, programs);
    Ok(status)
}

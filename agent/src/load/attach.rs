//! Starts one sensor: each of its probes by the best hook that the kernel takes, and from
//! that the line that `doctor` shows.

use aya::programs::{BtfTracePoint, FEntry, ProgramError, RawTracePoint};

use super::{
    demand::{self, Link},
    object::Object,
};
use crate::sensor::{
    Activation, Entry, Hook, HookKind, Kernel, Probe, Sensor, SensorState, SensorStatus, WhyNot,
    seccomp::SeccompMode,
};

/// How one probe came out.
struct Attached {
    /// The hook in use, and the program's link; `None`: the kernel takes none.
    hook: Option<(&'static Hook, Link)>,
    /// What the kernel said of those that it did not take.
    refused: String,
    /// What is lost.
    loses: &'static str,
    /// When it is attached.
    activation: Activation,
}

impl Object {
    /// Loads and attaches one sensor.
    pub fn start(&mut self, entry: &'static Entry) -> SensorStatus {
        let Some(sensor) = entry.sensor else {
            return off(entry, not_built());
        };
        if let Some(status) = alone(entry) {
            return status;
        }
        if let Err(why) = self.check(sensor) {
            return off(entry, why);
        }
        let activation = match sensor.activation() {
            Activation::WhileFiltered if self.seccomp == SeccompMode::Off => {
                return off(entry, switched_off());
            }
            Activation::WhileFiltered if self.seccomp == SeccompMode::On => Activation::Always,
            activation => activation,
        };
        let mut all: Vec<Attached> = Vec::new();
        for probe in sensor.probes() {
            let attached = self.probe(probe, activation);
            if attached.hook.is_none() && probe.optional.is_none() {
                // Without this one the others are of no use.
                for (hook, _) in all.iter().filter_map(|attached| attached.hook.as_ref()) {
                    self.unload(hook);
                }
                return off(
                    entry,
                    WhyNot {
                        reason: attached.refused,
                        fix: REFUSED_FIX.to_owned(),
                    },
                );
            }
            all.push(attached);
        }
        let status = status(entry, &all, sensor.reduced(&self.kernel()));
        // The sensor's own first: the others are exceptions.
        let mut activations = vec![activation];
        activations.extend(sensor.probes().iter().filter_map(|probe| probe.activation));
        for activation in activations {
            let programs = all
                .extract_if(.., |attached| attached.activation == activation)
                .filter_map(|attached| attached.hook)
                .collect();
            self.on_demand
                .add(&mut self.ebpf, sensor, activation, programs);
        }
        status
    }

    /// Whether this kernel has what the sensor needs.
    pub fn check(&self, sensor: &'static dyn Sensor) -> Result<(), WhyNot> {
        let missing = self.fields.missing(sensor.name());
        if !missing.is_empty() {
            return Err(WhyNot {
                reason: format!("this kernel has no {}", missing.join(", ")),
                fix: "use a kernel from 5.10 on, built with CONFIG_SCHED_INFO, \
                      CONFIG_FAIR_GROUP_SCHED and CONFIG_CGROUP_SCHED"
                    .to_owned(),
            });
        }
        sensor.check(&self.kernel())
    }

    /// What sensors may look at.
    pub fn kernel(&self) -> Kernel<'_> {
        Kernel {
            fields: &self.fields,
            types: &self.types,
            roots: &self.roots,
            devices: &self.devices,
        }
    }

    fn probe(&mut self, probe: &'static Probe, of_sensor: Activation) -> Attached {
        let activation = probe.activation.unwrap_or(of_sensor);
        let mut refused = String::new();
        let mut hooks: Vec<&Hook> = probe.hooks.iter().collect();
        if self.last_hooks {
            hooks.reverse();
        }
        for hook in hooks {
            match self.attach(hook) {
                Ok(link) => {
                    return Attached {
                        hook: Some((hook, link)),
                        refused,
                        loses: hook.loses,
                        activation,
                    };
                }
                Err(error) => {
                    tracing::debug!(%hook, %error, "Hook refused");
                    if !refused.is_empty() {
                        refused.push_str("; ");
                    }
                    refused.push_str(&format!("{hook}: {}", brief(&error)));
                }
            }
        }
        Attached {
            hook: None,
            refused,
            loses: probe.optional.unwrap_or_default(),
            activation,
        }
    }

    /// Loads one program and attaches it.
    pub fn attach(&mut self, hook: &Hook) -> Result<Link, ProgramError> {
        let program = self
            .ebpf
            .program_mut(hook.program)
            .ok_or(ProgramError::UnexpectedProgramType)?;
        match hook.kind {
            HookKind::TpBtf => {
                let program: &mut BtfTracePoint = program.try_into()?;
                program.load(hook.target, &self.btf)?;
            }
            HookKind::RawTp => {
                let program: &mut RawTracePoint = program.try_into()?;
                program.load()?;
            }
            HookKind::FEntry => {
                let program: &mut FEntry = program.try_into()?;
                program.load(hook.target, &self.btf)?;
            }
        }
        demand::attach(&mut self.ebpf, hook)
    }

    /// Detaches it and takes it out of the kernel.
    fn unload(&mut self, hook: &Hook) {
        let unloaded = self
            .ebpf
            .program_mut(hook.program)
            .map(|program| match hook.kind {
                HookKind::TpBtf => <&mut BtfTracePoint>::try_from(program)?.unload(),
                HookKind::RawTp => <&mut RawTracePoint>::try_from(program)?.unload(),
                HookKind::FEntry => <&mut FEntry>::try_from(program)?.unload(),
            });
        if let Some(Err(error)) = unloaded {
            tracing::debug!(%hook, %error, "Cannot unload");
        }
    }
}

fn status(
    entry: &'static Entry,
    all: &[Attached],
    reduced: Option<(String, &'static str)>,
) -> SensorStatus {
    let list = |words: Vec<String>| {
        let mut unique: Vec<String> = Vec::new();
        for word in words.into_iter().filter(|word| !word.is_empty()) {
            if !unique.contains(&word) {
                unique.push(word);
            }
        }
        unique
    };
    let hooks = all.iter().filter_map(|a| {
        let (hook, _) = a.hook.as_ref()?;
        Some(format!("{hook}{}", condition(a.activation)))
    });
    let hook = list(hooks.collect()).join(", ");
    let (lacks, lost) = reduced.unwrap_or_default();
    let loses = all.iter().map(|a| a.loses).chain([lost]);
    let loses = list(loses.map(str::to_owned).collect()).join("; ");
    let refused = all.iter().map(|a| a.refused.clone()).chain([lacks]);
    let refused = list(refused.collect()).join("; ");
    let reduced = !loses.is_empty();
    SensorStatus {
        name: entry.name,
        state: if reduced {
            SensorState::Reduced
        } else {
            SensorState::On
        },
        hook,
        reason: if reduced { refused } else { String::new() },
        loses,
        fix: if reduced {
            REFUSED_FIX.to_owned()
        } else {
            String::new()
        },
    }
}

/// When a hook is in use, where that is not always.
const fn condition(activation: Activation) -> &'static str {
    match activation {
        Activation::Always => "",
        Activation::WhileTracking => " (while processes send spans)",
        Activation::WhileFiltered => " (while processes under a filter send spans)",
        Activation::WhilePublishing => " (while processes publish their threads' contexts)",
        Activation::WhileThrottled => " (while a limit holds I/O back)",
    }
}

const REFUSED_FIX: &str = "see the log at debug level for the kernel's own words; a lockdown or security module may \
     forbid this kind of program";

/// How a sensor runs that has no part in the kernel; `None` for others.
pub(crate) fn alone(entry: &Entry) -> Option<SensorStatus> {
    let sensor = entry.sensor?;
    let status = SensorStatus {
        name: entry.name,
        state: SensorState::On,
        hook: sensor.reads().to_owned(),
        reason: String::new(),
        loses: String::new(),
        fix: String::new(),
    };
    Some(match sensor.alone()? {
        None => status,
        Some(lack) => SensorStatus {
            state: SensorState::Reduced,
            hook: String::new(),
            reason: lack.reason,
            loses: lack.loses.to_owned(),
            fix: lack.fix.to_owned(),
            ..status
        },
    })
}

/// A sensor that does not run.
pub(crate) fn off(entry: &Entry, why: WhyNot) -> SensorStatus {
    SensorStatus {
        name: entry.name,
        state: SensorState::Off,
        hook: String::new(),
        reason: why.reason,
        loses: entry.loses.to_owned(),
        fix: why.fix,
    }
}

pub(crate) fn not_built() -> WhyNot {
    WhyNot {
        reason: "not in this version".to_owned(),
        fix: "use a version of isostack-agent that has it".to_owned(),
    }
}

fn switched_off() -> WhyNot {
    WhyNot {
        reason: "switched off".to_owned(),
        fix: "set --seccomp to auto or on".to_owned(),
    }
}

pub fn not_selected() -> WhyNot {
    WhyNot {
        reason: "not selected".to_owned(),
        fix: "add it, or auto, to --sensors".to_owned(),
    }
}

/// A sensor that runs by these programs.
pub fn on(entry: &Entry, programs: &[(&'static Hook, Link)]) -> SensorStatus {
    let hooks: Vec<String> = programs.iter().map(|(hook, _)| hook.to_string()).collect();
    SensorStatus {
        name: entry.name,
        state: SensorState::On,
        hook: hooks.join(", "),
        reason: String::new(),
        loses: String::new(),
        fix: String::new(),
    }
}

/// The error without the verifier's log, which runs to pages.
pub fn brief(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, .. } => format!("the kernel refused it ({io_error})"),
        other => other.to_string(),
    }
}

//! Loads and attaches the eBPF object; the only part that talks to aya's loader.
//!
//! Each program is loaded by itself, and one that the kernel refuses costs its sensor only.
//! Decoded events leave through the sink given to [`Sensors::start`], in batches, on a
//! thread of their own.

mod attach;
mod budget;
mod cgroups;
mod contexts;
mod cost;
mod demand;
mod devices;
mod late;
mod missed;
mod object;
mod reader;
mod running;
mod self_test;
mod series;
mod sink;
mod traces_map;
mod tracked;
mod unseen;
mod upkeep;
mod watch;

use std::io;

use agent_common::context::ContextPlace;
use parking_lot::Mutex;

pub(crate) use self::attach::{not_built, off};
use self::{
    attach::{alone, not_selected},
    object::Object,
    running::Running,
    sink::EventsOnly,
    watch::Programs,
};
pub use self::{cost::Toggled, sink::Sink};
use crate::{
    event::Event,
    host::{capabilities, roots::Roots},
    metrics::{AgentMetrics, Map},
    sensor::{
        Activation, Counted, SENSORS, Selection, SensorState, SensorStatus, seccomp::SeccompMode,
    },
    time::MonoNs,
};

/// One per cent of a core.
pub const DEFAULT_SENSOR_BUDGET_CORES: f64 = 0.01;

/// What to start, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which sensors.
    pub selection: Selection,
    /// Where `/proc` and `/sys` are.
    pub roots: Roots,
    /// Size of the ring buffer in bytes; rounded up to a power of two of pages by the loader.
    pub ring_bytes: u32,
    /// What each sensor may cost, in cores.
    pub sensor_budget_cores: f64,
    /// When the seccomp sensor runs.
    pub seccomp: SeccompMode,
    /// Kernel-side debug messages go to the agent's log (target `isostack_agent::load`).
    pub kernel_debug: bool,
    /// Of the hooks that serve a probe the last one that the kernel takes, not the first: what
    /// older kernels do, tried on a newer one.
    pub last_hooks: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            selection: Selection::Auto,
            roots: Roots::default(),
            ring_bytes: 1 << 20,
            sensor_budget_cores: DEFAULT_SENSOR_BUDGET_CORES,
            seccomp: SeccompMode::default(),
            kernel_debug: false,
            last_hooks: false,
        }
    }
}

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// This process may not load eBPF programs; exit code 77.
    #[error(
        "no privilege to load eBPF programs: {missing}; run as root or give these capabilities"
    )]
    NoPrivilege {
        /// What is missing and what for.
        missing: String,
    },
    /// A sensor named explicitly cannot run.
    #[error("sensor {name} was asked for and cannot run: {reason}; {fix}")]
    Required {
        /// Its name.
        name: &'static str,
        /// Why.
        reason: String,
        /// What would help.
        fix: String,
    },
    /// The thread that reads the events cannot be started.
    #[error("cannot start the event reader: {0}")]
    Reader(#[from] io::Error),
}

/// The running sensors; dropping it detaches and unloads them all.
pub struct Sensors {
    statuses: Mutex<Vec<SensorStatus>>,
    running: Option<Running>,
}

impl Sensors {
    /// As [`Sensors::start_telling`], for who wants nothing but events.
    ///
    /// # Errors
    ///
    /// The same.
    pub fn start(
        settings: &Settings,
        metrics: AgentMetrics,
        events: impl FnMut(Vec<Event>) + Send + 'static,
    ) -> Result<Self, StartError> {
        Self::start_telling(settings, metrics, EventsOnly(events))
    }

    /// Loads and attaches what `settings.selection` wants. `sink` gets what they tell, on the
    /// reader's thread; it must not block for long, as meanwhile the ring fills.
    ///
    /// # Errors
    ///
    /// Without the privilege to load anything, and when a sensor named explicitly cannot run.
    /// Any other sensor that cannot run is merely `off` in [`Sensors::statuses`].
    pub fn start_telling(
        settings: &Settings,
        metrics: AgentMetrics,
        sink: impl Sink + 'static,
    ) -> Result<Self, StartError> {
        let lacking: Vec<_> = capabilities::missing()
            .into_iter()
            .filter(|need| need.essential)
            .collect();
        if !lacking.is_empty() {
            return Err(StartError::NoPrivilege {
                missing: capabilities::sentence(&lacking),
            });
        }
        let mut statuses: Vec<SensorStatus> = Vec::new();
        let mut running = None;
        match Object::load(settings) {
            Ok(mut object) => {
                for entry in SENSORS {
                    statuses.push(if settings.selection.wants(entry.name) {
                        object.start(entry)
                    } else {
                        off(entry, not_selected())
                    });
                }
                if statuses.iter().any(|s| s.state != SensorState::Off) {
                    running = Some(Running::new(
                        object,
                        settings,
                        metrics,
                        sink,
                        &mut statuses,
                    )?);
                }
            }
            Err(why) => statuses.extend(SENSORS.iter().map(|entry| match entry.sensor {
                None => off(entry, not_built()),
                Some(_) if !settings.selection.wants(entry.name) => off(entry, not_selected()),
                Some(_) => alone(entry).unwrap_or_else(|| off(entry, why.clone())),
            })),
        }
        for status in &statuses {
            if status.state == SensorState::Off && settings.selection.requires(status.name) {
                return Err(StartError::Required {
                    name: status.name,
                    reason: status.reason.clone(),
                    fix: status.fix.clone(),
                });
            }
        }
        Ok(Self {
            statuses: Mutex::new(statuses),
            running,
        })
    }

    /// One line per sensor that users may name.
    #[must_use]
    pub fn statuses(&self) -> Vec<SensorStatus> {
        self.statuses.lock().clone()
    }

    /// Tells of this thread group at the finer grain from now on. False if the pid is beyond
    /// `kernel.pid_max` or no sensor runs.
    pub fn track(&self, pid: u32) -> bool {
        self.running
            .as_ref()
            .is_some_and(|r| r.tracked.set(pid, true))
    }

    /// Back to the ordinary grain.
    pub fn untrack(&self, pid: u32) -> bool {
        self.running
            .as_ref()
            .is_some_and(|r| r.tracked.set(pid, false))
    }

    /// Where this thread group publishes its threads' contexts; `None`: nowhere (any more). Only
    /// of tracked ones. False if there is no room or no sensor runs.
    pub fn publishes(&self, pid: u32, place: Option<ContextPlace>) -> bool {
        self.running
            .as_ref()
            .is_some_and(|r| r.contexts.set(pid, place))
    }

    /// Where the contexts of thread groups are that publish none themselves; `None`: nowhere.
    pub fn published_by_others(&self) -> Option<ContextPlace> {
        self.running.as_ref()?.contexts.of_others()
    }

    /// Says whether there is somebody for whom the sensors of this activation run.
    pub fn demand(&self, activation: Activation, wanted: bool) {
        if let Some(running) = &self.running
            && let Some(Programs {
                ebpf, on_demand, ..
            }) = running.programs.lock().as_mut()
        {
            on_demand.set(ebpf, activation, wanted);
        }
    }

    /// What was counted of every cgroup since the start. Values never fall.
    #[must_use]
    pub fn counted(&self) -> Counted {
        self.running
            .as_ref()
            .map_or_else(Counted::default, |r| Counted {
                cpu: r.cgroups.read(),
                measured: r.series.read(),
            })
    }

    /// Forgets cgroups that are gone; `is_live` says which are not. Call it every minute or
    /// so. Returns how many were forgotten.
    pub fn prune_cgroups(&self, is_live: impl Fn(u64) -> bool) -> usize {
        self.running.as_ref().map_or(0, |r| {
            r.series.prune(&is_live);
            r.cgroups.prune(is_live)
        })
    }

    /// Brings `metrics` up to date with what the kernel counts of maps.
    pub fn observe(&self, metrics: &AgentMetrics) {
        let Some(running) = &self.running else {
            return;
        };
        let [histograms, counters] = running.series.fill();
        for (map, fill) in [
            ("CPU_TOTALS", running.cgroups.fill()),
            ("HISTOGRAMS", histograms),
            ("COUNTERS", counters),
        ] {
            metrics.map_fill.get_or_create(&Map { map }).set(fill);
        }
        if let Some(programs) = running.programs.lock().as_ref() {
            running.missed.count(&programs.ebpf, metrics);
        }
        if let Some(unseen) = &running.unseen {
            unseen.count(|| running.series.completions(), metrics);
        }
    }

    /// Starts sensors whose kernel module has appeared, and keeps every sensor within its
    /// budget; call it about once a second.
    pub fn keep_up(&self, now: MonoNs, metrics: &AgentMetrics) {
        let Some(running) = &self.running else {
            return;
        };
        if let Some(programs) = running.programs.lock().as_mut() {
            let Programs {
                ebpf,
                on_demand,
                upkeep,
                late,
            } = programs;
            let statuses = &mut self.statuses.lock();
            late.tick(now, ebpf, on_demand, statuses);
            upkeep.tick(now, ebpf, on_demand, statuses, metrics);
        }
    }

    /// Detaches everything and hands what is still in the ring to the sink.
    pub fn stop(mut self) {
        self.running = None;
    }
}

#[cfg(test)]
mod tests {
    use aya::programs::ProgramError;

    use super::*;
    use crate::sensor::HookKind;

    /// Fallbacks are not used on a kernel that takes the first hook: tried here.
    #[test]
    fn the_kernel_takes_every_hook_of_every_sensor() {
        let mut object = Object::load(&Settings::default()).expect("maps can be created");
        for sensor in SENSORS.iter().filter_map(|entry| entry.sensor) {
            if let Err(why) = object.check(sensor) {
                println!("{}: {}", sensor.name(), why.reason);
                continue;
            }
            for hook in sensor.probes().iter().flat_map(|probe| probe.hooks) {
                if hook.kind != HookKind::FEntry && !object.types.has_tracepoint(hook.target) {
                    println!("{hook}: not in this kernel");
                    continue;
                }
                // Before 5.17, `kfree_skb` had no reason, and its program wants one.
                if hook.target == "kfree_skb"
                    && object.types.enumerators("skb_drop_reason").is_empty()
                {
                    println!("{hook}: tells no reasons in this kernel");
                    continue;
                }
                match object.attach(hook) {
                    // Not what the verifier says: some kernels have no such programs at all.
                    Err(error) if hook.kind == HookKind::FEntry && is_forbidden(&error) => {
                        println!("cannot run here: {hook}: {error}");
                    }
                    attached => drop(attached.unwrap_or_else(|error| panic!("{hook}: {error}"))),
                }
            }
        }
    }

    fn is_forbidden(error: &ProgramError) -> bool {
        matches!(error, ProgramError::LoadError { io_error, .. }
            if io_error.raw_os_error() == Some(libc::EPERM))
    }

    #[test]
    fn a_sensor_that_is_named_and_cannot_run_fails_the_start() {
        let empty = tempfile::tempdir().unwrap();
        let settings = Settings {
            selection: Selection::parse("cpu").unwrap(),
            roots: Roots {
                sysfs: empty.path().to_owned(),
                ..Roots::default()
            },
            ..Settings::default()
        };
        let result = Sensors::start(&settings, AgentMetrics::default(), drop);
        let error = result
            .err()
            .expect("there is no type information")
            .to_string();
        assert!(error.contains("sensor cpu"), "{error}");
        assert!(error.contains("kernel/btf/vmlinux"), "{error}");
    }

    #[test]
    fn without_type_information_log_lines_are_read_all_the_same() {
        let empty = tempfile::tempdir().unwrap();
        let settings = Settings {
            roots: Roots {
                sysfs: empty.path().to_owned(),
                ..Roots::default()
            },
            ..Settings::default()
        };
        let sensors = Sensors::start(&settings, AgentMetrics::default(), drop).unwrap();
        for status in sensors.statuses() {
            let off = status.state == SensorState::Off;
            assert_eq!(off, status.name != "logs", "{status:?}");
        }
    }

    #[test]
    fn a_sensor_that_is_not_selected_is_off() {
        let settings = Settings {
            selection: Selection::parse("cpu").unwrap(),
            ..Settings::default()
        };
        let sensors = Sensors::start(&settings, AgentMetrics::default(), drop).unwrap();
        for status in &sensors.statuses()[1..] {
            assert_eq!(status.state, SensorState::Off, "{status:?}");
        }
        assert!(!sensors.track(u32::MAX), "beyond any pid");
    }
}

//! Measures what each sensor costs and keeps it within its budget.
//!
//! The kernel counts the time that programs run only when asked to, as that itself costs: it
//! is asked for a moment, now and then.

use std::{os::fd::OwnedFd, time::Duration};

use aya::{
    Ebpf,
    maps::{Array, MapData},
    sys::{Stats, enable_stats},
};

use super::{budget::Thinning, demand::OnDemand};
use crate::{
    event::{Event, Saving},
    metrics::{AgentMetrics, Program, Sensor as SensorLabel},
    sensor::{Activation, Entry, SENSORS, SensorState, SensorStatus},
    time::MonoNs,
};

/// How long the kernel counts.
const MEASURE_NS: u64 = 1_000_000_000;
/// From the start of one measurement to the next.
const PERIOD_NS: u64 = 30_000_000_000;
/// As long as some sensor is over its budget, or thinned.
const BUSY_PERIOD_NS: u64 = 5_000_000_000;

/// What is said of a sensor's saving holds until the next tick, about a second later, and a little
/// longer.
const AHEAD_NS: u64 = 1_200_000_000;

/// See the module.
pub struct Upkeep {
    budget_cores: f64,
    thinning: Vec<Thinning>,
    knobs: Array<MapData, u32>,
    next: MonoNs,
    measuring: Option<Measuring>,
    /// The kernel refused to count: said once.
    refused: bool,
    /// What is to be told of who tells less: of one tick.
    savings: Vec<Event>,
}

/// A measurement under way.
struct Measuring {
    began: MonoNs,
    /// As of the beginning, in the order of [`SENSORS`].
    before: Vec<Duration>,
    /// The kernel counts as long as this is open.
    _counting: OwnedFd,
}

impl Upkeep {
    pub fn new(budget_cores: f64, knobs: Array<MapData, u32>) -> Self {
        Self {
            budget_cores,
            thinning: vec![Thinning::default(); SENSORS.len()],
            knobs,
            next: MonoNs::now(),
            measuring: None,
            refused: false,
            savings: Vec::new(),
        }
    }

    /// To be called about once a second.
    pub fn tick(
        &mut self,
        now: MonoNs,
        ebpf: &mut Ebpf,
        on_demand: &mut OnDemand,
        statuses: &mut [SensorStatus],
        metrics: &AgentMetrics,
    ) {
        self.rest(now, ebpf, on_demand);
        if let Some(measuring) = self.measuring.take_if(|m| now.since(m.began) >= MEASURE_NS) {
            let elapsed = now.since(measuring.began) as f64 / 1e9;
            let after = run_times(ebpf);
            for (at, (before, after)) in measuring.before.iter().zip(after).enumerate() {
                let ran = after.saturating_sub(*before).as_secs_f64();
                self.judge(at, ran / elapsed, on_demand, &mut statuses[at], metrics);
            }
            let thinned = self.thinning.iter().any(|t| t.level() > 0);
            let period = if thinned { BUSY_PERIOD_NS } else { PERIOD_NS };
            self.next = MonoNs(measuring.began.0.saturating_add(period));
        }
        self.savings = self.savings_from(now);
        count(ebpf, metrics);
        if self.measuring.is_none() && now >= self.next {
            self.next = MonoNs(now.0.saturating_add(PERIOD_NS));
            match enable_stats(Stats::RunTime) {
                Ok(counting) => {
                    self.measuring = Some(Measuring {
                        began: now,
                        before: run_times(ebpf),
                        _counting: counting,
                    });
                }
                Err(error) if !self.refused => {
                    self.refused = true;
                    tracing::info!(
                        %error,
                        "What the sensors cost is not measured here, and so not limited: the \
                         kernel counts that from 5.8 on, for CAP_SYS_ADMIN"
                    );
                }
                Err(_) => {}
            }
        }
    }

    /// What the last tick found of sensors that tell less, once.
    pub fn take_savings(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.savings)
    }

    /// One for each sensor that tells less from now on.
    fn savings_from(&self, now: MonoNs) -> Vec<Event> {
        let thinned = SENSORS.iter().zip(&self.thinning);
        let thinned = thinned.filter(|(_, thinning)| thinning.level() > 0);
        let saving = |(entry, _): (&Entry, &Thinning)| {
            Some(Event::Saving(Saving {
                sensor: entry.sensor?.id(),
                start: now,
                end: MonoNs(now.0.saturating_add(AHEAD_NS)),
            }))
        };
        thinned.filter_map(saving).collect()
    }

    /// Sensors that run on demand and are thinned run a part of the time only: what costs is
    /// that they are on their hooks at all.
    fn rest(&mut self, now: MonoNs, ebpf: &mut Ebpf, on_demand: &mut OnDemand) {
        for (entry, thinning) in SENSORS.iter().zip(&self.thinning) {
            if let Some(sensor) = entry.sensor {
                let turn = (now.0 / MEASURE_NS) % (1 << thinning.level());
                on_demand.pause(ebpf, sensor.id(), turn != 0);
            }
        }
    }

    fn judge(
        &mut self,
        at: usize,
        cores: f64,
        on_demand: &OnDemand,
        status: &mut SensorStatus,
        metrics: &AgentMetrics,
    ) {
        let label = SensorLabel {
            sensor: status.name,
        };
        metrics.sensor_cost.get_or_create(&label).set(cores);
        let Some(sensor) = SENSORS.get(at).and_then(|entry| entry.sensor) else {
            return;
        };
        let Some(activation) = on_demand.activation(sensor.id()) else {
            return;
        };
        if activation == Activation::Always && sensor.activation() != Activation::Always {
            return; // somebody wants it whatever it costs
        }
        let was_thinned = self.thinning[at].level() > 0;
        if !self.thinning[at].measured(cores, self.budget_cores) {
            return;
        }
        let level = self.thinning[at].level();
        if let Err(error) = self.knobs.set(sensor.id(), level, 0) {
            tracing::warn!(sensor = status.name, %error, "Cannot thin");
            return;
        }
        let budget = self.budget_cores * 100.0;
        tracing::info!(
            sensor = status.name,
            cost = %format_args!("{:.1} % of a core", cores * 100.0),
            budget = %format_args!("{budget:.1} %"),
            doublings = level,
            "Sensor tells of intervals from longer (or, with less cost, again shorter) times on"
        );
        if level > 0 {
            status.state = SensorState::Reduced;
            status.reason = format!(
                "it cost {:.1} % of a core, its budget is {budget:.1} %",
                cores * 100.0
            );
            status.loses = match activation {
                Activation::Always => format!(
                    "single events shorter than {} times the usual length; what is counted stays \
                     exact",
                    1_u32 << level
                ),
                _ => format!(
                    "what happens while it rests: it runs 1 second in {}",
                    1_u32 << level
                ),
            };
            status.fix =
                "raise --sensor-budget; it returns by itself when there is less to tell".to_owned();
        } else if was_thinned {
            status.state = SensorState::On;
            status.reason.clear();
            status.loses.clear();
            status.fix.clear();
        }
    }
}

/// Time that the programs of each sensor have run, as far as the kernel counted.
fn run_times(ebpf: &Ebpf) -> Vec<Duration> {
    SENSORS
        .iter()
        .map(|entry| {
            let probes = entry.sensor.map_or(&[][..], |sensor| sensor.probes());
            let hooks = probes.iter().flat_map(|probe| probe.hooks);
            hooks.filter_map(|hook| run_time(ebpf, hook.program)).sum()
        })
        .collect()
}

/// None for a program that was not needed and so is not loaded.
fn run_time(ebpf: &Ebpf, program: &str) -> Option<Duration> {
    Some(ebpf.program(program)?.info().ok()?.run_time())
}

/// Brings the counters of single programs up to date.
fn count(ebpf: &Ebpf, metrics: &AgentMetrics) {
    let sensors = SENSORS.iter().filter_map(|entry| entry.sensor);
    let hooks = sensors
        .flat_map(|s| s.probes())
        .flat_map(|probe| probe.hooks);
    for hook in hooks {
        if let Some(ran) = run_time(ebpf, hook.program) {
            let program = Program {
                program: hook.program,
            };
            let counted = metrics.program_run_seconds.get_or_create(&program);
            let more = ran.as_secs_f64() - counted.get();
            counted.inc_by(more.max(0.0));
        }
    }
}

//! Running sensors and what they have said so far.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use isostack_agent::{
    event::{Delay, Event},
    load::{Sensors, Settings},
    metrics::{AgentMetrics, Sensor},
    sensor::{CgroupCpu, Counted, KernelHistogram, Measured, SensorState, Value},
};

/// Loads disturb each other: one test of a program at a time.
static TURN: Mutex<()> = Mutex::new(());

/// See the module.
pub struct Observed {
    pub sensors: Sensors,
    metrics: AgentMetrics,
    pub delays: Arc<Mutex<Vec<Delay>>>,
    sensor: &'static str,
    _turn: MutexGuard<'static, ()>,
}

impl Observed {
    /// Starts all sensors; this one must run.
    pub fn start(sensor: &'static str, settings: &Settings) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let delays = Arc::new(Mutex::new(Vec::new()));
        let (metrics, seen) = (AgentMetrics::default(), delays.clone());
        let sensors = Sensors::start(settings, metrics.clone(), move |batch| {
            seen.lock()
                .unwrap()
                .extend(batch.into_iter().filter_map(|event| match event {
                    Event::Delay(delay) => Some(delay),
                    _ => None,
                }));
        })
        .unwrap();
        let statuses = sensors.statuses();
        let status = statuses.iter().find(|s| s.name == sensor).unwrap();
        assert_ne!(status.state, SensorState::Off, "{status:?}");
        Self {
            sensors,
            metrics,
            delays,
            sensor,
            _turn: turn,
        }
    }

    /// Stops, so that everything has arrived, and returns what one cgroup suffered, one by
    /// one and counted.
    pub fn finish(self, cgroup_id: u64) -> Seen {
        let Counted { cpu, measured } = self.sensors.counted();
        // With what the kernel kept from a program.
        self.sensors.observe(&self.metrics);
        self.sensors.stop();
        let label = Sensor {
            sensor: self.sensor,
        };
        let lost = self.metrics.events_lost.get_or_create(&label).get();
        assert_eq!(lost, 0, "a test that lost events proves nothing");
        let delays = self.delays.lock().unwrap();
        Seen {
            delays: delays
                .iter()
                .filter(|delay| delay.cgroup_id == cgroup_id)
                .cloned()
                .collect(),
            cpu: cpu.into_iter().find(|c| c.cgroup_id == cgroup_id),
            measured: measured
                .into_iter()
                .filter(|m| m.key.cgroup_id == cgroup_id)
                .collect(),
        }
    }
}

/// What was said of one cgroup.
pub struct Seen {
    pub delays: Vec<Delay>,
    pub cpu: Option<CgroupCpu>,
    pub measured: Vec<Measured>,
}

impl Seen {
    /// Counters of a family with their labels.
    pub fn counts(&self, family: &str) -> Vec<(Vec<String>, u64)> {
        let of = |m: &Measured| match m.value {
            Value::Count(n) if m.family.name == family => Some((m.labels.clone(), n)),
            _ => None,
        };
        let mut counts: Vec<_> = self.measured.iter().filter_map(of).collect();
        counts.sort();
        counts
    }

    /// Histograms of a family with their labels.
    pub fn histograms(&self, family: &str) -> Vec<(Vec<String>, KernelHistogram)> {
        let of = |m: &Measured| match &m.value {
            Value::Histogram(h) if m.family.name == family => Some((m.labels.clone(), h.clone())),
            _ => None,
        };
        let mut all: Vec<_> = self.measured.iter().filter_map(of).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

//! Running sensors and what they have said so far.

#![allow(dead_code, reason = "each test file uses what it needs")]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use isostack_agent::{
    event::{Delay, Event},
    load::{Sensors, Settings},
    metrics::{AgentMetrics, Sensor},
    sensor::{Measured, Selection, SensorState, Value},
    vocabulary::Cause,
};

/// Loads disturb each other: one test at a time.
static TURN: Mutex<()> = Mutex::new(());

/// See the module.
pub struct Watch {
    pub sensors: Sensors,
    names: Vec<&'static str>,
    metrics: AgentMetrics,
    delays: Arc<Mutex<Vec<Delay>>>,
    _turn: MutexGuard<'static, ()>,
}

impl Watch {
    /// Starts these sensors, all of which must run, if not with every hook.
    pub fn start(names: &[&'static str]) -> Self {
        Self::start_in(turn(), names)
    }

    /// Likewise, for a test that had to do something before.
    pub fn start_in(turn: MutexGuard<'static, ()>, names: &[&'static str]) -> Self {
        Self::start_with(turn, names, Settings::default())
    }

    /// Likewise, by the hooks that older kernels have to do with.
    pub fn start_with_last_hooks(names: &[&'static str]) -> Self {
        let settings = Settings {
            last_hooks: true,
            ..Settings::default()
        };
        Self::start_with(turn(), names, settings)
    }

    fn start_with(
        turn: MutexGuard<'static, ()>,
        names: &[&'static str],
        settings: Settings,
    ) -> Self {
        let delays = Arc::new(Mutex::new(Vec::new()));
        let (metrics, seen) = (AgentMetrics::default(), delays.clone());
        let settings = Settings {
            selection: Selection::parse(&names.join(",")).unwrap(),
            ..settings
        };
        let sensors = Sensors::start(&settings, metrics.clone(), move |batch| {
            let delays = batch.into_iter().filter_map(|event| match event {
                Event::Delay(delay) => Some(delay),
                _ => None,
            });
            seen.lock().unwrap().extend(delays);
        })
        .unwrap();
        for status in sensors.statuses() {
            if names.contains(&status.name) {
                assert_ne!(status.state, SensorState::Off, "{status:?}");
            }
        }
        Self {
            sensors,
            names: names.to_vec(),
            metrics,
            delays,
            _turn: turn,
        }
    }

    /// Whether this kernel's sensors know nothing of `what`; then says so, for a test to end.
    pub fn lacks(&self, what: &str) -> bool {
        let statuses = self.sensors.statuses();
        let lacking = statuses.iter().find(|status| status.loses.contains(what));
        if let Some(status) = lacking {
            println!("cannot run here: {}", status.reason);
        }
        lacking.is_some()
    }

    /// What was counted until now.
    pub fn counted(&self) -> Counted {
        Counted(self.sensors.counted().measured)
    }

    /// What the sensors say that they lost until now.
    pub fn lost(&self) -> u64 {
        self.sensors.observe(&self.metrics);
        let of = |&sensor: &&'static str| {
            let lost = self.metrics.events_lost.get_or_create(&Sensor { sensor });
            lost.get()
        };
        self.names.iter().map(of).sum()
    }

    /// Stops, so that everything has arrived, and returns all intervals.
    pub fn finish(self) -> Vec<Delay> {
        self.sensors.stop();
        for sensor in self.names {
            let lost = &self.metrics.events_lost;
            let lost = lost.get_or_create(&Sensor { sensor }).get();
            assert_eq!(lost, 0, "a test that lost events proves nothing");
        }
        std::mem::take(&mut *self.delays.lock().unwrap())
    }
}

/// Waits until no other test runs.
pub fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counters and histograms.
pub struct Counted(pub Vec<Measured>);

impl Counted {
    /// Those of one metric that a test's network namespace has to do with.
    pub fn of<'a>(&'a self, name: &'a str, netns: u64) -> impl Iterator<Item = &'a Measured> {
        let all = self.0.iter();
        all.filter(move |one| one.family.name == name && one.key.b >> 32 == netns)
    }

    /// Sum of a counter, or of a histogram's counts, of one cgroup there.
    pub fn count(&self, name: &str, netns: u64, cgroup_id: u64) -> u64 {
        self.of(name, netns)
            .filter(|one| one.key.cgroup_id == cgroup_id)
            .map(|one| match &one.value {
                Value::Count(count) => *count,
                Value::Histogram(histogram) => histogram.count(),
            })
            .sum()
    }

    /// Sum and count of a histogram of one cgroup there.
    pub fn histogram(&self, name: &str, netns: u64, cgroup_id: u64) -> (u64, u64) {
        self.of(name, netns)
            .filter(|one| one.key.cgroup_id == cgroup_id)
            .fold((0, 0), |(sum_ns, count), one| match &one.value {
                Value::Histogram(h) => (sum_ns + h.sum_ns, count + h.count()),
                Value::Count(_) => panic!("{name} is a counter"),
            })
    }
}

/// Those of one cause and process.
pub fn of(delays: &[Delay], cause: Cause, pid: u32) -> Vec<&Delay> {
    let of_cause = delays.iter().filter(|delay| delay.cause == cause);
    of_cause.filter(|delay| delay.process.pid == pid).collect()
}

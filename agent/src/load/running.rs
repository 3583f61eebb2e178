//! Sensors that were attached: their maps, and the thread that reads what they tell.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use parking_lot::Mutex;

use super::{
    Settings, Sink, StartError,
    attach::{alone, off},
    cgroups::CgroupTables,
    contexts::ContextPlaces,
    late::Late,
    missed::Missed,
    object::Object,
    reader::Reader,
    self_test,
    series::SeriesTables,
    tracked::Tracked,
    unseen::Unseen,
    upkeep::Upkeep,
    watch::{Programs, Watch},
};
use crate::{
    event::{Change, Event},
    metrics::AgentMetrics,
    sensor::{Decoder, Poller, SENSORS, SensorState, SensorStatus, cpu},
};

/// See the module's head; dropping it detaches and unloads them all.
pub(super) struct Running {
    /// `None` once stopped.
    pub programs: Arc<Mutex<Option<Programs>>>,
    pub tracked: Arc<Tracked>,
    pub contexts: ContextPlaces,
    pub cgroups: CgroupTables,
    pub series: SeriesTables,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
    pub missed: Missed,
    /// None where the sensor does not run.
    pub unseen: Option<Unseen>,
}

impl Running {
    /// Reads the maps of what was attached, starts the reader, and has what it tells tested: an
    /// `off` in `statuses` says why not.
    pub fn new(
        mut object: Object,
        settings: &Settings,
        metrics: AgentMetrics,
        sink: impl Sink + 'static,
        statuses: &mut [SensorStatus],
    ) -> Result<Self, StartError> {
        let stop = Arc::new(AtomicBool::new(false));
        let tracked = Arc::new(object.tracked()?);
        let contexts = object.contexts()?;
        let cgroups = object.cgroups()?;
        let series = object.series()?;
        let late = Late::new(settings.roots.clone(), statuses, |name| {
            settings.selection.wants(name)
        });
        let upkeep = Upkeep::new(settings.sensor_budget_cores, object.thinning()?);
        let (expected, observer) = self_test::prepare(&settings.roots);
        let running_sensors: Vec<&str> = statuses
            .iter()
            .filter(|status| status.state != SensorState::Off)
            .map(|status| status.name)
            .collect();
        let decoder = Decoder::new(&object.kernel());
        let programs = Arc::new(Mutex::new(None));
        let watch = Watch::new(object.wanted()?, programs.clone());
        let pollers = SENSORS
            .iter()
            .filter(|entry| running_sensors.contains(&entry.name))
            .filter_map(|entry| entry.sensor?.poller(&settings.roots))
            .chain([Box::new(watch) as Box<dyn Poller>])
            .collect();
        let unseen = running_sensors
            .contains(&"block")
            .then(|| Unseen::new(&settings.roots));
        if let Some(unseen) = &unseen {
            unseen.count(|| series.completions(), &metrics);
        }
        let mut reader = Reader::new(&mut object.ebpf, decoder, pollers, metrics, stop.clone())?;
        let mut sink = Observed {
            observer,
            next: sink,
        };
        let thread = std::thread::Builder::new()
            .name("sensors".to_owned())
            .spawn(move || reader.run(&mut sink))?;
        *programs.lock() = Some(Programs {
            ebpf: object.ebpf,
            on_demand: object.on_demand,
            upkeep,
            late,
        });
        let running = Self {
            programs,
            tracked,
            contexts,
            cgroups,
            series,
            stop,
            reader: Some(thread),
            missed: Missed::new(&settings.roots),
            unseen,
        };
        // It looks at what the switch hook tells; the others lean on the same offsets.
        if running_sensors.contains(&cpu::NAME)
            && let Err(why) = expected.run(&running.tracked)
        {
            *running.programs.lock() = None;
            for (status, entry) in statuses.iter_mut().zip(SENSORS) {
                if status.state != SensorState::Off && alone(entry).is_none() {
                    *status = off(entry, why.clone());
                }
            }
        }
        Ok(running)
    }
}

/// The self-test sees the events first.
struct Observed<S> {
    observer: self_test::Observer,
    next: S,
}

impl<S: Sink> Sink for Observed<S> {
    fn events(&mut self, batch: Vec<Event>) {
        self.observer.see(&batch);
        self.next.events(batch);
    }

    fn change(&mut self, change: Change) {
        self.next.change(change);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Not under the lock: the reader takes it too.
        let programs = self.programs.lock().take();
        if let Some(mut programs) = programs {
            programs.on_demand.end(&mut programs.ebpf);
            drop(programs); // detaches: nothing is written any more
        }
        self.stop.store(true, Ordering::Release);
        if let Some(reader) = self.reader.take() {
            // A panic of the sink has already been reported by the panic hook.
            drop(reader.join());
        }
    }
}

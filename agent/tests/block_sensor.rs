//! The `block` sensor in the running kernel against the books of others: fio's counts and
//! percentiles, and the kernel's own counts per disk. Needs root, fio and a loop device.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "quotas are for other test programs")]
#[path = "support/cgroup.rs"]
mod cgroup;
#[path = "block_sensor/fio.rs"]
mod fio;
#[path = "block_sensor/place.rs"]
mod place;
#[path = "block_sensor/sleeper.rs"]
mod sleeper;

use std::{
    fs,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use fio::{Fio, Job};
use isostack_agent::{
    event::{Delay, Event, Particulars},
    load::{Sensors, Settings},
    metrics::{AgentMetrics, Sensor},
    sensor::{KernelHistogram, Measured, Selection, SensorState, Value},
    vocabulary::Cause,
};
use place::{IoGroup, LoopDisk};
use sleeper::Sleeper;

/// Loads disturb each other: one test at a time.
static TURN: Mutex<()> = Mutex::new(());

/// A running sensor and what it has said so far.
struct Observed {
    sensors: Sensors,
    metrics: AgentMetrics,
    delays: Arc<Mutex<Vec<Delay>>>,
    _turn: MutexGuard<'static, ()>,
}

impl Observed {
    fn start() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let delays = Arc::new(Mutex::new(Vec::new()));
        let (metrics, seen) = (AgentMetrics::default(), delays.clone());
        let settings = Settings {
            selection: Selection::parse("block").unwrap(),
            ..Settings::default()
        };
        let sensors = Sensors::start(&settings, metrics.clone(), move |batch| {
            seen.lock()
                .unwrap()
                .extend(batch.into_iter().filter_map(|event| match event {
                    Event::Delay(delay) => Some(delay),
                    _ => None,
                }));
        })
        .unwrap();
        let statuses = sensors.statuses();
        let block = statuses.iter().find(|s| s.name == "block").unwrap();
        assert_ne!(block.state, SensorState::Off, "{block:?}");
        Self {
            sensors,
            metrics,
            delays,
            _turn: turn,
        }
    }

    /// Runs fio in `group` on `disk`, tracked.
    fn run(&self, group: &IoGroup, disk: &LoopDisk, job: &Job) -> Fio {
        // What the kernel's books of a new disk have and the sensor has not is lost from now on.
        self.sensors.observe(&self.metrics);
        let waiting = fio::Waiting::new(group, &disk.path, job);
        assert!(self.sensors.track(waiting.pid()));
        waiting.finish()
    }

    /// Stops, so that everything has arrived, and returns all that was told and counted.
    fn finish(self) -> Results {
        let measured = self.sensors.counted().measured;
        self.sensors.observe(&self.metrics);
        self.sensors.stop();
        let label = Sensor { sensor: "block" };
        let lost = self.metrics.events_lost.get_or_create(&label).get();
        let delays = self.delays.lock().unwrap().clone();
        Results {
            delays,
            measured,
            lost,
        }
    }
}

struct Results {
    delays: Vec<Delay>,
    measured: Vec<Measured>,
    /// What the agent itself says that it missed, on all disks.
    lost: u64,
}

impl Results {
    /// Exact, but for what the agent says that it lost.
    #[track_caller]
    fn assert_count(&self, counted: u64, truth: u64) {
        let missing = truth.checked_sub(counted);
        assert!(
            missing.is_some_and(|missing| missing <= self.lost),
            "{counted} counted of {truth}, {} lost",
            self.lost
        );
    }

    /// The histogram of one disk, operation and phase; of one group, or of all.
    fn histogram(&self, group: Option<&IoGroup>, labels: [&str; 3]) -> KernelHistogram {
        let mut sum = KernelHistogram::default();
        for series in &self.measured {
            let wanted = series.family.name == "isostack_block_seconds"
                && group.is_none_or(|group| series.key.cgroup_id == group.cpu.id())
                && series.labels == labels;
            if let (true, Value::Histogram(histogram)) = (wanted, &series.value) {
                sum.sum_ns += histogram.sum_ns;
                sum.slots.resize(histogram.slots.len(), 0);
                for (sum, slot) in sum.slots.iter_mut().zip(&histogram.slots) {
                    *sum += slot;
                }
            }
        }
        sum
    }

    /// Lengths of what was told of one process, shortest first.
    fn told(&self, pid: u32, cause: Cause) -> Vec<u64> {
        let of_process = |d: &&Delay| d.process.pid == pid && d.cause == cause;
        let lengths = self.delays.iter().filter(of_process);
        let mut lengths: Vec<u64> = lengths.map(|d| d.end.0 - d.start.0).collect();
        lengths.sort_unstable();
        lengths
    }
}

#[track_caller]
fn assert_ratio(what: &str, measured_ns: u64, truth_ns: u64, from: f64, to: f64) {
    let ratio = measured_ns as f64 / truth_ns as f64;
    assert!(
        (from..=to).contains(&ratio),
        "{what}: {measured_ns} ns against {truth_ns} ns, ratio {ratio:.4} not in {from}..{to}"
    );
}

fn median(sorted: &[u64]) -> u64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}

/// Every request counts once, for its own cgroup.
#[test]
fn direct_reads_are_counted_as_fio_does() {
    let observed = Observed::start();
    let (disk, group) = (LoopDisk::new(), IoGroup::new());
    let fio = observed.run(&group, &disk, &Job::reads("256k", 200).direct());
    let results = observed.finish();

    let device = results.histogram(Some(&group), [&disk.name, "read", "device"]);
    results.assert_count(device.count(), fio.ios);
    let queue = results.histogram(Some(&group), [&disk.name, "read", "queue"]);
    // The first of a disk may tell that the kernel does not note when the disk gets it.
    assert!(device.count() - queue.count() <= 1, "{}", queue.count());
    let throttle = results.histogram(None, [&disk.name, "read", "throttle"]);
    assert_eq!(throttle.count(), 0, "no limit, no throttle");
}

/// The disk is slow because the one below it is held back, so that what a thread takes to
/// wake up is little beside it.
#[test]
fn a_slow_disk_takes_as_long_as_fio_says() {
    let observed = Observed::start();
    let (disk, group) = (LoopDisk::new(), IoGroup::new());
    group.limit(&disk.below(), 10).unwrap();
    let fio = observed.run(&group, &disk, &Job::reads("4k", 30).direct());
    let results = observed.finish();

    let told: Vec<&Delay> = results
        .delays
        .iter()
        .filter(|d| d.process.pid == fio.pid && d.cause == Cause::BlockDevice)
        // fio's own pages come from the disk below.
        .filter(|d| matches!(&d.particulars, Particulars::Disk(d) if d.name == disk.name))
        .collect();
    assert!(told.len() as u64 >= fio.ios * 7 / 10, "{} told", told.len());
    let median_ns = median(&results.told(fio.pid, Cause::BlockDevice));
    assert_ratio("p50", median_ns, fio.p50_ns, 0.9, 1.1);
    for delay in told {
        let Particulars::Disk(disk_told) = &delay.particulars else {
            panic!("no disk: {delay:?}");
        };
        assert_eq!(
            (&disk_told.name, disk_told.paravirtual),
            (&disk.name, false)
        );
        assert_eq!(delay.cgroup_id, group.cpu.id(), "the CPU controller's");
    }
    let device = results.histogram(Some(&group), [&disk.name, "read", "device"]);
    results.assert_count(device.count(), fio.ios);
}

#[test]
fn buffered_reads_are_counted_for_the_group_that_missed_the_cache() {
    let observed = Observed::start();
    let (disk, group) = (LoopDisk::new(), IoGroup::new());
    let before = disk.counts();
    let fio = observed.run(&group, &disk, &Job::reads("4k", 500));
    let after = disk.counts();
    let results = observed.finish();

    let own = results.histogram(Some(&group), [&disk.name, "read", "device"]);
    results.assert_count(own.count(), fio.ios);
    let all = results.histogram(None, [&disk.name, "read", "device"]);
    results.assert_count(all.count(), after.reads - before.reads);
}

#[test]
fn synced_writes_are_counted_as_the_disk_counts_them() {
    let observed = Observed::start();
    let (disk, group) = (LoopDisk::new(), IoGroup::new());
    let before = disk.counts();
    observed.run(&group, &disk, &Job::synced_writes("16k", 300));
    let after = disk.counts();
    let results = observed.finish();

    let writes = results.histogram(None, [&disk.name, "write", "device"]);
    let flushes = results.histogram(None, [&disk.name, "flush", "device"]);
    // The kernel counts a flush that somebody asked for among the writes.
    let counted = writes.count() + flushes.count();
    results.assert_count(counted, after.writes - before.writes);
    assert!(flushes.count() > 0);
    let own = results.histogram(Some(&group), [&disk.name, "write", "device"]);
    assert!(own.count() > 0, "its own fsync is its own");
}

/// I/O is held back before the block layer's first tracepoint; what is seen is its end.
fn throttled(job: &Job) {
    const IOPS: u64 = 10;
    let observed = Observed::start();
    let (disk, group) = (LoopDisk::new(), IoGroup::new());
    let Err(why) = group.limit(&disk.number(), IOPS) else {
        let fio = observed.run(&group, &disk, job);
        let results = observed.finish();
        let told = results.told(fio.pid, Cause::BlockThrottle);
        // Those before the kernel side asked for its hook are not seen.
        assert!(
            told.len() as u64 * 10 >= fio.ios * 7,
            "{} of {}",
            told.len(),
            fio.ios
        );
        assert_ratio("p50 held back", median(&told), fio.p50_ns, 0.9, 1.1);
        let counted = results.histogram(Some(&group), [&disk.name, job.op(), "throttle"]);
        assert_eq!(counted.count(), told.len() as u64);
        assert_eq!(
            counted.sum_ns,
            told.iter().sum::<u64>(),
            "every one is told"
        );
        return;
    };
    panic!("{why}");
}

#[test]
fn a_limit_on_direct_reads_is_measured_as_fio_feels_it() {
    throttled(&Job::reads("4k", 40).direct());
}

#[test]
fn a_limit_on_buffered_reads_is_measured_as_fio_feels_it() {
    throttled(&Job::reads("4k", 40));
}

#[test]
fn a_neighbours_limit_does_not_rub_off() {
    let observed = Observed::start();
    let (disk, free, limited) = (LoopDisk::new(), IoGroup::new(), IoGroup::new());
    limited.limit(&disk.number(), 10).unwrap();
    let held = fio::Waiting::new(&limited, &disk.path, &Job::reads("4k", 40).direct());
    let held = held.spawn();
    observed.run(&free, &disk, &Job::reads("4k", 2_000).direct());
    held.finish();
    let results = observed.finish();

    let labels = [&*disk.name, "read", "throttle"];
    assert!(results.histogram(Some(&limited), labels).count() > 0);
    assert_eq!(results.histogram(Some(&free), labels).count(), 0);
}

/// How long anything may take that must come.
const PATIENCE: Duration = Duration::from_secs(120);

#[track_caller]
fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < PATIENCE, "never {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Programs that this process has attached.
fn attached() -> usize {
    let entries = fs::read_dir("/proc/self/fdinfo").unwrap();
    let infos = entries.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    infos.filter(|info| info.contains("link_type:")).count()
}

/// The hook that sees since when a thread has been blocked is there while limits are at work
/// only: what it saw of a thread before it was taken off says nothing when it is back.
#[test]
fn a_thread_that_was_blocked_for_something_else_long_ago_was_not_held_back() {
    let observed = Observed::start();
    let (disk, group) = (LoopDisk::new(), IoGroup::new());
    group.limit(&disk.number(), 10).unwrap();
    let without = attached();
    let mut sleeper = Sleeper::new(&group);
    let limited = || {
        let reads = Job::reads("4k", 40).direct();
        let limited = fio::Waiting::new(&group, &disk.path, &reads).spawn();
        eventually("attached", || attached() > without);
        limited
    };
    let first = limited();
    sleeper.block();
    first.finish();
    eventually("taken off", || attached() == without);
    sleeper.release();
    let second = limited();
    let pid = sleeper.pid();
    let is_told = || {
        let delays = observed.delays.lock().unwrap();
        let of_second = |d: &Delay| d.process.pid == second.pid();
        delays.iter().filter(|d| of_second(d)).count() > 2
    };
    eventually("told", is_told);
    sleeper.finish();
    second.finish();
    let results = observed.finish();
    assert_eq!(results.told(pid, Cause::BlockThrottle), Vec::<u64>::new());
}

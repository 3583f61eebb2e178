//! The `process` sensor in the running kernel: an identity is read at first sight and again
//! when the kernel tells of a change, and not in between. Needs root.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "quotas are for other test programs")]
#[path = "support/cgroup.rs"]
mod cgroup;

use std::{
    io::Write as _,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use cgroup::Group;
use isostack_agent::{
    event::{Change, Event},
    host::{identify::Identifier, roots::Roots},
    load::{Sensors, Settings, Sink},
    metrics::AgentMetrics,
    process::SharedIdentity,
    sensor::{Selection, SensorState},
};

/// Passes changes on; there are no events.
struct ToIdentifier(Arc<Identifier>);

impl Sink for ToIdentifier {
    fn events(&mut self, _: Vec<Event>) {}

    fn change(&mut self, change: Change) {
        self.0.on_change(change);
    }
}

struct Told {
    identifier: Arc<Identifier>,
    metrics: AgentMetrics,
    _sensors: Sensors,
}

impl Told {
    fn start() -> Self {
        let metrics = AgentMetrics::default();
        let identifier = Arc::new(Identifier::new(Roots::default(), metrics.clone()));
        let settings = Settings {
            selection: Selection::parse("process").unwrap(),
            ..Settings::default()
        };
        let sink = ToIdentifier(identifier.clone());
        let sensors = Sensors::start_telling(&settings, metrics.clone(), sink).unwrap();
        let status = sensors.statuses().into_iter().find(|s| s.name == "process");
        assert_eq!(status.unwrap().state, SensorState::On);
        identifier.changes_are_told(true);
        Self {
            identifier,
            metrics,
            _sensors: sensors,
        }
    }

    fn identity(&self, child: &Child) -> SharedIdentity {
        self.identifier.identify(child.id()).unwrap()
    }

    /// Asks for the process until this is true of it.
    fn until(&self, child: &Child, is: impl Fn(&SharedIdentity) -> bool) -> SharedIdentity {
        let begin = Instant::now();
        loop {
            let identity = self.identity(child);
            if is(&identity) {
                return identity;
            }
            assert!(begin.elapsed() < Duration::from_secs(8), "{identity:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A shell that waits for a line, then runs what the line says.
struct Shell(Child);

impl Shell {
    fn start() -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", "read line; eval \"$line\""]);
        shell.stdin(Stdio::piped());
        Self(shell.spawn().unwrap())
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.0.stdin.take().unwrap(), "{line}").unwrap();
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn another_program_is_seen_at_once_and_the_same_one_is_hardly_looked_at_again() {
    let told = Told::start();
    let mut shell = Shell::start();
    // The child's own exec may come after the first look.
    let first = told.until(&shell.0, |identity| identity.comm == "sh");
    thread::sleep(Duration::from_millis(300));
    told.identity(&shell.0);
    let reads = told.metrics.identity_reads.get();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(3) {
        assert_eq!(told.identity(&shell.0).stack, first.stack);
    }
    // After one second, two, four, ...
    let more = told.metrics.identity_reads.get() - reads;
    assert!(more <= 4, "{more}");
    shell.tell("exec sleep 60");
    let then = told.until(&shell.0, |identity| identity.comm == "sleep");
    assert_eq!(then.process, first.process, "the same process");
}

#[test]
fn a_move_is_seen_and_what_was_removed_is_forgotten_later() {
    let told = Told::start();
    let groups = [Group::new(), Group::new()];
    let shell = Shell::start();
    for group in &groups {
        group.enter(shell.0.id());
        let moved = told.until(&shell.0, |identity| identity.cgroup_id == group.id());
        assert!(
            group
                .path
                .ends_with(moved.cgroup_path.trim_start_matches('/'))
        );
        let inhabitant = told.identifier.workload_of_cgroup(group.id());
        assert_eq!(inhabitant.unit, moved.workload.unit);
    }
    let [first, second] = groups;
    let ids = [first.id(), second.id()];
    let process = told.identity(&shell.0).process;
    drop(shell);
    drop((first, second));
    let known = |id| told.identifier.workload_of_cgroup(id).unit;
    assert_ne!(known(ids[1]), "", "events of it may still come");
    assert!(told.identifier.identify_key(process).is_some());

    // The kernel's word of the removal may be under way.
    let begin = Instant::now();
    while told.identifier.cgroups().knows(ids[0]) || told.identifier.cgroups().knows(ids[1]) {
        assert!(begin.elapsed() < Duration::from_secs(8));
        thread::sleep(Duration::from_millis(50));
        let later = Instant::now() + Duration::from_secs(200);
        told.identifier.forget_removed(later);
    }
    assert_eq!((known(ids[0]), known(ids[1])), Default::default());
    assert_eq!(
        told.identifier.identify_key(process),
        None,
        "freed with its group"
    );
}

/// A storm of short lives in one group: each one's exec is told, and none is looked at unless
/// somebody asks.
#[test]
fn what_nobody_asks_for_is_not_read() {
    let told = Told::start();
    let reads = told.metrics.identity_reads.get();
    let mut storm = Command::new("sh");
    storm.args([
        "-c",
        "n=0; while [ $n -lt 300 ]; do /bin/true; n=$((n+1)); done",
    ]);
    assert!(storm.status().unwrap().success());
    thread::sleep(Duration::from_millis(200));
    assert_eq!(told.metrics.identity_reads.get(), reads);
    assert_eq!(told.metrics.identities.get(), 0);
}

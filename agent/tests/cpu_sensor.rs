//! The `cpu` sensor in the running kernel against the kernel's own books: `cpu.stat` of real
//! cgroups and `/proc/PID/schedstat` of real processes. Needs root.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/cgroup.rs"]
mod cgroup;
#[path = "cpu_sensor/confined.rs"]
mod confined;
#[allow(dead_code, reason = "counters are for other test programs")]
#[path = "support/observed.rs"]
mod observed;

use std::{
    fs,
    io::{Read as _, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use cgroup::Group;
use isostack_agent::{
    event::{Delay, Particulars},
    host::btf::KernelTypes,
    load::{Sensors, Settings},
    metrics::AgentMetrics,
    sensor::{CgroupCpu, SensorState},
    vocabulary::Cause,
};
use observed::Observed;
use rustix::{
    process::{Pid, WaitId, WaitIdOptions, waitid},
    thread::{CpuSet, sched_setaffinity},
};

/// Starts all sensors; the one under test is on by its first hook.
fn start() -> Observed {
    let observed = Observed::start("cpu", &Settings::default());
    let cpu = &observed.sensors.statuses()[0];
    assert_eq!(cpu.state, SensorState::On, "{cpu:?}");
    observed
}

/// Stops, and returns all intervals and the histograms of one cgroup.
fn finish(observed: Observed, group: &Group) -> (Vec<Delay>, CgroupCpu) {
    let seen = observed.finish(group.id());
    (
        seen.delays,
        seen.cpu.expect("the group ran, so it was counted"),
    )
}

/// A process that is busy for some seconds; killed if the test fails before it has ended.
struct Busy {
    child: Child,
    /// Before it entered its group.
    before: Schedstat,
}

/// What `/proc/PID/schedstat` says.
#[derive(Clone, Copy)]
struct Schedstat {
    ran_ns: u64,
    waited_ns: u64,
}

impl Busy {
    /// Spins on `cpu` in `group` for `seconds`.
    fn start(group: &Group, cpu: usize, seconds: u64) -> Self {
        let mut busy = Self::prepare(group, cpu);
        busy.go(after(seconds));
        busy
    }

    /// Waits in `group` to spin on `cpu`. The group runs nothing else, not even for a moment.
    /// The CPU is chosen inside it: to enter a group that has the cpuset controller undoes
    /// the choice on kernels before 6.2.
    fn prepare(group: &Group, cpu: usize) -> Self {
        let script = "echo; read -r end; while ((${EPOCHREALTIME/./} < end)); do :; done";
        let mut child = Command::new("bash")
            .args(["-c", script])
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0];
        let stdout = child.stdout.as_mut().unwrap();
        stdout.read_exact(&mut ready).unwrap();
        let before = schedstat(child.id());
        group.enter(child.id());
        let mut only = CpuSet::new();
        only.set(cpu);
        sched_setaffinity(pid(&child), &only).unwrap();
        Self { child, before }
    }

    /// Lets it spin until then.
    fn go(&mut self, end: Duration) {
        let mut stdin = self.child.stdin.take().unwrap();
        writeln!(stdin, "{}", end.as_micros()).unwrap();
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Time it has run so far.
    fn ran_ns(&self) -> u64 {
        schedstat(self.pid()).ran_ns
    }

    /// Waits for its end and says how much it ran and waited inside the group, its last
    /// moments included: they are on the books of the kernel until it is reaped.
    fn wait(mut self) -> Schedstat {
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(pid(&self.child).unwrap()), ended).unwrap();
        let after = schedstat(self.child.id());
        assert!(self.child.wait().unwrap().success());
        Schedstat {
            ran_ns: after.ran_ns - self.before.ran_ns,
            waited_ns: after.waited_ns - self.before.waited_ns,
        }
    }
}

/// So many seconds from now, since the epoch.
fn after(seconds: u64) -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(seconds)
}

fn pid(child: &Child) -> Option<Pid> {
    Pid::from_raw(child.id().cast_signed())
}

fn schedstat(pid: u32) -> Schedstat {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    let mut words = text.split_whitespace().map(|word| word.parse().unwrap());
    Schedstat {
        ran_ns: words.next().unwrap(),
        waited_ns: words.next().unwrap(),
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn total_ns(delays: &[Delay], cause: Cause) -> u64 {
    let of_cause = delays.iter().filter(|delay| delay.cause == cause);
    of_cause.map(|delay| delay.end.0 - delay.start.0).sum()
}

fn last_cpu() -> usize {
    std::thread::available_parallelism().unwrap().get() - 1
}

#[track_caller]
fn assert_ratio(what: &str, measured_ns: u64, truth_ns: u64, from: f64, to: f64) {
    let ratio = measured_ns as f64 / truth_ns as f64;
    println!("{what}: ratio {ratio:.4}");
    assert!(
        (from..=to).contains(&ratio),
        "{what}: {measured_ns} ns against {truth_ns} ns, ratio {ratio:.4} not in {from}..{to}"
    );
}

#[test]
fn throttled_intervals_add_up_to_cpu_stat() {
    let observed = start();
    let group = Group::new();
    group.limit(30_000);
    group.favour();
    Busy::start(&group, last_cpu(), 4).wait();
    let truth_ns = group.throttled_ns();
    let (delays, counted) = finish(observed, &group);

    let throttled_ns = total_ns(&delays, Cause::CpuThrottle);
    assert_ratio("one thread", throttled_ns, truth_ns, 0.97, 1.03);
    assert_eq!(
        counted.throttled.sum_ns, throttled_ns,
        "every interval is told"
    );
    for delay in delays.iter().filter(|d| d.cause == Cause::CpuThrottle) {
        assert_eq!(
            delay.particulars,
            Particulars::QuotaOf(group.id()),
            "{delay:?}"
        );
    }
}

#[test]
fn a_quota_on_the_parent_is_named_as_the_limiter() {
    let observed = start();
    let parent = Group::new();
    parent.limit(40_000);
    parent.favour();
    let group = parent.child();
    Busy::start(&group, last_cpu(), 4).wait();
    let truth_ns = parent.throttled_ns();
    let (delays, counted) = finish(observed, &group);

    let throttled_ns = total_ns(&delays, Cause::CpuThrottle);
    assert_ratio("below the quota", throttled_ns, truth_ns, 0.97, 1.03);
    assert_eq!(counted.throttled.sum_ns, throttled_ns);
    for delay in delays.iter().filter(|d| d.cause == Cause::CpuThrottle) {
        assert_eq!(
            delay.particulars,
            Particulars::QuotaOf(parent.id()),
            "{delay:?}"
        );
    }
}

#[test]
fn of_two_nested_quotas_the_one_that_holds_is_named() {
    for (outer_us, inner_us) in [(70_000, 30_000), (30_000, 70_000)] {
        let observed = start();
        let parent = Group::new();
        let group = parent.child();
        if inner_us > outer_us && !group.may_exceed_its_parent() {
            println!("cannot run here: version 1 refuses the inner quota to be the larger one");
            return;
        }
        parent.limit(outer_us);
        parent.favour();
        group.limit(inner_us);
        Busy::start(&group, last_cpu(), 4).wait();
        let (limiter, other) = if inner_us < outer_us {
            (&group, &parent)
        } else {
            (&parent, &group)
        };
        let (limiter_id, truth_ns) = (limiter.id(), limiter.throttled_ns());
        // Used up only where this machine itself stood still for a while, as guests do.
        let (other_id, other_ns) = (other.id(), other.throttled_ns());
        let other_periods = other.periods_throttled();
        let either_ns = truth_ns + other_ns;
        let (delays, counted) = finish(observed, &group);

        let throttled_ns = total_ns(&delays, Cause::CpuThrottle);
        let what = format!("{inner_us} us within {outer_us} us");
        let least = 0.97 * truth_ns as f64 / either_ns as f64;
        assert_ratio(&what, throttled_ns, either_ns, least, 1.03);
        assert_eq!(counted.throttled.sum_ns, throttled_ns);
        let named = |id| -> Vec<Delay> {
            let of = Particulars::QuotaOf(id);
            let named = delays.iter().filter(|delay| delay.particulars == of);
            named.cloned().collect()
        };
        // The other one only where it was used up, too.
        let of_other = named(other_id);
        assert!(of_other.len() as u64 <= other_periods, "{of_other:?}");
        let of_limiter_ns = total_ns(&named(limiter_id), Cause::CpuThrottle);
        let named_ns = of_limiter_ns + total_ns(&of_other, Cause::CpuThrottle);
        assert_ratio(&what, named_ns, throttled_ns, 0.97, 1.0);
    }
}

/// Quota that was saved is no throttle; what `cpu.stat` still counts is.
#[test]
fn with_a_burst_the_throttle_is_what_is_left_of_it() {
    let observed = start();
    let group = Group::new();
    group.limit(40_000);
    group.favour();
    if !group.burst(40_000) {
        println!("cannot run here: this kernel lets no group save its quota");
        return;
    }
    Busy::start(&group, last_cpu(), 4).wait();
    let truth_ns = group.throttled_ns();
    let (delays, _) = finish(observed, &group);

    let throttled_ns = total_ns(&delays, Cause::CpuThrottle);
    assert_ratio("with a burst", throttled_ns, truth_ns, 0.97, 1.03);
}

/// `cpu.stat` counts a throttle once per CPU, the sensor once per thread held back: with two
/// threads on each CPU that is twice as much. From 6.18 on it is less by what the second
/// thread of a CPU still ran before it noticed. Whatever was not throttle is run queue, to
/// the last per cent.
#[test]
fn every_thread_held_back_counts() {
    const PER_CPU: usize = 2;
    let observed = start();
    let group = Group::new();
    group.limit(50_000);
    group.favour();
    let mut cpus = vec![0, last_cpu()];
    cpus.dedup();
    let mut busy: Vec<Busy> = (0..PER_CPU * cpus.len())
        .map(|i| Busy::prepare(&group, cpus[i % cpus.len()]))
        .collect();
    // All begin and end together: who is alone on its CPU is not held back twice.
    let end = after(4);
    busy.iter_mut().for_each(|busy| busy.go(end));
    let waited_ns: u64 = busy.into_iter().map(|b| b.wait().waited_ns).sum();
    let truth_ns = group.throttled_ns() * PER_CPU as u64;
    let (delays, counted) = finish(observed, &group);

    let throttled_ns = total_ns(&delays, Cause::CpuThrottle);
    let types = KernelTypes::read(Path::new("/sys")).unwrap().fields();
    let least = if types.has("TASK_THROTTLED") {
        0.75
    } else {
        0.95
    };
    assert_ratio("two threads a CPU", throttled_ns, truth_ns, least, 1.03);
    let all_ns = counted.throttled.sum_ns + counted.runqueue.sum_ns;
    assert_ratio("all waits", all_ns, waited_ns, 0.97, 1.03);
}

#[test]
fn run_queue_delay_is_what_schedstat_says_less_the_throttle() {
    let observed = start();
    let (group, neighbour) = (Group::new(), Group::new());
    group.limit(40_000);
    let cpu = last_cpu();
    let load = Busy::start(&neighbour, cpu, 5);
    let waited_ns = Busy::start(&group, cpu, 4).wait().waited_ns;
    drop(load);
    let never_throttled = group.periods_throttled() == 0;
    let (_, counted) = finish(observed, &group);

    if never_throttled {
        println!("cannot run here: others left the group less of the CPU than its quota");
        return;
    }
    assert!(counted.throttled.sum_ns > 0 && counted.throttled.sum_ns < waited_ns);
    let truth_ns = waited_ns - counted.throttled.sum_ns;
    assert_ratio("run queue", counted.runqueue.sum_ns, truth_ns, 0.97, 1.03);
}

#[test]
fn without_a_quota_nothing_is_called_throttle() {
    let observed = start();
    let (group, neighbour) = (Group::new(), Group::new());
    // The neighbour's own throttling must not rub off.
    neighbour.limit(60_000);
    let cpu = last_cpu();
    let load = Busy::start(&neighbour, cpu, 5);
    let before_ns = load.ran_ns();
    let waited_ns = Busy::start(&group, cpu, 4).wait().waited_ns;
    let neighbour_ran_ns = load.ran_ns() - before_ns;
    drop(load);
    let neighbour_id = neighbour.id();
    let (delays, counted) = finish(observed, &group);

    assert_eq!(counted.throttled.count(), 0);
    assert_eq!(total_ns(&delays, Cause::CpuThrottle), 0);
    assert_ratio("run queue", counted.runqueue.sum_ns, waited_ns, 0.97, 1.03);
    // Under a neighbour's load most waits are whole time slices, long enough to be told.
    let told_ns = total_ns(&delays, Cause::Runqueue);
    assert_ratio("told", told_ns, waited_ns, 0.5, 1.03);
    // The neighbour is named for the part of the time that it had; others may run here too.
    let to_neighbour = |delay: &&Delay| delay.particulars == Particulars::CpuWentTo(neighbour_id);
    let of_neighbour: Vec<Delay> = delays.iter().filter(to_neighbour).cloned().collect();
    let of_neighbour_ns = total_ns(&of_neighbour, Cause::Runqueue);
    let named = of_neighbour_ns as f64 / told_ns as f64;
    // It also ran while the other was on its way to its first wait.
    let had = (neighbour_ran_ns as f64 / waited_ns as f64).min(1.0);
    assert!((named - had).abs() < 0.25, "named {named:.2}, had {had:.2}");
}

#[test]
fn of_a_tracked_process_the_running_time_is_told_too() {
    let observed = start();
    let (tracked, other) = (Group::new(), Group::new());
    let busy = Busy::start(&tracked, last_cpu(), 2);
    let pid = busy.pid();
    assert!(observed.sensors.track(pid));
    Busy::start(&other, 0, 2).wait();
    let truth = busy.wait();
    assert!(observed.sensors.untrack(pid));
    let all = observed.delays.clone();
    let (delays, _) = finish(observed, &tracked);

    assert!(delays.iter().all(|delay| delay.process.pid == pid));
    let ran_ns = total_ns(&delays, Cause::OnCpu);
    assert_ratio("on CPU", ran_ns, truth.ran_ns, 0.9, 1.03);
    let id = other.id();
    let untracked = all.lock().unwrap();
    let mut of_other = untracked.iter().filter(|delay| delay.cgroup_id == id);
    assert!(of_other.all(|delay| delay.cause != Cause::OnCpu));
}

/// With its log statements enabled the program is another one to the verifier.
#[test]
fn debug_messages_of_the_kernel_side_can_be_turned_on() {
    let settings = Settings {
        kernel_debug: true,
        ..Settings::default()
    };
    let sensors = Sensors::start(&settings, AgentMetrics::default(), drop).unwrap();
    let cpu = &sensors.statuses()[0];
    assert_eq!(cpu.state, SensorState::On, "{cpu:?}");
}

//! The wall clock is set, as by hand or after a sleep: spans from before and after it still meet
//! their kernel events, those across it meet none, and no span meets another one's.

use std::{fs, path::Path, process::Command, thread, time::Duration};

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use super::{
    agent::{Agent, Request, Service},
    is_own,
};

/// The agent compares the clocks every second.
const NOTICED: Duration = Duration::from_secs(3);
const HOUR_S: i64 = 3_600;

/// Sets the wall clock by so many seconds.
fn step(seconds: i64) {
    let now = clock_gettime(ClockId::Realtime);
    let then = Timespec {
        tv_sec: now.tv_sec + seconds,
        ..now
    };
    clock_settime(ClockId::Realtime, then).unwrap();
}

/// A request below the quota is told that, and how much it took.
fn is_throttled(agent: &Agent, service: &mut Service, request: u8) {
    service.serve(request, Request::Burns);
    let verdict = agent.verdict_on(request);
    assert_eq!(verdict["cause"], "cpu_throttle", "{request}: {verdict}");
    let share = verdict["share"].as_f64().unwrap();
    assert!((0.4..=0.9).contains(&share), "{request}: {verdict}");
}

#[test]
fn a_wall_clock_that_is_set_misleads_nobody() {
    if !is_own() {
        return;
    }
    let agent = Agent::start();
    let mut service = Service::start(&agent);
    is_throttled(&agent, &mut service, 1);

    // Across the step: which of the two clocks it has is not known.
    service.begin(2, Request::Burns);
    thread::sleep(Duration::from_millis(100));
    step(HOUR_S);
    service.end();
    thread::sleep(NOTICED);
    is_throttled(&agent, &mut service, 3);
    assert!(agent.verdict(2).is_none(), "{:?}", agent.verdict(2));
    let unjudged = agent.unjudged("clock_step") + agent.unjudged("future");
    assert!(unjudged >= 1.0, "{}", agent.get("/metrics"));

    step(-HOUR_S);
    thread::sleep(NOTICED);
    is_throttled(&agent, &mut service, 4);

    // These wall times come again: who has them the second time did nothing but sleep.
    for request in 10..14 {
        service.serve(request, Request::Burns);
    }
    step(-2);
    thread::sleep(NOTICED - Duration::from_secs(2));
    for request in 20..26 {
        service.serve(request, Request::Rests);
    }
    is_throttled(&agent, &mut service, 5);
    for request in 20..26 {
        let verdict = agent.verdict(request);
        let is_blamed = verdict
            .as_ref()
            .is_some_and(|v| v["cause"] == "cpu_throttle");
        assert!(!is_blamed, "{request}: {verdict:?}");
    }
}

/// While the machine sleeps, the monotonic clock rests and the wall clock goes on.
#[test]
fn a_machine_that_sleeps_is_a_clock_that_is_set() {
    const WAKE: &str = "/sys/class/rtc/rtc0/wakealarm";
    if !is_own() {
        return;
    }
    let states = fs::read_to_string("/sys/power/state").unwrap_or_default();
    if !states.contains("freeze") {
        println!(
            "cannot run here: this kernel cannot sleep: /sys/power/state has `{}`",
            states.trim()
        );
        return;
    }
    if !Path::new(WAKE).exists() {
        println!("cannot run here: nothing would wake this machine: no {WAKE}");
        return;
    }
    let agent = Agent::start();
    let mut service = Service::start(&agent);
    is_throttled(&agent, &mut service, 1);
    let before = clock_gettime(ClockId::Monotonic).tv_sec;
    let asleep = Command::new("sh")
        .args([
            "-c",
            &format!("echo +8 > {WAKE} && echo freeze > /sys/power/state"),
        ])
        .output()
        .unwrap();
    if !asleep.status.success() {
        println!("cannot run here: it does not sleep: {asleep:?}");
        return;
    }
    let boot = clock_gettime(ClockId::Boottime).tv_sec;
    let mono = clock_gettime(ClockId::Monotonic).tv_sec;
    println!(
        "slept for {} s of its uptime, awake since {} s",
        boot - mono,
        mono - before
    );
    thread::sleep(NOTICED);
    is_throttled(&agent, &mut service, 2);
}

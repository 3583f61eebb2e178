//! A sensor that costs more than its budget tells less, and says so. Needs root.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use agent_common::event::sensor;
use isostack_agent::{
    event::Event,
    load::{Sensors, Settings},
    metrics::{AgentMetrics, Sensor},
    sensor::{SensorState, SensorStatus},
    time::MonoNs,
};

/// Two threads that wake each other without end: the load of the switch hook.
fn ping_pong(until: Instant) {
    let (to, from) = std::sync::mpsc::channel::<()>();
    let (back, answers) = std::sync::mpsc::channel::<()>();
    let other = thread::spawn(move || while from.recv().is_ok() && back.send(()).is_ok() {});
    while Instant::now() < until {
        to.send(()).unwrap();
        answers.recv().unwrap();
    }
    drop(to);
    other.join().unwrap();
}

/// The `cpu` sensor's line once its cost has been measured under that load, its cost, and whether
/// the pipeline was told that it tells less.
fn measured(budget_cores: f64) -> (SensorStatus, f64, bool) {
    let metrics = AgentMetrics::default();
    let settings = Settings {
        sensor_budget_cores: budget_cores,
        ..Settings::default()
    };
    let told = Arc::new(Mutex::new(false));
    let tells = Arc::clone(&told);
    let sink = move |events: Vec<Event>| {
        let is_saving =
            |event: &Event| matches!(event, Event::Saving(s) if s.sensor == sensor::CPU);
        *tells.lock().unwrap() |= events.iter().any(is_saving);
    };
    let sensors = Sensors::start(&settings, metrics.clone(), sink).unwrap();
    let load = thread::spawn(|| ping_pong(Instant::now() + Duration::from_secs(3)));
    let cost = metrics
        .sensor_cost
        .get_or_create(&Sensor { sensor: "cpu" })
        .clone();
    for _ in 0..50 {
        sensors.keep_up(MonoNs::now(), &metrics);
        if cost.get() > 0.0 {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    load.join().unwrap();
    let status = sensors.statuses().swap_remove(0);
    // Once the reader has ended, it has told all.
    sensors.stop();
    let told = *told.lock().unwrap();
    (status, cost.get(), told)
}

#[test]
fn a_sensor_over_its_budget_is_thinned_and_says_so() {
    let (status, cores, told) = measured(1e-6);
    assert!(cores > 1e-6, "{cores}");
    assert_eq!(status.state, SensorState::Reduced, "{status:?}");
    assert!(status.reason.contains("% of a core"), "{status:?}");
    assert!(status.loses.contains("stays exact"), "{status:?}");
    assert!(status.fix.contains("--sensor-budget"), "{status:?}");
    assert!(told, "verdicts of that time must say so");
}

#[test]
fn within_its_budget_it_stays_as_it_is() {
    let (status, cores, told) = measured(1.0);
    assert!(cores > 0.0, "measured all the same");
    assert_eq!(status.state, SensorState::On, "{status:?}");
    assert!(!told);
}

//! `isostack-agent doctor`: what each sensor can do here, and why not more. It does not
//! guess: it loads and attaches everything, looks, and detaches again.
//!
//! A core sensor that this version does not have counts as off, so that exit code 0 means
//! what it says: all four can run.

use std::fs;

use serde::Serialize;

use crate::{
    host::{capabilities, roots::Roots},
    load::{self, Sensors, Settings, StartError},
    metrics::AgentMetrics,
    sensor::{SENSORS, SensorState, SensorStatus, WhyNot},
};

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// All four core sensors can run.
    pub ok: bool,
    /// Release of the kernel.
    pub kernel: String,
    /// One per sensor.
    pub sensors: Vec<SensorStatus>,
    /// Capabilities that are missing but that no sensor needs to start: what they are
    /// needed for.
    #[serde(skip)]
    pub notes: Vec<String>,
    /// The process may not load eBPF programs at all.
    #[serde(skip)]
    pub no_privilege: bool,
}

/// Tries every sensor.
#[must_use]
pub fn examine(roots: &Roots) -> Report {
    let settings = Settings {
        roots: roots.clone(),
        ..Settings::default()
    };
    let mut no_privilege = false;
    let sensors = match Sensors::start(&settings, AgentMetrics::default(), drop) {
        Ok(sensors) => sensors.statuses(),
        Err(error) => {
            no_privilege = matches!(error, StartError::NoPrivilege { .. });
            all_off(&error)
        }
    };
    let notes = capabilities::missing()
        .into_iter()
        .filter(|need| !need.essential)
        .map(|need| capabilities::sentence(&[need]))
        .collect();
    Report {
        ok: core_run(&sensors),
        kernel: fs::read_to_string(roots.procfs.join("sys/kernel/osrelease"))
            .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned()),
        sensors,
        notes,
        no_privilege,
    }
}

impl Report {
    /// 0: the four core sensors can run; 1: not all of them.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        u8::from(!self.ok)
    }

    /// One line per sensor, what it loses and what would fix it below.
    #[must_use]
    pub fn render_table(&self) -> String {
        let mut text = format!("kernel {}\n\n", self.kernel);
        for status in &self.sensors {
            let state = match status.state {
                SensorState::On => "on",
                SensorState::Reduced => "reduced",
                SensorState::Off => "off",
            };
            let how = [status.hook.as_str(), status.reason.as_str()]
                .into_iter()
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
                .join("; ");
            text.push_str(&format!("{:<8} {state:<8} {how}\n", status.name));
            for (word, sentence) in [("loses", &status.loses), ("fix", &status.fix)] {
                if !sentence.is_empty() {
                    text.push_str(&format!("{:17} {word}: {sentence}\n", ""));
                }
            }
        }
        text.push('\n');
        for note in &self.notes {
            text.push_str(&format!("note: {note}\n"));
        }
        let off: Vec<&str> = SENSORS
            .iter()
            .zip(&self.sensors)
            .filter(|(entry, status)| entry.core && status.state == SensorState::Off)
            .map(|(entry, _)| entry.name)
            .collect();
        text.push_str(&if off.is_empty() {
            "all core sensors can run\n".to_owned()
        } else {
            format!("core sensors that cannot run: {}\n", off.join(", "))
        });
        text
    }
}

fn core_run(sensors: &[SensorStatus]) -> bool {
    SENSORS.iter().filter(|entry| entry.core).all(|entry| {
        sensors
            .iter()
            .any(|status| status.name == entry.name && status.state != SensorState::Off)
    })
}

fn all_off(error: &StartError) -> Vec<SensorStatus> {
    SENSORS
        .iter()
        .map(|entry| match entry.sensor {
            Some(_) => load::off(
                entry,
                WhyNot {
                    reason: error.to_string(),
                    fix: "run it as root, or give it the capabilities named".to_owned(),
                },
            ),
            None => load::off(entry, load::not_built()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_has_every_sensor_and_the_shape_that_machines_rely_on() {
        let report = examine(&Roots::default());
        let json = serde_json::to_value(&report).unwrap();
        let keys: Vec<_> = json.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["kernel", "ok", "sensors"]);
        let sensors = json["sensors"].as_array().unwrap();
        assert_eq!(sensors.len(), SENSORS.len());
        for sensor in sensors {
            for key in ["name", "state", "hook", "reason", "loses", "fix"] {
                assert!(sensor[key].is_string(), "{key} of {sensor}");
            }
        }
        assert_eq!(json["sensors"][0]["state"], "on", "{}", json["sensors"][0]);
        let table = report.render_table();
        assert!(
            table.contains("cpu      on       tp_btf/sched_switch"),
            "{table}"
        );
    }

    #[test]
    fn without_type_information_the_sensor_is_off_with_a_way_out() {
        let empty = tempfile::tempdir().unwrap();
        let roots = Roots {
            sysfs: empty.path().to_owned(),
            ..Roots::default()
        };
        let report = examine(&roots);
        let cpu = &report.sensors[0];
        assert_eq!(cpu.state, SensorState::Off);
        assert!(cpu.reason.contains("kernel/btf/vmlinux"), "{}", cpu.reason);
        assert!(cpu.fix.contains("CONFIG_DEBUG_INFO_BTF"), "{}", cpu.fix);
        assert_eq!(report.exit_code(), 1);
    }

    #[test]
    fn ok_means_that_all_four_core_sensors_run() {
        let mut sensors = all_off(&StartError::NoPrivilege {
            missing: String::new(),
        });
        assert!(!core_run(&sensors));
        for status in &mut sensors {
            if ["cpu", "tcp", "block", "seccomp"].contains(&status.name) {
                status.state = SensorState::Reduced;
            }
        }
        assert!(core_run(&sensors));
    }
}

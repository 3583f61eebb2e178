//! What a guest said between its markers, and what of that is wrong.

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::guest::Output;

/// One thing that was tried in a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// `doctor:plain`, `test:cpu_sensor:NAME`
    pub name: String,
    /// Exit code; none: the guest ended before it did.
    pub status: Option<i32>,
    /// Seconds it took.
    pub seconds: Option<u64>,
    /// What it printed.
    pub text: String,
}

impl Section {
    /// What is wrong with it.
    fn wrong(&self) -> Option<String> {
        if self.name.starts_with("doctor:") {
            doctor_is_wrong(self)
        } else if self.name == "stack:host" {
            machine_is_wrong(self)
        } else {
            test_is_wrong(self)
        }
    }
}

/// A thing that was tried, judged.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// See [`Section::name`].
    pub name: String,
    /// What is wrong; none: it passed.
    pub wrong: Option<String>,
    /// Why it proves nothing here, in its own words.
    pub not_here: Option<String>,
    /// Seconds it took; none: unknown.
    pub seconds: Option<u64>,
}

impl Outcome {
    /// A guest that could not even be booted.
    pub fn broken(error: &anyhow::Error) -> Self {
        Self {
            name: "guest".to_owned(),
            wrong: Some(format!("{error:#}")),
            not_here: None,
            seconds: None,
        }
    }
}

/// One sensor in `doctor`'s report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sensor {
    /// `cpu`, ...
    pub name: String,
    /// `on`, `reduced`, `off`
    pub state: String,
    /// By which hook.
    pub hook: String,
    /// Why it is not on.
    pub reason: String,
    /// What that loses.
    pub loses: String,
}

/// Cuts the results at the guest's markers.
pub fn sections(results: &str) -> Vec<Section> {
    let mut found: Vec<Section> = Vec::new();
    let mut open = false;
    for line in results.lines() {
        if let Some(name) = line.strip_prefix("%% begin ") {
            found.push(Section {
                name: name.to_owned(),
                status: None,
                seconds: None,
                text: String::new(),
            });
            open = true;
        } else if let (Some(rest), Some(section)) = (line.strip_prefix("%% end "), found.last_mut())
        {
            // Its name, how it ended, how long it took.
            let mut words = rest.split(' ').skip(1);
            section.status = words.next().and_then(|code| code.parse().ok());
            section.seconds = words.next().and_then(|seconds| seconds.parse().ok());
            section.text = section.text.trim().to_owned();
            open = false;
        } else if let (true, Some(section)) = (open, found.last_mut()) {
            section.text.push_str(line);
            section.text.push('\n');
        }
    }
    found
}

/// Judges everything that a guest did, itself included.
pub fn judge(output: &Output) -> Vec<Outcome> {
    let mut outcomes: Vec<Outcome> = sections(&output.results)
        .into_iter()
        .map(|section| {
            let wrong = section.wrong();
            let not_here = section
                .text
                .lines()
                .find(|line| line.contains("cannot run here"))
                .filter(|_| wrong.is_none())
                .map(str::to_owned);
            Outcome {
                name: section.name,
                wrong,
                not_here,
                seconds: section.seconds,
            }
        })
        .collect();
    let kernel = kernel_is_wrong(output);
    outcomes.push(Outcome {
        name: "guest".to_owned(),
        wrong: kernel,
        not_here: None,
        seconds: None,
    });
    outcomes
}

/// What the kernel said when it ended before its time; `None` when it came to its end or hung.
/// The emulator now and then fails a kernel that has done nothing wrong.
pub fn crash(output: &Output) -> Option<&str> {
    const WORDS: [&str; 2] = ["Kernel panic", "double fault"];
    let says = |line: &&str| WORDS.iter().any(|word| line.contains(word));
    let said = output.console.lines().find(says);
    let began = output.results.contains("%% begin");
    said.or((!began).then_some("it did not boot"))
        .filter(|_| !is_done(output))
}

fn is_done(output: &Output) -> bool {
    output.results.lines().any(|line| line == "%% done")
}

fn kernel_is_wrong(output: &Output) -> Option<String> {
    const WORDS: [&str; 4] = ["Kernel panic", "BUG: ", "Oops: ", "general protection"];
    let bad = output
        .console
        .lines()
        // The guest ends by a reboot, never by a panic of an init that returned.
        .find(|line| WORDS.iter().any(|word| line.contains(word)));
    if let Some(line) = bad {
        return Some(format!("the kernel said: {line}"));
    }
    (!is_done(output)).then(|| {
        let lines: Vec<&str> = output.console.lines().collect();
        let last = &lines[lines.len().saturating_sub(20)..];
        format!(
            "it did not come to its end; the kernel's last words:\n{}",
            last.join("\n")
        )
    })
}

fn test_is_wrong(section: &Section) -> Option<String> {
    match section.status {
        Some(0) => None,
        Some(124 | 137 | 143) => Some(format!("it took too long\n{}", section.text)),
        Some(code) => Some(format!("exit code {code}\n{}", section.text)),
        None => Some("the guest ended before it".to_owned()),
    }
}

/// `doctor` says a reason for every sensor that is not on, and in no case falls over.
fn doctor_is_wrong(section: &Section) -> Option<String> {
    let sensors = match sensors(section) {
        Ok(sensors) => sensors,
        Err(error) => return Some(format!("{error:#}\n{}", section.text)),
    };
    let silent = sensors.iter().find(|sensor| {
        (sensor.state != "on" && (sensor.reason.is_empty() || sensor.loses.is_empty()))
            || (sensor.state != "off" && sensor.hook.is_empty())
    });
    if let Some(sensor) = silent {
        return Some(format!("no reason, loss or hook: {sensor:?}"));
    }
    let case = section.name.trim_start_matches("doctor:");
    // Log lines are read by whoever may read them; all others need programs in the kernel.
    let running = sensors
        .iter()
        .find(|sensor| sensor.state != "off" && sensor.name != "logs");
    match (case, running) {
        ("no_btf" | "unprivileged" | "no_perfmon", Some(sensor)) => {
            Some(format!("it claims to run here: {sensor:?}"))
        }
        _ => None,
    }
}

/// The guest is QEMU's, by software, has virtio devices, and can run guests of its own by the
/// assist that QEMU emulates: `stack` says so, and why.
fn machine_is_wrong(section: &Section) -> Option<String> {
    let report: Value = match (section.status, serde_json::from_str(&section.text)) {
        (Some(0), Ok(report)) => report,
        (status, _) => return Some(format!("stack: status {status:?}\n{}", section.text)),
    };
    let entries = report["host"].as_array().map_or(&[][..], |list| list);
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let stack: Vec<String> = entries
        .iter()
        .map(|entry| format!("{}:{}", text(entry, "layer"), text(entry, "technology")))
        .collect();
    let explained = entries.iter().all(|e| !text(e, "evidence").is_empty());
    let nested = entries.iter().any(|entry| {
        text(entry, "technology") == "svm" && text(entry, "evidence").contains("(nested)")
    });
    let wrong = !stack.starts_with(&["L-2:virtio".to_owned(), "L-1:qemu".to_owned()]);
    (wrong || !explained || !nested).then(|| {
        let text = &section.text;
        format!("not QEMU by software with virtio and nested svm: {text}")
    })
}

/// The sensors in a report of `doctor`.
///
/// # Errors
/// When it is none: `doctor` ended by a signal, or printed something else.
pub fn sensors(section: &Section) -> anyhow::Result<Vec<Sensor>> {
    let status = section.status.context("the guest ended before doctor")?;
    // All core sensors, not all of them, no privilege.
    ensure!([0, 1, 77].contains(&status), "doctor ended with {status}");
    let report: Value = serde_json::from_str(&section.text).context("doctor's report")?;
    let sensors = report["sensors"].as_array().context("no sensors")?;
    sensors
        .iter()
        .map(|sensor| {
            let text = |key: &str| {
                let value = sensor[key].as_str().with_context(|| format!("no {key}"))?;
                anyhow::Ok(value.to_owned())
            };
            Ok(Sensor {
                name: text("name")?,
                state: text("state")?,
                hook: text("hook")?,
                reason: text("reason")?,
                loses: text("loses")?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFF: &str = r#"{"ok":false,"kernel":"5.10.0","sensors":[{"name":"cpu","state":"off",
        "hook":"","reason":"no type information","loses":"waits","fix":"another kernel"}]}"#;
    const ON: &str = r#"{"ok":true,"kernel":"6.1.0","sensors":[{"name":"cpu","state":"on",
        "hook":"tp_btf/sched_switch","reason":"","loses":"","fix":""}]}"#;

    fn judged(results: &str) -> Vec<Outcome> {
        judge(&Output {
            results: results.to_owned(),
            console: "Linux version\n".to_owned(),
        })
    }

    fn wrong(outcomes: &[Outcome]) -> Vec<(&str, &str)> {
        let of = |o: &'_ Outcome| o.wrong.clone();
        outcomes
            .iter()
            .filter(|outcome| of(outcome).is_some())
            .map(|o| (o.name.as_str(), o.wrong.as_deref().unwrap_or_default()))
            .collect()
    }

    #[test]
    fn a_guest_in_which_all_went_well_passes() {
        let outcomes = judged(&format!(
            "\n%% begin doctor:plain\n{ON}\n\n%% end doctor:plain 0 7\n\n%% begin doctor:no_btf\n\
             {OFF}\n\n%% end doctor:no_btf 1\n%% begin test:cpu_sensor:a\n\
             cannot run here: no netem\n%% end test:cpu_sensor:a 0\n%% done\n"
        ));
        assert_eq!(wrong(&outcomes), []);
        assert_eq!(outcomes.len(), 4);
        assert_eq!(outcomes[0].seconds, Some(7));
        assert_eq!(
            outcomes[2].not_here.as_deref(),
            Some("cannot run here: no netem")
        );
    }

    #[test]
    fn every_way_to_fail_is_seen() {
        let cut = judged("%% begin test:t:hangs\nhalf a li");
        assert_eq!(cut.len(), 2);
        assert!(cut.iter().all(|outcome| outcome.wrong.is_some()));

        let failed = judged("%% begin test:t:a\nassertion\n%% end test:t:a 101\n%% done");
        assert!(wrong(&failed)[0].1.contains("assertion"));

        let crashed = judged("%% begin doctor:plain\n%% end doctor:plain 139\n%% done");
        assert!(wrong(&crashed)[0].1.contains("139"));

        let entry = |layer: &str, technology: &str, evidence: &str| serde_json::json!({ "layer": layer, "technology": technology, "evidence": evidence });
        let machine = |virtio: &str, hypervisor: &str| {
            let virtio = entry("L-2", "virtio", virtio);
            let svm = entry(
                "L-0",
                "svm",
                "CPU flag svm, passed on to this guest (nested)",
            );
            let host = [virtio, entry("L-1", hypervisor, "CPUID"), svm];
            let report = serde_json::json!({ "host": host });
            judged(&format!(
                "%% begin stack:host\n{report}\n%% end stack:host 0\n%% done"
            ))
        };
        assert_eq!(wrong(&machine("/sys/bus/virtio", "qemu")), []);
        assert_eq!(wrong(&machine("", "qemu")).len(), 1);
        assert_eq!(wrong(&machine("/sys/bus/virtio", "kvm")).len(), 1);

        let silent = OFF.replace("no type information", "");
        let silent = judged(&format!(
            "%% begin doctor:plain\n{silent}\n%% end doctor:plain 1\n%% done"
        ));
        assert!(wrong(&silent)[0].1.contains("no reason"));

        let blind = judged(&format!(
            "%% begin doctor:no_btf\n{ON}\n%% end doctor:no_btf 0\n%% done"
        ));
        assert!(wrong(&blind)[0].1.contains("claims to run"));

        let panicked = judge(&Output {
            results: "%% done".to_owned(),
            console: "Kernel panic - not syncing".to_owned(),
        });
        assert_eq!(wrong(&panicked).len(), 1);
    }

    #[test]
    fn only_a_crash_is_tried_again() {
        let crashed = |results: &str, console: &str| {
            let (results, console) = (results.to_owned(), console.to_owned());
            crash(&Output { results, console }).map(str::to_owned)
        };
        let panic = "[ 1.0] Kernel panic - not syncing: Fatal exception";
        assert_eq!(crashed("%% begin a", panic).as_deref(), Some(panic));
        assert_eq!(crashed("", "").as_deref(), Some("it did not boot"));
        assert_eq!(crashed("%% begin a\n%% done", panic), None);
        assert_eq!(crashed("%% begin a", "[ 1.0] all is well"), None);
    }
}

use super::*;
use crate::{
    knowledge::{
        find::{Entry, find, find_subject},
        page::page,
        select::Asked,
    },
    sensor::{self, SENSORS},
};

const CHECKLIST: &str = include_str!("../../tests/data/knowledge_checklist.txt");

/// Why the data does not have a line of the checklist; `Ok` if it has.
fn look_up(kind: &str, parts: &[&str], page: &str) -> Result<(), String> {
    let data = data();
    let ok = match (kind, parts) {
        ("figure", [subject, title, figure]) => {
            let subject = find_subject(subject).map_err(|e| e.to_string())?;
            let dimensions = &data.layers.dimensions;
            let dimension = dimensions.iter().find(|d| d.title == *title);
            let dimension = dimension.ok_or("no such dimension")?;
            subject
                .figures(dimension)
                .iter()
                .any(|f| f.text == *figure && f.of == subject.id())
        }
        ("name", [name, layer]) => {
            let layer_of = |entry: &Entry| match entry {
                Entry::Technology(technology) => technology.layer.as_str(),
                Entry::Term(term) => term.place.as_str(),
                _ => "-",
            };
            let found = find(name).map_err(|e| e.to_string())?;
            found.iter().any(|entry| layer_of(entry) == *layer)
        }
        ("slice", [layer, device]) => data.layers.slices.iter().any(|slice| {
            slice.place.as_str() == *layer && slice.devices.iter().any(|d| d.contains(device))
        }),
        ("rule", [need, value, layers]) => {
            let asked = Asked::new(need, value).map_err(|e| e.to_string())?;
            let rule = asked.rule().ok_or("no rule")?;
            words(rule.choose.iter().chain(&rule.beside)) == *layers
        }
        ("combination", [layers]) => {
            let combinations = &data.selection.combinations;
            combinations.iter().any(|c| words(&c.layers) == *layers)
        }
        ("symptom", [seen, kernel, faults]) => data.localisation.symptoms.iter().any(|s| {
            s.seen.contains(seen) && s.kernel.contains(kernel) && words(&s.faults) == *faults
        }),
        ("finding", [incident, fault, cause]) => {
            let incident = data
                .localisation
                .incidents
                .iter()
                .find(|i| i.id == *incident);
            let mut findings = incident.ok_or("no such incident")?.findings.iter();
            findings.any(|f| f.fault.as_str() == *fault && f.cause.as_str() == *cause)
        }
        ("threshold", [condition, severity]) => {
            let mut thresholds = data.localisation.thresholds.iter();
            thresholds.any(|t| t.when.contains(condition) && t.severity == *severity)
        }
        ("says", [words]) => page.contains(words),
        _ => return Err("the checklist has no lines of this form".to_owned()),
    };
    ok.then_some(()).ok_or_else(|| "missing".to_owned())
}

fn words<'a>(faults: impl IntoIterator<Item = &'a Fault>) -> String {
    let words: Vec<_> = faults.into_iter().map(|f| f.as_str()).collect();
    words.join(" ")
}

#[test]
fn nothing_of_the_checklist_is_missing() {
    // Wrapped lines would hide words that stand next to each other.
    let page = page().split_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<_> = CHECKLIST
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    assert!(lines.len() > 250, "the checklist itself: {}", lines.len());
    let missing: Vec<_> = lines
        .iter()
        .filter_map(|line| {
            let (kind, rest) = line.split_once(' ')?;
            let parts: Vec<_> = rest.split(" | ").collect();
            let why = look_up(kind, &parts, &page).err()?;
            Some(format!("{line}: {why}"))
        })
        .collect();
    assert!(missing.is_empty(), "missing:\n{}", missing.join("\n"));
    // And the test can fail.
    assert!(look_up("figure", &["L-3", "cold start", "1-6 s"], &page).is_err());
    assert!(look_up("name", &["kvm", "L-3"], &page).is_err());
    assert!(look_up("rule", &["cost", "operations", "L-4"], &page).is_err());
    assert!(look_up("says", &["there is no such sentence"], &page).is_err());
}

#[test]
fn causes_name_sensors_and_metrics_that_there_are() {
    let causes = &data().causes.causes;
    for cause in causes {
        let Some(name) = &cause.sensor else { continue };
        assert!(
            SENSORS.iter().any(|s| s.name == *name),
            "{} is seen by {name}",
            cause.id
        );
    }
    // What sensors count in the kernel is explained by some cause.
    for (_, family) in sensor::families() {
        let shown =
            |metric: &String| metric.strip_suffix("_total").unwrap_or(metric) == family.name;
        assert!(
            causes.iter().any(|cause| cause.metrics.iter().any(shown)),
            "no cause names {}",
            family.name
        );
    }
}

#[test]
fn symptoms_and_incidents_name_causes_that_can_be_there() {
    let model = &data().localisation;
    for symptom in &model.symptoms {
        for cause in &symptom.causes {
            let possible = possible_faults(*cause);
            assert!(
                symptom.faults.iter().any(|fault| possible.contains(fault)),
                "{}: {cause} is never in {:?}",
                symptom.id,
                symptom.faults
            );
        }
    }
    for incident in &model.incidents {
        for finding in &incident.findings {
            assert!(
                possible_faults(finding.cause).contains(&finding.fault),
                "{}: {} is never in {}",
                incident.id,
                finding.cause,
                finding.fault
            );
        }
    }
}

#[test]
fn remedies_for_a_place_are_for_one_where_the_cause_can_be() {
    for cause in &data().causes.causes {
        for remedy in &cause.remedies {
            for place in &remedy.at {
                // `runqueue` in L-1 is run-queue delay that steal explains.
                let explained_by_steal = cause.id == Cause::Runqueue && *place == Fault::L1;
                assert!(
                    explained_by_steal || possible_faults(cause.id).contains(place),
                    "{} is never in {place}",
                    cause.id
                );
            }
        }
    }
}

/// The number of a condition such as `p99 > 50 ms`, in base units.
fn bound(when: &str) -> Option<f64> {
    let (_, right) = when.split_once('>')?;
    let digits: String = right.chars().filter(char::is_ascii_digit).collect();
    let number: f64 = digits.parse().ok()?;
    let unit = right.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
    Some(match unit.split('/').next()? {
        "ms" => number / 1e3,
        "%" | "% " => number / 1e2,
        _ => number,
    })
}

#[test]
fn the_alerts_ring_where_the_data_says() {
    let file = include_str!("../../../deploy/prometheus/alerts.yml");
    for threshold in &data().localisation.thresholds {
        let name = &threshold.alert;
        let (_, alert) = file
            .split_once(&format!("- alert: {name}\n"))
            .unwrap_or_else(|| panic!("no alert {name}"));
        let alert = alert.split("- alert:").next().unwrap();
        let severity = format!(": {}", threshold.severity);
        assert!(alert.contains(&severity), "{name} is not {severity}");
        let Some(bound) = bound(&threshold.when) else {
            continue;
        };
        let numbers: Vec<f64> = alert
            .split("> ")
            .skip(1)
            .filter_map(|text| text.split_whitespace().next()?.parse().ok())
            .collect();
        assert_eq!(numbers, [bound], "{name}: {}", threshold.when);
    }
    let bounds: Vec<_> = [
        "p95 > 1 s",
        "x > 1 000/s",
        "p99 > 50 ms",
        "g > 10 %/h",
        "both",
    ]
    .map(bound)
    .into();
    assert_eq!(
        bounds,
        [Some(1.0), Some(1000.0), Some(0.05), Some(0.1), None]
    );
}

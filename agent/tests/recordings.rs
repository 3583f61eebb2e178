//! Real runs, recorded and kept: what comes out of them is what is written beside them.
//! `docs/recordings.md` says how to add one. With `UPDATE_RECORDINGS=1` what comes out now is
//! written there instead, for a person to look at in the diff.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

const MAX_BYTES: u64 = 200_000;

fn recordings() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/recordings");
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .expect("the directory is in the repository")
        .map(|entry| entry.expect("it can be listed").path())
        .filter(|path| path.to_string_lossy().ends_with(".jsonl.gz"))
        .collect();
    files.sort();
    files
}

/// What is written down of a verdict.
const MEMBERS: [&str; 12] = [
    "span_id",
    "service",
    "operation",
    "confidence",
    "fault",
    "cause",
    "share",
    "culprit",
    "incident",
    "self_time_ms",
    "split",
    "summary",
];

fn replay(file: &Path) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_isostack-agent"))
        .arg("replay")
        .arg(file)
        .args(["--output", "json"])
        .output()
        .expect("the program was built for this test");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", file.display());
    serde_json::from_slice(&output.stdout).expect("one document on stdout")
}

/// What a replay says: a line with the counts, then one for each verdict, newest first.
fn replayed(file: &Path) -> String {
    let document = replay(file);
    let verdicts = document["verdicts"].as_array().expect("a list");
    let mut text = format!("{} spans, {} verdicts\n", document["spans"], verdicts.len());
    for verdict in verdicts {
        let members = MEMBERS.map(|member| format!("\"{member}\":{}", verdict[member]));
        text += &format!("{{{}}}\n", members.join(","));
    }
    text
}

#[test]
fn real_runs_are_judged_as_they_were() {
    let files = recordings();
    assert!(files.len() >= 4, "{files:?}");
    let mut differing = Vec::new();
    for file in &files {
        let size = fs::metadata(file).expect("it is there").len();
        assert!(size <= MAX_BYTES, "{}: {size} bytes", file.display());
        let now = replayed(file);
        let expected = PathBuf::from(file.to_string_lossy().replace(".jsonl.gz", ".verdicts.txt"));
        if std::env::var_os("UPDATE_RECORDINGS").is_some() {
            fs::write(&expected, &now).expect("the repository can be written");
        }
        let then = fs::read_to_string(&expected).unwrap_or_default();
        if then != now {
            differing.push(file.clone());
            let mut lines = then.lines().zip(now.lines()).enumerate();
            if let Some((at, (then, now))) = lines.find(|(_, (then, now))| then != now) {
                println!(
                    "{}, line {}:\n- {then}\n+ {now}",
                    expected.display(),
                    at + 1
                );
            }
        }
    }
    assert!(
        differing.is_empty(),
        "other verdicts than are written down, of {differing:?}; if the new ones are right: \
         UPDATE_RECORDINGS=1 cargo test -p isostack-agent --test recordings"
    );
}

/// What the runs of the fault lab are kept for: hop, fault, cause and culprit. `incident_1` to
/// `incident_3` are the reference incidents; the first once more with its full virtio queue. That, a
/// full table and `memory.high` only a guest can have (`net_sensor/incident.rs` and its likes).
const LOCALISED: [(&str, &[[&str; 4]]); 7] = [
    (
        "incident_1",
        &[
            ["store", "L-3", "cpu_throttle", ""],
            ["orders", "L-4", "seccomp_denied", ""],
        ],
    ),
    (
        "incident_1_full_queue",
        &[
            ["payment", "L-3", "cpu_throttle", ""],
            ["checkout", "L-4", "seccomp_denied", ""],
            ["order", "L-2", "virtqueue", "isostack-test-154-3"],
        ],
    ),
    (
        "incident_2",
        &[["orders", "L-3", "tcp_retransmit", "neighbour"]],
    ),
    // The disk of that machine is a virtio device.
    (
        "incident_3",
        &[["store", "L-2", "block_device", "neighbour"]],
    ),
    ("snat_exhausted", &[["orders", "L-3", "conntrack", ""]]),
    ("conntrack_full", &[["order", "L-3", "conntrack", ""]]),
    ("memory_high", &[["cache", "L-3", "memory_reclaim", ""]]),
];

#[test]
fn reference_incidents_are_localised_to_hop_layer_mechanism_and_culprit() {
    for (name, expected) in LOCALISED {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/recordings");
        let document = replay(&directory.join(format!("{name}.jsonl.gz")));
        let verdicts = document["verdicts"].as_array().expect("a list");
        for [service, fault, cause, culprit] in expected {
            let is_said =
                |verdict: &&Value| verdict["service"] == *service && verdict["cause"] == *cause;
            let said: Vec<&Value> = verdicts.iter().filter(is_said).collect();
            let right = said.iter().filter(|verdict| {
                verdict["fault"] == *fault
                    && verdict["culprit"] == *culprit
                    && verdict["remedy"].as_str().is_some_and(|r| !r.is_empty())
            });
            let right = right.count();
            // Of short waits the culprit is not always known; nobody else is ever named.
            let named = said.iter().filter(|v| v["culprit"] != "").count();
            assert!(
                right >= 1,
                "{name}: {service} {cause}: {right} of {}",
                said.len()
            );
            assert!(
                culprit.is_empty() || right == named,
                "{name}: somebody else is named: {said:?}"
            );
        }
        // Nobody is blamed more than who did it, but for callers, who wait for their callees.
        let blamed = |verdict: &Value| {
            let share = verdict["share"].as_f64().unwrap_or(0.0);
            share * verdict["self_time_ms"].as_f64().unwrap_or(0.0)
        };
        let mut sums = BTreeMap::<[String; 2], f64>::new();
        for verdict in verdicts {
            let word = |member: &str| verdict[member].as_str().unwrap_or("").to_owned();
            if word("fault") != "downstream" {
                *sums.entry([word("service"), word("cause")]).or_default() += blamed(verdict);
            }
        }
        let most = sums.iter().max_by(|a, b| a.1.total_cmp(b.1));
        let most = most
            .map(|(key, _)| key.clone())
            .expect("there are verdicts");
        let is_expected = expected
            .iter()
            .any(|[service, _, cause, _]| most == [*service, *cause]);
        assert!(is_expected, "{name}: {sums:?}");
    }
}

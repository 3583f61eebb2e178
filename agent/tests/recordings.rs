//! Real runs, recorded and kept: what comes out of them is what is written beside them.
//! `docs/recordings.md` says how to add one. With `UPDATE_RECORDINGS=1` what comes out now is
//! written there instead, for a person to look at in the diff.

use std::{
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

/// What a replay says: a line with the counts, then one for each verdict, newest first.
fn replayed(file: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_isostack-agent"))
        .arg("replay")
        .arg(file)
        .args(["--output", "json"])
        .output()
        .expect("the program was built for this test");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", file.display());
    let document: Value = serde_json::from_slice(&output.stdout).expect("one document on stdout");
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

//! Facts of many systems in, stacks out, and the table in the documentation that shows them.
//!
//! `UPDATE=1 cargo test -p isostack-agent --test stack_fixtures` writes the answers into the
//! fixtures and the table into the document: read what changed before it is committed.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics has failed, helpers included"
)]

use std::{collections::BTreeMap, fmt::Write as _, fs, path::PathBuf};

use isostack_agent::stack::{
    process::process_stack,
    record::{Record, Seen},
    report::visible,
};

const BEGIN: &str = "<!-- generated from agent/tests/data/stacks: begin -->\n";
const END: &str = "<!-- generated: end -->\n";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn update() -> bool {
    std::env::var_os("UPDATE").is_some()
}

fn fixtures() -> BTreeMap<String, (PathBuf, Record)> {
    let dir = root().join("tests/data/stacks");
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let record: Record =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        found.insert(name, (path, record));
    }
    found
}

#[test]
fn every_fixture_gives_its_stack_and_workload() {
    let fixtures = fixtures();
    assert!(fixtures.len() >= 60, "only {} fixtures", fixtures.len());
    let mut wrong = String::new();
    for (name, (path, record)) in &fixtures {
        assert!(!record.about.is_empty(), "{name} says not what it is");
        assert_ne!(
            record.seen,
            Seen::Unsaid,
            "{name} says not where it is from"
        );
        let stack = process_stack(&record.process, &record.host);
        for entry in &stack.0 {
            assert!(!entry.evidence.is_empty(), "{name}: {entry:?}");
        }
        let answer = record.ask();
        let expected = (
            record.stack.clone(),
            record.workload.clone(),
            record.runtime.clone(),
        );
        if answer == expected {
            continue;
        }
        if update() {
            let text = fs::read_to_string(path).unwrap();
            let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
            value["stack"] = answer.0.into();
            value["workload"] = answer.1.into();
            value["runtime"] = answer.2.into();
            fs::write(path, format!("{value:#}\n")).unwrap();
        } else {
            writeln!(wrong, "{name}: {answer:?}, not {expected:?}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn every_word_of_a_stack_is_known() {
    let mut unknown = std::collections::BTreeSet::new();
    for word in ["jailer", "minijail", "namespaces", "lxd", "incus"] {
        if isostack_agent::knowledge::find::find(word).is_err() {
            unknown.insert(word.to_owned());
        }
    }
    for (_, record) in fixtures().into_values() {
        for entry in process_stack(&record.process, &record.host).0 {
            if isostack_agent::knowledge::find::find(&entry.technology).is_err() {
                unknown.insert(entry.technology);
            }
        }
    }
    assert!(unknown.is_empty(), "not in technologies.toml: {unknown:?}");
}

#[test]
fn what_imitates_gets_nobody_elses_names() {
    let fixtures = fixtures();
    let imitations = fixtures.iter().filter(|(_, (_, record))| {
        record.seen == Seen::PublishedLayout("made to imitate".to_owned())
    });
    let mut count = 0;
    for (name, (_, record)) in imitations {
        let (stack, workload, _) = record.ask();
        for victim in ["4053557b", "payments", "shop/", "bbbbbbbb"] {
            assert!(!workload.contains(victim), "{name}: {workload}");
        }
        assert!(
            !stack.contains("gvisor") && !stack.contains("firecracker"),
            "{name}: {stack}"
        );
        count += 1;
    }
    assert!(count >= 6, "{count}");
}

/// `|` and line ends would end a cell.
fn cell(text: &str) -> String {
    visible(text).replace('|', "\\|")
}

fn table() -> String {
    let mut text = String::from(
        "| what | stack | why (innermost layer) | seen |\n| --- | --- | --- | --- |\n",
    );
    for (_, record) in fixtures().into_values() {
        let stack = process_stack(&record.process, &record.host);
        let why = stack.0.first().map_or("", |entry| &*entry.evidence);
        let seen = match &record.seen {
            Seen::RealSystem(on) => format!("on a real system: {on}"),
            Seen::PublishedLayout(from) => format!("built from published layouts: {from}"),
            Seen::Unsaid => String::new(),
        };
        writeln!(
            text,
            "| {} | `{stack}` | {} | {} |",
            cell(&record.about),
            cell(why),
            cell(&seen)
        )
        .unwrap();
    }
    text
}

#[test]
fn the_table_in_the_document_is_up_to_date() {
    let path = root().join("../docs/isolation-stacks.md");
    let document = fs::read_to_string(&path).unwrap();
    let (head, rest) = document.split_once(BEGIN).unwrap();
    let (shown, tail) = rest.split_once(END).unwrap();
    let table = table();
    if update() {
        fs::write(&path, format!("{head}{BEGIN}{table}{END}{tail}")).unwrap();
        return;
    }
    assert!(
        shown == table,
        "docs/isolation-stacks.md is old: UPDATE=1 cargo test -p isostack-agent --test stack_fixtures"
    );
}

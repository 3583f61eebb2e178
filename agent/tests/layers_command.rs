//! `isostack-agent layers`, `completions` and `man` as a shell sees them.

use std::{
    fs,
    io::Read,
    process::{Command, Output, Stdio},
};

fn agent() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isostack-agent"));
    command.env("COLUMNS", "80");
    command
}

fn run(arguments: &[&str]) -> Output {
    agent()
        .args(arguments)
        .output()
        .expect("the agent was built with this test")
}

fn text(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    assert!(output.stderr.is_empty(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("the agent writes UTF-8")
}

const QUESTIONS: &[&[&str]] = &[
    &["layers"],
    &[
        "layers", "show", "L-0", "L-1", "L-2", "L-3", "L-4", "host", "network",
    ],
    &[
        "layers",
        "show",
        "gvisor",
        "service-mesh",
        "virtqueue",
        "cpu_throttle",
    ],
    &["layers", "compare", "L-1", "kata", "policy-engine"],
    &["layers", "select"],
    &[
        "layers",
        "select",
        "--scenario",
        "edge",
        "--compliance",
        "multi-tenant",
    ],
];

#[test]
fn every_form_answers_every_question() {
    for question in QUESTIONS {
        let with = |form: &str| text(&[question, &["--output", form][..]].concat());
        let json: serde_json::Value = serde_json::from_str(&with("json")).unwrap();
        assert!(json.is_object(), "{question:?}");
        assert!(!with("markdown").contains('─'));
        let table = with("table");
        assert_eq!(table, text(question), "the table is the default");
        let widest = table.lines().map(|line| line.chars().count()).max();
        assert!(
            widest <= Some(80),
            "{question:?} takes {widest:?} columns:\n{table}"
        );
    }
}

#[test]
fn json_is_what_the_knowledge_has() {
    let json = |arguments: &[&str]| -> serde_json::Value {
        serde_json::from_str(&text(&[arguments, &["--output", "json"][..]].concat())).unwrap()
    };
    let layers = json(&["layers"]);
    let ids: Vec<_> = layers["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| &l["id"])
        .collect();
    assert_eq!(ids, ["L-4", "L-3", "L-2", "L-1", "L-0"]);
    let shown = json(&["layers", "show", "runsc"]);
    assert_eq!(shown["entries"][0]["kind"], "technology");
    assert_eq!(shown["entries"][0]["id"], "gvisor");
    let compared = json(&["layers", "compare", "L-1", "L-3"]);
    let start = compared["dimensions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|d| d["dimension"] == "cold_start")
        .unwrap();
    assert_eq!(start["figures"][1][0]["text"], "1-5 s");
    assert_eq!(start["figures"][1][0]["high"], 5_000.0);
    assert_eq!(start["figures"][1][0]["source"], "layer-table");
    let selected = json(&["layers", "select", "--cold-start-below", "10ms"]);
    assert_eq!(selected["ranks"][0]["layers"][0], "L-4");
    assert_eq!(selected["ranks"][0]["need"], "cold-start-below 10ms");
}

#[test]
fn wrong_questions_exit_64_and_say_what_is_right() {
    let table: &[(&[&str], &str)] = &[
        (&["layers", "show", "gvsior"], "gvisor"),
        (&["layers", "show", "L-9"], "L-4"),
        (&["layers", "compare", "L-3", "firecraker"], "firecracker"),
        (&["layers", "compare", "L-3"], "2 values"),
        (&["layers", "compare", "L-3", "veth"], "is a term"),
        (&["layers", "select", "--scenario", "egde"], "edge"),
        (&["layers", "select", "--cold-start-below", "soon"], "10ms"),
        (&["completions", "tcsh"], "bash"),
    ];
    for (question, part) in table {
        let output = run(question);
        assert_eq!(output.status.code(), Some(64), "{question:?}");
        assert!(output.stdout.is_empty(), "{question:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(part), "{part} in {said}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    // More than a pipe holds, so that the writer meets its closed end.
    let mut show = vec!["layers", "show"];
    show.extend(["L-0", "L-1", "L-2", "L-3", "L-4"].repeat(20));
    let mut child = agent()
        .args(show)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 1];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

/// In a real bash, also below a subcommand.
#[test]
fn bash_completes_subcommands_and_their_values() {
    let script = text(&["completions", "bash"]);
    let completed = |words: &[&str]| {
        let [.., before, word] = words else {
            panic!("two words at least");
        };
        let line = format!(
            "{script}\nCOMP_WORDS=({}); COMP_CWORD={}\n\
             _isostack__agent isostack-agent '{word}' {before}; echo \"${{COMPREPLY[*]}}\"",
            words[..words.len() - 1].join(" ") + " ''",
            words.len() - 1
        );
        let output = Command::new("bash").args(["-c", &line]).output().unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(completed(&["isostack-agent", "lay"]), "layers");
    assert_eq!(completed(&["isostack-agent", "layers", "sel"]), "select");
    let select = ["isostack-agent", "layers", "select"];
    let with = |more: [&'static str; 2]| completed(&[&select[..], &more].concat());
    assert_eq!(with(["--scenario", "ser"]), "serverless");
    let named = completed(&["isostack-agent", "classify", "--f"]);
    assert_eq!(named, "--follow");
}

#[test]
fn a_packager_gets_completions_and_man_pages() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = text(&["completions", shell]);
        assert!(
            script.contains("cold-start-below") && script.contains("isostack-agent"),
            "{shell}"
        );
    }
    let directory = tempfile::tempdir().unwrap();
    let to = directory.path().join("man1");
    text(&["man", to.to_str().unwrap()]);
    let page = |name: &str| fs::read_to_string(to.join(name)).unwrap();
    assert!(page("isostack-agent.1").contains(".TH"));
    assert!(page("isostack-agent-run.1").contains("http\\-listen"));
    assert!(page("isostack-agent-layers-select.1").contains("cold\\-start\\-below"));
    // A file is no directory.
    let output = run(&["man", to.join("isostack-agent.1").to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write the man pages"));
}

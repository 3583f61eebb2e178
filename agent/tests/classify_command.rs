//! `isostack-agent classify` as a process: what it prints, how it ends, and how it behaves
//! with directories, binary files, vanished files, broken pipes and files that grow.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

fn agent(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isostack-agent"));
    command.arg("classify").args(args).stdin(Stdio::null());
    command
}

fn run(args: &[&str], input: &[u8]) -> Output {
    let mut command = agent(args);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // A child that does not read has its reason; the output tells.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn objects(output: &Output) -> Vec<Value> {
    let out = text(&output.stdout);
    out.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn json_lines_from_standard_input() {
    let input = b"fine\n\xff\xfe\0 x OOMKilled\xc3\nfine\nvirtio_net: eth0: tx timeout";
    let output = run(&["--output", "json"], input);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stderr), "");
    let found = objects(&output);
    assert_eq!(found.len(), 2);
    let first = text(&output.stdout);
    let first = first.lines().next().unwrap();
    let keys = [
        "line_number",
        "layer",
        "rule",
        "meaning",
        "remedy",
        "confidence",
        "line",
    ];
    let places: Vec<_> = keys
        .iter()
        .map(|key| first.find(&format!("\"{key}\":")).unwrap())
        .collect();
    assert!(places.is_sorted(), "the contract's order: {first}");
    assert_eq!(found[0]["line_number"], 2);
    assert_eq!(found[0]["layer"], "L-3");
    assert_eq!(found[0]["rule"], "oom_killed");
    assert!(found[0]["confidence"].as_f64().unwrap() > 0.9);
    assert!(found[0]["line"].as_str().unwrap().contains("x OOMKilled"));
    assert_eq!(found[0].as_object().unwrap().len(), keys.len());
    assert_eq!(found[1]["line_number"], 4);
    assert_eq!(found[1]["layer"], "L-2");
}

#[test]
fn only_the_layers_asked_for() {
    let input = b"OOMKilled\nGofer broken pipe\nVF reset\n";
    let output = run(&["--output", "json", "--only", "L-4,L-0"], input);
    let layers: Vec<_> = objects(&output)
        .iter()
        .map(|o| o["layer"].clone())
        .collect();
    assert_eq!(layers, ["L-4", "L-0"]);
    assert_eq!(run(&["--only", "L-1"], input).status.code(), Some(1));
    let wrong = run(&["--only", "L-9"], b"");
    assert_eq!(wrong.status.code(), Some(64));
    assert!(text(&wrong.stderr).contains("L-0, L-1, L-2, L-3, L-4"));
}

#[test]
fn a_table_for_people_is_free_of_what_bends_a_terminal() {
    let output = run(&[], b"\x1b[31m OOMKilled \x07\n");
    let out = text(&output.stdout);
    assert!(
        out.contains("L-3") && out.contains("oom_killed") && out.contains("-> "),
        "{out}"
    );
    assert!(!out.contains('\x1b') && !out.contains('\x07'), "{out:?}");
}

#[test]
fn nothing_found_and_several_files() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a.log"), dir.path().join("b.log"));
    fs::write(&a, "all is well\n").unwrap();
    fs::write(&b, "all is well\nEPT violation\n").unwrap();
    let [a, b] = [&a, &b].map(|path| path.to_str().unwrap());
    let nothing = run(&[a], b"");
    assert_eq!((nothing.status.code(), nothing.stdout.len()), (Some(1), 0));
    let output = run(&[a, b, "--output", "json"], b"");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(objects(&output)[0]["file"], b);
    assert_eq!(run(&["-", a], b"OOMKilled\n").status.code(), Some(0));
}

#[test]
fn what_cannot_be_read_is_said_and_the_rest_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("a.log");
    fs::write(&log, "OOMKilled\n").unwrap();
    let gone = dir.path().join("gone.log");
    let [log, gone, dir] = [&log, &gone, dir.path()].map(|path: &Path| path.to_str().unwrap());
    let output = run(&["--output", "json", dir, gone, log], b"");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(objects(&output).len(), 1);
    let complaints = text(&output.stderr);
    assert!(
        complaints.contains(&format!("{dir}: ")) && complaints.contains("directory"),
        "{complaints}"
    );
    assert!(
        complaints.contains(&format!("{gone}: No such file")),
        "{complaints}"
    );
}

#[test]
fn a_compressed_file_is_not_said_to_hold_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.log.1.gz");
    let mut packed =
        flate2::write::GzEncoder::new(File::create(&path).unwrap(), flate2::Compression::default());
    packed.write_all(b"OOMKilled\n").unwrap();
    packed.finish().unwrap();
    let output = run(&[path.to_str().unwrap()], b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("zcat"), "{output:?}");
}

#[test]
fn a_binary_file_matches_without_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("core");
    fs::write(&path, b"\x7fELF\0\0\0\nOOMKilled\n").unwrap();
    let file = path.to_str().unwrap();
    let output = run(&[file], b"");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0));
    assert!(text(&output.stderr).contains("binary file matches"));
    let output = run(&["--text", "--output", "json", file], b"");
    assert_eq!(objects(&output).len(), 1);
    fs::write(&path, b"\0nothing").unwrap();
    assert_eq!(run(&[file], b"").status.code(), Some(1));
}

#[test]
fn a_reader_that_leaves_ends_it_quietly() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("long.log");
    fs::write(&path, "OOMKilled\n".repeat(200_000)).unwrap();
    let mut command = agent(&[path.to_str().unwrap(), "--output", "json"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut [0; 100]).unwrap();
    drop(out);
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

/// Stops the child also when a test fails.
struct Following(Child, std::sync::mpsc::Receiver<Value>);

impl Following {
    fn start(args: &[&str]) -> Self {
        let mut command = agent(args);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (found, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if found.send(serde_json::from_str(&line).unwrap()).is_err() {
                    return;
                }
            }
        });
        Self(child, lines)
    }

    fn next(&self) -> String {
        let found = self
            .1
            .recv_timeout(Duration::from_secs(60))
            .expect("a line found");
        found["line"].as_str().unwrap().to_owned()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// Waiting for one would keep the other waiting.
#[test]
fn standard_input_is_not_followed_beside_files() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(
        &["--follow", "-", dir.path().to_str().unwrap()],
        b"OOMKilled\n",
    );
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(said.contains("give it alone"), "{said}");
    assert!(!said.contains("not there"), "a file of that name: {said}");
    let alone = run(&["--follow", "-"], b"OOMKilled\n");
    assert_eq!(alone.status.code(), Some(0));
}

#[test]
fn follows_across_rotation_and_truncation() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.log");
    append(&path, "fine\nOOMKilled 1\n");
    let following = Following::start(&["--follow", "--output", "json", path.to_str().unwrap()]);
    assert_eq!(following.next(), "OOMKilled 1");
    append(&path, "half of a line, OOMK");
    append(&path, "illed 2\n");
    assert_eq!(following.next(), "half of a line, OOMKilled 2");
    fs::rename(&path, dir.path().join("app.log.1")).unwrap();
    append(&path, "OOMKilled 3\n");
    assert_eq!(following.next(), "OOMKilled 3");
    File::create(&path).unwrap();
    // Until the truncation was seen, what is appended may look like growth.
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        append(&path, "OOMKilled 4\n");
        match following.1.recv_timeout(Duration::from_millis(500)) {
            Ok(found) if found["line"] == "OOMKilled 4" => break,
            _ => assert!(Instant::now() < deadline, "the truncation was not followed"),
        }
    }
}

use std::{fs, io::Write as _};

use super::{files::Files, *};
use crate::vocabulary::Cause;

fn board() -> (Board, AgentMetrics) {
    let metrics = AgentMetrics::default();
    (Board::new("n1", metrics.clone()), metrics)
}

fn hit(line: &str) -> Hit {
    Classifier::get()
        .classify(line.as_bytes(), Only::default())
        .unwrap()
}

fn append(path: &Path, text: &str) {
    let mut file = fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn lines(board: &Board) -> Vec<String> {
    board
        .recent(100)
        .into_iter()
        .rev()
        .map(|entry| entry.line)
        .collect()
}

#[test]
fn a_flood_is_one_entry_a_second_and_every_line_is_counted() {
    let (board, metrics) = board();
    let line = "nf_conntrack: table full, dropping packet";
    for n in 0..10_000_u64 {
        let at = UnixNs(1_000_000_000_000 + n * 500_000); // 5 s
        board.take(hit(line), &Workload::default(), "kmsg", line.as_bytes(), at);
    }
    let recent = board.recent(100);
    assert_eq!(recent.len(), 5);
    assert_eq!(recent.iter().map(|entry| entry.lines).sum::<u64>(), 10_000);
    assert_eq!(
        (recent[0].rule, recent[0].source.as_str()),
        ("conntrack_full", "kmsg")
    );
    let page = page(&metrics);
    assert!(page.contains("rule=\"conntrack_full\"} 10000"), "{page}");
}

fn page(metrics: &AgentMetrics) -> String {
    let mut page = String::new();
    let mut registry = prometheus_client::registry::Registry::default();
    registry.register("isostack_log_matches", "help", metrics.log_matches.clone());
    prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
    page
}

/// Pods come and go: those of last week take no room from those of today.
#[test]
fn the_series_of_who_is_gone_are_given_back() {
    let (board, metrics) = board();
    const MINUTE: u64 = 60_000_000_000;
    let line = |name: &str, minute: u64| {
        let workload = Workload {
            container: name.to_owned(),
            ..Workload::default()
        };
        let at = UnixNs(minute * MINUTE);
        board.take(hit("OOMKilled"), &workload, "otlp", b"OOMKilled", at);
    };
    for minute in 1_000..1_300 {
        line("stays", minute);
        for n in 0..20 {
            line(&format!("gone{minute}-{n}"), minute);
        }
    }
    assert_eq!(metrics.series_overflow.get(), 0);
    let page = page(&metrics);
    assert!(page.contains("container=\"stays\",runtime=\"\",rule=\"oom_killed\"} 300"));
    assert!(page.contains("gone1299-19"));
    assert!(!page.contains("gone1100-"));
}

#[test]
fn a_verdict_does_not_wait_for_who_writes_lines() {
    let (board, metrics) = board();
    let line = "nf_conntrack: table full";
    board.take(
        hit(line),
        &Workload::default(),
        "kmsg",
        line.as_bytes(),
        UnixNs(1),
    );
    let ask = || board.supporting(Cause::Conntrack, &Workload::default(), 0, 10);
    assert_eq!(ask(), [("conntrack_full", 1)]);
    board.while_written(|| assert_eq!(ask(), []));
    assert_eq!(metrics.log_evidence_missed.get(), 1);
    assert_eq!(ask(), [("conntrack_full", 1)]);
}

#[test]
fn a_file_that_grows_faster_than_it_is_read_is_left_out_in_part_and_that_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("a.log");
    append(&log, "");
    let mut files = Files::new(vec![log.to_str().unwrap().to_owned()], None);
    let (board, metrics) = board();
    files.discover(&metrics);
    files.read(&board, &metrics);
    // A hole: nothing is written, and it is far beyond what may be waiting.
    let file = fs::OpenOptions::new().append(true).open(&log).unwrap();
    file.set_len(200 << 20).unwrap();
    append(&log, "\nOOMKilled at the end\n");
    while files.read(&board, &metrics) {}
    assert_eq!(lines(&board), ["OOMKilled at the end"]);
    let reason = Reason {
        reason: "too_far_behind",
    };
    assert_eq!(metrics.log_lines_lost.get_or_create(&reason).get(), 1);
}

#[test]
fn workloads_that_are_made_up_do_not_make_endless_series() {
    let (board, metrics) = board();
    for n in 0..5000_u32 {
        let workload = Workload {
            container: format!("c{n}"),
            ..Workload::default()
        };
        board.take(hit("OOMKilled"), &workload, "otlp", b"OOMKilled", UnixNs(1));
    }
    assert_eq!(metrics.series_overflow.get(), 3000);
    assert_eq!(board.recent(usize::MAX).len(), 1000);
}

#[test]
fn lines_support_a_cause_of_their_workload_and_time_only() {
    let (board, _) = board();
    let cart = Workload {
        cgroup_id: 7,
        container: "cart".into(),
        ..Workload::default()
    };
    let other = Workload {
        cgroup_id: 8,
        ..cart.clone()
    };
    let second = 1_000_000_000;
    board.take(
        hit("OOMKilled"),
        &cart,
        "kmsg",
        b"OOMKilled",
        UnixNs(100 * second),
    );
    let support = |cause, workload: &Workload, at: u64| {
        board.supporting(cause, workload, at * second, (at + 1) * second)
    };
    assert_eq!(support(Cause::OomKill, &cart, 100), [("oom_killed", 1)]);
    assert_eq!(support(Cause::OomKill, &other, 100), []);
    assert_eq!(support(Cause::CpuThrottle, &cart, 100), []);
    assert_eq!(support(Cause::OomKill, &cart, 110), []);
    // A table that is full hits everybody.
    let line = "nf_conntrack: table full";
    board.take(
        hit(line),
        &Workload::default(),
        "kmsg",
        line.as_bytes(),
        UnixNs(100 * second),
    );
    assert_eq!(
        support(Cause::Conntrack, &other, 100),
        [("conntrack_full", 1)]
    );
    // Who writes the same into a file of no workload's hits nobody.
    let line = "nf_conntrack: nf_conntrack: table full, dropping packet";
    board.take(
        hit(line),
        &Workload::default(),
        "/srv/app/x.log",
        line.as_bytes(),
        UnixNs(100 * second),
    );
    assert_eq!(
        support(Cause::Conntrack, &other, 100),
        [("conntrack_full", 1)]
    );
    // And nobody is killed by a line without a name.
    board.take(
        hit("OOMKilled"),
        &Workload::default(),
        "x",
        b"OOMKilled",
        UnixNs(100 * second),
    );
    assert_eq!(support(Cause::OomKill, &other, 100), []);
}

#[test]
fn files_from_now_on_across_rotation_and_restart() {
    let dir = tempfile::tempdir().unwrap();
    let state = tempfile::tempdir().unwrap();
    let log = dir.path().join("app.log");
    append(&log, "OOMKilled 0: history\n");
    let globs = vec![format!("{}/*.log*", dir.path().display())];
    let (board, metrics) = board();
    let state_dir = state.path().join("made-when-needed");
    let start = || Files::new(globs.clone(), Some(&state_dir));
    let mut files = start();
    let look = |files: &mut Files| {
        files.discover(&metrics);
        while files.read(&board, &metrics) {}
        lines(&board)
    };
    assert_eq!(look(&mut files), [""; 0]);
    append(&log, "VF reset 1\nEPT violation 2 without end");
    assert_eq!(look(&mut files), ["VF reset 1"]);
    // Renamed, as logrotate does: not read again under the new name.
    append(&log, "\n");
    fs::rename(&log, dir.path().join("app.log.1")).unwrap();
    append(&log, "Gofer broken pipe 3\n");
    let expected = [
        "VF reset 1",
        "EPT violation 2 without end",
        "Gofer broken pipe 3",
    ];
    look(&mut files);
    assert_eq!(look(&mut files), expected);
    files.remember();
    drop(files);
    append(&log, "vMotion failed 4\n");
    let mut files = start();
    let all = look(&mut files);
    assert_eq!(all[..3], expected);
    assert_eq!(all[3..], ["vMotion failed 4"], "goes on where it was");
}

#[test]
fn lines_of_containers_are_taken_out_of_their_envelopes() {
    let dir = tempfile::tempdir().unwrap();
    let id = "6e899e8adb076670dd192fa0cee52aef8c493640b730232ed3d8433a12f1184b";
    let pod = dir.path().join("log/pods/shop_web-0_1f2e-77/cart");
    let docker = dir.path().join(format!("containers/{id}"));
    for directory in [&pod, &docker] {
        fs::create_dir_all(directory).unwrap();
    }
    let globs = vec![
        format!("{}/log/pods/*/*/*.log", dir.path().display()),
        format!("{}/containers/*/*.log", dir.path().display()),
    ];
    let mut files = Files::new(globs, None);
    let (board, metrics) = board();
    files.discover(&metrics);
    append(
        &pod.join("0.log"),
        "2026-11-23T10:00:00.1Z stderr F Exception: unreachable\n\
         2026-11-23T10:00:00.2Z stderr P container was OOMKi\n\
         2026-11-23T10:00:00.2Z stderr F lled here\n",
    );
    append(
        &docker.join(format!("{id}-json.log")),
        "{\"log\":\"apparmor=\\\"DENIED\\\" operation=\\\"capable\\\" pid=1\\n\",\"stream\":\"stderr\"}\n",
    );
    files.discover(&metrics);
    files.read(&board, &metrics);
    let mut found = lines(&board);
    found.sort();
    assert_eq!(
        found,
        [
            "Exception: unreachable",
            "apparmor=\"DENIED\" operation=\"capable\" pid=1",
            "container was OOMKilled here",
        ]
    );
}

#[test]
fn damaged_positions_are_no_obstacle() {
    let state = tempfile::tempdir().unwrap();
    fs::write(state.path().join("log_positions.json"), "{no").unwrap();
    let log = state.path().join("a.log");
    append(&log, "OOMKilled\n");
    let mut files = Files::new(vec![log.to_str().unwrap().to_owned()], Some(state.path()));
    let (board, metrics) = board();
    files.discover(&metrics);
    files.read(&board, &metrics);
    assert_eq!(lines(&board), [""; 0]);
    append(&log, "OOMKilled now\n");
    files.read(&board, &metrics);
    assert_eq!(lines(&board), ["OOMKilled now"]);
}

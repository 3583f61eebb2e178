use std::io::Write as _;

use super::*;

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// All that it gives until there is nothing new; `|` where it began again.
fn all(tail: &mut Tail) -> String {
    let mut buffer = [0; 16];
    let mut out = String::new();
    for _ in 0..1000 {
        match tail.look(&mut buffer).unwrap() {
            Look::Bytes(n) => out.push_str(std::str::from_utf8(&buffer[..n]).unwrap()),
            Look::Restarted => out.push('|'),
            Look::Nothing | Look::Gone => return out,
        }
    }
    panic!("it never ends: {out}");
}

#[test]
fn growth_rotation_and_truncation() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut tail = Tail::new(path.clone(), Begin::Start);
    assert_eq!(tail.look(&mut [0; 8]).unwrap(), Look::Gone);
    append(&path, "one\ntwo\n");
    assert_eq!(all(&mut tail), "one\ntwo\n");
    append(&path, "three\n");
    assert_eq!(all(&mut tail), "three\n");

    // Renamed: what is still written to the old file is not lost.
    fs::rename(&path, dir.path().join("log.1")).unwrap();
    append(&dir.path().join("log.1"), "four\n");
    assert_eq!(all(&mut tail), "four\n");
    append(&path, "five\n");
    append(&dir.path().join("log.1"), "late\n");
    assert_eq!(all(&mut tail), "late\n|five\n");

    // Cut, as copytruncate does.
    File::create(&path).unwrap();
    assert_eq!(all(&mut tail), "|");
    append(&path, "six\n");
    assert_eq!(all(&mut tail), "six\n");
}

#[test]
fn a_deleted_file_is_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    append(&path, "one\n");
    let mut tail = Tail::new(path.clone(), Begin::Start);
    assert_eq!(all(&mut tail), "one\n");
    fs::remove_file(&path).unwrap();
    let looks: Vec<_> = (0..LOOKS_AFTER_DELETION + 2)
        .map(|_| tail.look(&mut [0; 8]).unwrap())
        .collect();
    assert_eq!(
        looks
            .iter()
            .filter(|look| **look == Look::Restarted)
            .count(),
        1
    );
    assert_eq!(looks.last(), Some(&Look::Gone));
}

#[test]
fn a_remembered_place_is_used_only_in_the_same_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    append(&path, "one\ntwo\nthr");
    let mut tail = Tail::new(path.clone(), Begin::Start);
    assert_eq!(tail.place(0), None);
    all(&mut tail);
    let place = tail.place("thr".len()).unwrap();
    append(&path, "ee\n");
    let resumed = |begin| all(&mut Tail::new(path.clone(), begin));
    assert_eq!(resumed(Begin::At(place)), "three\n");
    assert_eq!(resumed(Begin::End), "");
    // The same inode, other content.
    fs::write(&path, "other\nand more than before\n").unwrap();
    assert_eq!(resumed(Begin::At(place)), "other\nand more than before\n");
    // Shorter than the place.
    fs::write(&path, "one\n").unwrap();
    assert_eq!(resumed(Begin::At(place)), "one\n");
}

#[test]
fn what_is_no_file_is_refused_without_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let error = Tail::new(dir.path().to_owned(), Begin::Start)
        .look(&mut [0; 8])
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
    let fifo = dir.path().join("fifo");
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
    )
    .unwrap();
    let error = Tail::new(fifo, Begin::Start).look(&mut [0; 8]).unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");
}

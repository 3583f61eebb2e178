//! What failed, read from what cargo and its test runner print, and the second try.

use std::{
    io::{BufRead as _, BufReader, Read, Write},
    process::Stdio,
    thread,
};

use anyhow::Context as _;
use harness::artifact;

/// More than these are no accident: nothing is tried again.
const MOST: usize = 5;

/// Tests of one target that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// What selects the target: `-p isostack-agent --test culprits`.
    target: Vec<String>,
    /// Their names.
    names: Vec<String>,
}

/// Reads the output of a test run.
#[derive(Debug, Default)]
pub struct Reader {
    /// Of each target that failed, in order.
    names: Vec<Vec<String>>,
    list: Vec<String>,
    is_in_list: bool,
}

impl Reader {
    /// A line of the test runner. It ends with a list of what failed, then the result:
    ///
    /// ```text
    /// failures:
    ///     module::name
    ///
    /// test result: FAILED. 5 passed; 1 failed; ...
    /// ```
    pub fn line(&mut self, line: &str) {
        if line == "failures:" {
            self.list.clear();
            self.is_in_list = true;
        } else if line.starts_with("test result: FAILED") {
            self.names.push(std::mem::take(&mut self.list));
        } else if let Some(name) = line.strip_prefix("    ").filter(|_| self.is_in_list) {
            self.list.push(name.to_owned());
        } else {
            self.is_in_list = false;
        }
    }

    /// What failed; nothing where it is not known of every target which of its tests did (one
    /// that crashed has no list). `targets` in the same order, from [`targets`].
    pub fn failed(self, targets: Vec<Vec<String>>) -> Vec<Failed> {
        let is_whole = self.names.len() == targets.len() && !self.names.iter().any(Vec::is_empty);
        let count: usize = self.names.iter().map(Vec::len).sum();
        if !is_whole || count > MOST {
            return Vec::new();
        }
        let pairs = targets.into_iter().zip(self.names);
        pairs
            .map(|(target, names)| Failed { target, names })
            .collect()
    }
}

/// Passes on what cargo says, and collects how it names the targets that failed:
/// ``error: test failed, to rerun pass `-p isostack-agent --test culprits` ``.
pub fn targets(said: impl Read, mut screen: impl Write) -> Vec<Vec<String>> {
    let mut targets = Vec::new();
    for line in BufReader::new(said).split(b'\n').map_while(Result::ok) {
        // A screen that is gone is no reason to stop reading: cargo would wait.
        let _ = screen
            .write_all(&line)
            .and_then(|()| screen.write_all(b"\n"));
        let line = String::from_utf8_lossy(&line);
        let rest = line.split_once("to rerun pass `").map(|(_, rest)| rest);
        if let Some((target, _)) = rest.and_then(|rest| rest.split_once('`')) {
            targets.push(target.split_whitespace().map(str::to_owned).collect());
        }
    }
    targets
}

impl Failed {
    /// Tries each of them once more, alone; returns the names of those that passed.
    ///
    /// # Errors
    /// When cargo cannot be run.
    pub fn try_again(&self) -> anyhow::Result<Vec<String>> {
        let mut passed = Vec::new();
        for name in &self.names {
            println!("\n=== once more, alone: {} {name}", self.target.join(" "));
            let mut child = artifact::cargo()
                .arg("test")
                .args(&self.target)
                .args(["--", "--exact", name, "--nocapture"])
                .current_dir(artifact::root())
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .context("cannot run cargo")?;
            let out = child.stdout.take().context("it is piped")?;
            let lines = thread::spawn(move || {
                // A name that selects nothing passes nothing.
                let mut passed = false;
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    println!("{line}");
                    passed |= line.starts_with("test result: ok. 1 passed");
                }
                passed
            });
            let ok = child.wait()?.success();
            if lines.join().unwrap_or(false) && ok {
                passed.push(name.clone());
            }
        }
        Ok(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
running 3 tests
test a ... ok
test b::c ... FAILED
test d ... FAILED

failures:

---- b::c stdout ----
    not a name
failures:
    b::c
    d

test result: FAILED. 1 passed; 2 failed; 0 ignored
";

    fn reader() -> Reader {
        let mut reader = Reader::default();
        SAID.lines().for_each(|line| reader.line(line));
        reader
    }

    #[test]
    fn what_failed_is_read_with_its_target() {
        let said = "   Compiling x\nerror: test failed, to rerun pass `-p x --test y`\n";
        let mut screen = Vec::new();
        let targets = targets(said.as_bytes(), &mut screen);
        assert_eq!(screen, said.as_bytes());
        assert_eq!(
            reader().failed(targets),
            [Failed {
                target: vec!["-p".into(), "x".into(), "--test".into(), "y".into()],
                names: vec!["b::c".into(), "d".into()],
            }]
        );
    }

    #[test]
    fn what_is_not_known_whole_is_not_tried_again() {
        assert!(reader().failed(Vec::new()).is_empty(), "no target");
        let mut many = reader();
        many.names.push(vec!["e".to_owned(); MOST]);
        assert!(many.failed(vec![Vec::new(); 2]).is_empty(), "too many");
        let mut crashed = reader();
        crashed.line("test result: FAILED. 0 passed; 1 failed");
        assert!(crashed.failed(vec![Vec::new(); 2]).is_empty(), "no list");
    }
}

//! What failed, read from what cargo and its test runner print, and the second try.

use harness::artifact;

use super::said;

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
    /// that crashed has no list). `targets` in the same order, from [`target`].
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

/// How cargo names a target that failed, in a line that it says:
/// ``error: test failed, to rerun pass `-p isostack-agent --test culprits` ``.
pub fn target(line: &str) -> Option<Vec<String>> {
    let (_, rest) = line.split_once("to rerun pass `")?;
    let (target, _) = rest.split_once('`')?;
    Some(target.split_whitespace().map(str::to_owned).collect())
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
            // A name that selects nothing passes nothing.
            let mut has_passed = false;
            let mut cargo = artifact::cargo();
            cargo.arg("test").args(&self.target);
            cargo.args(["--", "--exact", name, "--nocapture"]);
            let ok = said::run(cargo.current_dir(artifact::root()), |stream, line| {
                stream.pass_on(line)?;
                has_passed |= line.starts_with(b"test result: ok. 1 passed");
                Ok(())
            })?;
            if has_passed && ok {
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
        let targets = said.lines().filter_map(target).collect();
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

//! Whether connection tracking had no room: the kernel says only that netfilter dropped a
//! packet, and counts the failures of its table.

use std::{
    collections::HashMap,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Between two readings of one file.
const PERIOD: Duration = Duration::from_millis(100);
/// What failed this recently explains a drop.
const EXPLAINS_FOR: Duration = Duration::from_secs(1);
/// Processes whose namespaces are remembered.
const MAX_KNOWN: usize = 256;
/// Bytes read of a file: one line of 140 for each CPU.
const LIMIT: u64 = 1 << 20;

/// The failures counted in one network namespace.
#[derive(Clone, Copy)]
struct Failures {
    read: Instant,
    count: u64,
    grown: Option<Instant>,
}

/// Looks when it is asked.
pub struct Conntrack {
    procfs: PathBuf,
    known: HashMap<u32, Failures>,
}

impl Conntrack {
    /// Reads `net/stat/nf_conntrack` of processes under `procfs`.
    pub fn new(procfs: &Path) -> Self {
        let mut all = Self {
            procfs: procfs.to_owned(),
            known: HashMap::new(),
        };
        // What failed before the agent started explains nothing.
        all.look(1, Instant::now());
        all
    }

    /// Whether the table of the process's namespace, or of the host's (that of process 1),
    /// refused a connection in the last second.
    pub fn failed(&mut self, pid: u32) -> bool {
        let now = Instant::now();
        self.look(1, now) | (pid != 0 && self.look(pid, now))
    }

    fn look(&mut self, pid: u32, now: Instant) -> bool {
        let known = self.known.get(&pid).copied();
        let current = match known {
            Some(known) if now.duration_since(known.read) < PERIOD => known,
            _ => {
                let count = self.read(pid);
                let grown = match known {
                    Some(before) if count > before.count => Some(now),
                    Some(before) => before.grown,
                    // The first look says nothing of when.
                    None => None,
                };
                let current = Failures {
                    read: now,
                    count,
                    grown,
                };
                if self.known.len() >= MAX_KNOWN {
                    self.known.retain(|pid, _| *pid == 1);
                }
                self.known.insert(pid, current);
                current
            }
        };
        current
            .grown
            .is_some_and(|at| now.duration_since(at) < EXPLAINS_FOR)
    }

    /// 0 where there is no connection tracking.
    fn read(&self, pid: u32) -> u64 {
        let path = self.procfs.join(format!("{pid}/net/stat/nf_conntrack"));
        let mut text = String::new();
        let read = File::open(path).and_then(|file| file.take(LIMIT).read_to_string(&mut text));
        match read {
            Ok(_) => failures(&text),
            Err(_) => 0,
        }
    }
}

/// Sum of `insert_failed`, `drop` and `early_drop` over all CPUs; hexadecimal columns under
/// their names.
fn failures(text: &str) -> u64 {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or("").split_whitespace().collect();
    let mut sum = 0_u64;
    for line in lines {
        for (name, value) in names.iter().zip(line.split_whitespace()) {
            if ["insert_failed", "drop", "early_drop"].contains(name) {
                sum = sum.saturating_add(u64::from_str_radix(value, 16).unwrap_or(0));
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn table(drops: u32) -> String {
        format!(
            "entries  clashres found new invalid ignore delete chainlength insert insert_failed \
             drop early_drop icmp_error  expect_new expect_create expect_delete search_restart\n\
             00000008  00000000 00000000 00000000 0000006b 00000000 00000000 00000001 00000000 \
             00000001 0000000a 00000000 00000000  00000000 00000000 00000000 00000000\n\
             00000008  00000000 00000000 00000000 0000006b 00000000 00000000 00000001 00000000 \
             00000000 {drops:08x} 00000002 00000000  00000000 00000000 00000000 00000000\n"
        )
    }

    #[test]
    fn failures_are_summed_over_cpus() {
        assert_eq!(failures(&table(16)), 1 + 10 + 16 + 2);
        assert_eq!(failures(""), 0);
        assert_eq!(failures("drop\nnothing"), 0);
    }

    #[test]
    fn only_growth_explains_a_drop() {
        let procfs = tempfile::tempdir().unwrap();
        let directory = procfs.path().join("1/net/stat");
        fs::create_dir_all(&directory).unwrap();
        let file = directory.join("nf_conntrack");
        fs::write(&file, table(5)).unwrap();
        let mut conntrack = Conntrack::new(procfs.path());
        let start = Instant::now();
        assert!(!conntrack.look(1, start + PERIOD), "it was so before");
        fs::write(&file, table(6)).unwrap();
        assert!(!conntrack.look(1, start + PERIOD), "not read again yet");
        assert!(conntrack.look(1, start + 2 * PERIOD));
        assert!(!conntrack.look(1, start + 2 * PERIOD + EXPLAINS_FOR));
        assert!(!conntrack.look(77, start), "no such process");
    }
}

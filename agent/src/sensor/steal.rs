//! Steal: the time that the hypervisor took, polled from `/proc/stat`.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use super::Poller;
use crate::{
    event::{Event, Steal},
    time::{MonoNs, TICK_NS},
};

/// Between polls while there is steal, so that it is known when.
const BUSY_NS: u64 = 100_000_000;
/// Between polls while there is none: reading the file costs up to a millisecond on a host
/// with many interrupt lines.
const IDLE_NS: u64 = 1_000_000_000;
/// Steal this recently keeps the poller busy.
const BUSY_FOR_NS: u64 = 10_000_000_000;

/// Compares each reading with the one before.
pub struct StealPoller {
    path: PathBuf,
    last: HashMap<u32, u64>,
    polled: Option<MonoNs>,
    stolen: Option<MonoNs>,
}

impl StealPoller {
    /// Reads `stat` under `procfs`.
    #[must_use]
    pub fn new(procfs: &Path) -> Self {
        Self {
            path: procfs.join("stat"),
            last: HashMap::new(),
            polled: None,
            stolen: None,
        }
    }

    /// Reads the file if it is time for that.
    fn read(&mut self, now: MonoNs, out: &mut Vec<Steal>) -> io::Result<()> {
        let busy = self.stolen.is_some_and(|at| now.since(at) < BUSY_FOR_NS);
        let every = if busy { BUSY_NS } else { IDLE_NS };
        if self.polled.is_some_and(|at| now.since(at) < every) {
            return Ok(());
        }
        let before = self.polled.replace(now);
        let text = fs::read_to_string(&self.path)?;
        self.compare(&text, before, now, out);
        Ok(())
    }

    fn compare(&mut self, text: &str, before: Option<MonoNs>, now: MonoNs, out: &mut Vec<Steal>) {
        for (cpu, ticks) in steal_ticks(text) {
            // A CPU that was taken off and put back starts again from 0.
            let grown = match self.last.insert(cpu, ticks) {
                Some(last) => ticks.saturating_sub(last),
                None => 0,
            };
            if let Some(start) = before
                && grown != 0
            {
                self.stolen = Some(now);
                out.push(Steal {
                    cpu,
                    start,
                    end: now,
                    stolen_ns: grown.saturating_mul(TICK_NS).min(now.since(start)),
                });
            }
        }
    }
}

impl Poller for StealPoller {
    fn poll(&mut self, now: MonoNs, out: &mut Vec<Event>) {
        let mut stolen = Vec::new();
        // The next call tries again.
        if let Err(error) = self.read(now, &mut stolen) {
            tracing::debug!(%error, "Cannot read steal");
        }
        out.extend(stolen.into_iter().map(Event::Steal));
    }
}

/// `(cpu, steal)` of each line `cpuN user nice system idle iowait irq softirq steal ...`.
fn steal_ticks(text: &str) -> impl Iterator<Item = (u32, u64)> {
    text.lines()
        .take_while(|line| line.starts_with("cpu"))
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let cpu = words.next()?.strip_prefix("cpu")?.parse().ok()?;
            Some((cpu, words.nth(7)?.parse().ok()?))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(steal: [u64; 2]) -> String {
        let [a, b] = steal;
        format!(
            "cpu  9 9 9 9 9 9 9 {} 0 0\ncpu0 1 2 3 4 5 6 7 {a} 0 0\ncpu3 1 2 3 4 5 6 7 {b} 0 0\nintr 5\n",
            a + b
        )
    }

    #[test]
    fn only_growth_since_the_last_poll_is_steal_and_never_more_than_the_time_between() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("stat");
        let mut poller = StealPoller::new(dir.path());
        let mut out = Vec::new();
        let s = 1_000_000_000;
        fs::write(&file, stat([100, 7])).unwrap();
        poller.read(MonoNs(s), &mut out).unwrap();
        assert_eq!(out, [], "the first reading is only a start");

        fs::write(&file, stat([100, 10])).unwrap();
        poller.read(MonoNs(2 * s), &mut out).unwrap();
        let expected = Steal {
            cpu: 3,
            start: MonoNs(s),
            end: MonoNs(2 * s),
            stolen_ns: 30_000_000,
        };
        assert_eq!(out, [expected]);

        out.clear();
        fs::write(&file, stat([200, 2])).unwrap();
        poller.read(MonoNs(2 * s + BUSY_NS), &mut out).unwrap();
        assert_eq!(
            out.len(),
            1,
            "busy: polled again soon; a counter that fell is no steal"
        );
        assert_eq!(out[0].stolen_ns, BUSY_NS);
    }

    #[test]
    fn a_quiet_host_is_polled_once_a_second() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("stat"), stat([0, 0])).unwrap();
        let mut poller = StealPoller::new(dir.path());
        let mut out = Vec::new();
        poller.read(MonoNs(IDLE_NS), &mut out).unwrap();
        fs::remove_file(dir.path().join("stat")).unwrap();
        poller
            .read(MonoNs(2 * IDLE_NS - 1), &mut out)
            .expect("not read");
        poller
            .read(MonoNs(2 * IDLE_NS), &mut out)
            .expect_err("read");
    }
}

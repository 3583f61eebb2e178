//! Does the kernel side tell the truth? At the start the agent tracks itself, spends a
//! moment on a CPU, and compares what the kernel side says of that with `/proc`: wrong
//! offsets, clocks or pids show here and not in somebody's verdict.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use super::tracked::Tracked;
use crate::{event::Event, host::roots::Roots, sensor::WhyNot, time::MonoNs, vocabulary::Cause};

/// Longer than the shortest stint that is told of.
const SPIN: Duration = Duration::from_micros(400);
/// The thread may be interrupted in the middle of its stint: it tries again.
const ATTEMPTS: u32 = 20;
/// How long to wait for the record of one attempt: the reader comes by more often.
const PATIENCE: Duration = Duration::from_millis(100);

/// What the kernel side has to say of this process.
pub struct SelfTest {
    pid: u32,
    start_ticks: Option<u64>,
    seen: Arc<Seen>,
}

/// Watches the events go by.
pub struct Observer {
    pid: u32,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    event: Mutex<Option<(u64, MonoNs, MonoNs)>>,
    arrived: Condvar,
}

/// The test and the half of it that sits in the reader.
pub fn prepare(roots: &Roots) -> (SelfTest, Observer) {
    // The host's /proc names this process by the pid that the kernel side sees, even from
    // inside a pid namespace.
    let pid = fs::read_link(roots.procfs.join("self"))
        .ok()
        .and_then(|link| link.to_str()?.parse().ok())
        .unwrap_or_else(std::process::id);
    let start_ticks = fs::read_to_string(roots.procfs.join("self/stat"))
        .ok()
        .and_then(|stat| {
            stat.rsplit_once(')')?
                .1
                .split_ascii_whitespace()
                .nth(19)?
                .parse()
                .ok()
        });
    let seen = Arc::new(Seen::default());
    let observer = Observer {
        pid,
        seen: seen.clone(),
    };
    let test = SelfTest {
        pid,
        start_ticks,
        seen,
    };
    (test, observer)
}

impl Observer {
    /// To be shown every batch.
    pub fn see(&self, batch: &[Event]) {
        let own = batch.iter().find_map(|event| match event {
            Event::Delay(delay) if delay.cause == Cause::OnCpu && delay.process.pid == self.pid => {
                Some((delay.process.start_ticks, delay.start, delay.end))
            }
            _ => None,
        });
        if own.is_some() {
            *self.seen.event.lock() = own;
            self.seen.arrived.notify_all();
        }
    }
}

impl SelfTest {
    /// Runs it; takes some tens of milliseconds when all is well.
    pub fn run(self, tracked: &Tracked) -> Result<(), WhyNot> {
        tracked.set(self.pid, true);
        let result = self.observe();
        tracked.set(self.pid, false);
        result
    }

    fn observe(&self) -> Result<(), WhyNot> {
        let began = MonoNs::now();
        let mut clock_is_wrong = false;
        for _ in 0..ATTEMPTS {
            let spin = Instant::now();
            while spin.elapsed() < SPIN {
                std::hint::spin_loop();
            }
            let mut seen = self.seen.event.lock();
            if seen.is_none() {
                // Blocks, and so ends the stint.
                self.seen.arrived.wait_for(&mut seen, PATIENCE);
            }
            let Some((start_ticks, start, end)) = seen.take() else {
                continue;
            };
            if self.start_ticks.is_some_and(|own| own != start_ticks) {
                return Err(untrue("start time of this process"));
            }
            // The first stint may have begun long before the tracking, on a slow machine that
            // loaded programs all the while; the next cannot.
            let slack = MonoNs(began.0.saturating_sub(1_000_000_000));
            clock_is_wrong = start < slack || end > MonoNs::now();
            if !clock_is_wrong {
                return Ok(());
            }
        }
        if clock_is_wrong {
            return Err(untrue("clock"));
        }
        Err(WhyNot {
            reason: "the program is attached, but nothing it should have told of this process \
                     arrived"
                .to_owned(),
            fix: "give --procfs the host's /proc (in Kubernetes: hostPID), and report the \
                  kernel's version otherwise"
                .to_owned(),
        })
    }
}

fn untrue(what: &str) -> WhyNot {
    WhyNot {
        reason: format!("self-test failed: the program reads another {what} than /proc shows"),
        fix: "report the kernel's version".to_owned(),
    }
}

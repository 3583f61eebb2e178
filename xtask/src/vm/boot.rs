//! Boots guests, a few at a time.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{
    guest,
    kernel::Kernel,
    report::{self, Outcome, Section},
    scenario::Cgroups,
};

/// Guests at a time: each has two virtual CPUs.
const GUESTS: usize = 2;
/// A guest that takes longer hangs.
pub const GUEST_LIMIT: Duration = Duration::from_secs(1800);
/// Likewise for one that runs no test of a sensor.
pub const LOAD_LIMIT: Duration = Duration::from_secs(900);

/// Times that a guest is started whose kernel crashes. A crash for a reason of its own comes
/// again.
const BOOTS: u32 = 3;

/// A guest to be.
pub struct Boot<'k> {
    /// Its kernel.
    pub kernel: &'k Kernel,
    /// How its cgroups are mounted.
    pub cgroups: Cgroups,
    /// The archive of its modules.
    pub modules: Arc<Vec<u8>>,
    /// The archive of what it is to do.
    pub plan: Vec<u8>,
}

/// A guest that has ended.
pub struct Done {
    /// `6.1`
    pub series: &'static str,
    /// `6.1.0-50-cloud-amd64`
    pub release: String,
    /// How its cgroups were mounted.
    pub cgroups: Cgroups,
    /// What it said.
    pub sections: Vec<Section>,
    /// What that means.
    pub outcomes: Vec<Outcome>,
}

/// Boots all; `base` is what they have in common. In the order of `boots`.
pub fn all(boots: VecDeque<Boot<'_>>, base: &[u8], limit: Duration, verbose: bool) -> Vec<Done> {
    let order: Vec<_> = boots.iter().map(|b| (b.kernel.series, b.cgroups)).collect();
    let (queue, done) = (Mutex::new(boots), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..GUESTS {
            scope.spawn(|| {
                loop {
                    let next = queue
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .pop_front();
                    let Some(boot) = next else { break };
                    let ended = boot.run(base, limit, verbose);
                    done.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(ended);
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|d: &Done| order.iter().position(|key| *key == (d.series, d.cgroups)));
    done
}

impl Boot<'_> {
    fn run(&self, base: &[u8], limit: Duration, verbose: bool) -> Done {
        let began = Instant::now();
        let (sections, outcomes) = match self.boot(base, limit) {
            Ok(output) => {
                if verbose {
                    println!("{}\n{}", output.console, output.results);
                }
                (report::sections(&output.results), report::judge(&output))
            }
            Err(error) => (Vec::new(), vec![Outcome::broken(&error)]),
        };
        println!(
            "{} with cgroup {}: {:.0} s",
            self.kernel.release(),
            self.cgroups.name(),
            began.elapsed().as_secs_f64()
        );
        Done {
            series: self.kernel.series,
            release: self.kernel.release().to_owned(),
            cgroups: self.cgroups,
            sections,
            outcomes,
        }
    }

    fn boot(&self, base: &[u8], limit: Duration) -> anyhow::Result<guest::Output> {
        let segments = [base, &self.modules, &self.plan];
        let mut output = guest::boot(&self.kernel.image, &segments, limit)?;
        for _ in 1..BOOTS {
            let Some(why) = report::crash(&output) else {
                break;
            };
            println!(
                "{} with cgroup {} crashed in emulation, once more: {why}",
                self.kernel.release(),
                self.cgroups.name()
            );
            output = guest::boot(&self.kernel.image, &segments, limit)?;
        }
        Ok(output)
    }
}

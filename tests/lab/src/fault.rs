//! The faults: each is put into the running stage, has an effect that the kernel's or the
//! application's own books show, and is taken out again.

pub mod cpu;
pub mod disk;
mod flushes;
pub mod memory;
pub mod network;
pub mod translation;

use harness::process::Process;

use crate::{
    plan::{Fault, Kind},
    stage::Stage,
};

/// What an injection was measured to do, independently of the agent.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Effect {
    /// The measure in words, with its number.
    pub what: String,
    /// Whether there was an effect at all; without, the run is void.
    pub there: bool,
    /// Milliseconds that the victim lost, all threads and requests together, where it is that
    /// which was measured.
    #[serde(default)]
    pub lost_ms: Option<f64>,
}

/// Least that each request loses on average.
const LEAST_LOST_MS: f64 = 5.0;

impl Effect {
    /// Of what came of it for so many requests: where there were none, or they hardly lost
    /// anything, there is nothing to be answered.
    #[must_use]
    pub fn felt_by(mut self, requests: usize) -> Self {
        let lost = self.lost_ms.map(|ms| ms / requests.max(1) as f64);
        if self.there && requests == 0 {
            self.what += "; no request lay in that time";
        }
        if let Some(lost) = lost {
            self.what += &format!(", {lost:.1} ms a request");
        }
        self.there &= requests > 0 && lost.is_none_or(|lost| lost >= LEAST_LOST_MS);
        self
    }
}

type Measure = Box<dyn FnOnce(&Stage) -> anyhow::Result<Effect>>;

/// A fault that is in place; taken out on drop.
pub struct Active {
    processes: Vec<Process>,
    undo: Vec<Box<dyn FnOnce()>>,
    measure: Option<Measure>,
}

impl Active {
    /// One whose effect is measured so, just before it is taken out.
    pub fn measured_by(measure: impl FnOnce(&Stage) -> anyhow::Result<Effect> + 'static) -> Self {
        Self {
            processes: Vec::new(),
            undo: Vec::new(),
            measure: Some(Box::new(measure)),
        }
    }

    /// With something to do when it is taken out.
    #[must_use]
    pub fn undone_by(mut self, undo: impl FnOnce() + 'static) -> Self {
        self.undo.push(Box::new(undo));
        self
    }

    /// With processes that end when it is taken out.
    #[must_use]
    pub fn with(mut self, processes: Vec<Process>) -> Self {
        self.processes.extend(processes);
        self
    }

    /// Measures, and takes it out.
    ///
    /// # Errors
    /// When the measure cannot be read.
    pub fn remove(mut self, stage: &Stage) -> anyhow::Result<Effect> {
        let measure = self.measure.take();
        measure.map_or_else(|| Ok(Effect::default()), |measure| measure(stage))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        for undo in self.undo.drain(..) {
            undo();
        }
    }
}

/// Puts a fault in. Those of the application come with the requests: see
/// [`crate::plan::Spec::script`].
///
/// # Errors
/// When the machine refuses.
pub fn inject(fault: &Fault, stage: &Stage) -> anyhow::Result<Active> {
    match fault.kind {
        Kind::OwnQuota | Kind::ClientQuota => cpu::quota(fault.victim.group(), fault, stage),
        Kind::ParentQuota => cpu::quota("shop", fault, stage),
        Kind::CpuNeighbour => cpu::neighbour(fault, stage),
        Kind::RateLimit => network::rate_limit(fault, stage),
        Kind::Loss => network::loss(fault, stage),
        Kind::Refused => network::refused(fault, stage),
        Kind::UdpFlood => network::udp_flood(fault, stage),
        Kind::ListenOverflow => network::listen_overflow(fault, stage),
        Kind::SnatExhausted => translation::exhausted(fault, stage),
        Kind::IoLimit => disk::limit(fault, stage),
        Kind::DiskNeighbour | Kind::Writeback | Kind::FsyncStorm => disk::neighbour(fault, stage),
        Kind::SlowDevice => disk::slow(fault, stage),
        Kind::MemoryLimit => memory::limit(fault, stage),
        Kind::MemoryNeighbour => memory::neighbour(fault, stage),
        Kind::OomKill => memory::oom(fault, stage),
        Kind::GcPause => memory::collections(stage),
        Kind::LockConvoy
        | Kind::SlowCode
        | Kind::SlowStore
        | Kind::SlowPeer
        | Kind::SeccompSandbox
        | Kind::SeccompContainer => Ok(Active::measured_by(|_| {
            // The requests carry it, and their answers say that they were served.
            Ok(Effect {
                what: "asked for with each request".to_owned(),
                there: true,
                ..Effect::default()
            })
        })),
    }
}

/// Between two ends, by strength (0 the first, 1 the second).
#[must_use]
pub fn between(from: f64, to: f64, strength: f64) -> f64 {
    from + (to - from) * strength
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_request_felt_has_no_effect() {
        let waited = Effect {
            what: "schedstat: 210 ms waited".to_owned(),
            there: true,
            lost_ms: Some(210.0),
        };
        let there = |requests| waited.clone().felt_by(requests).there;
        assert!(there(42));
        assert!(!there(43), "less than 5 ms each");
        assert!(!there(0));
        let counted = Effect {
            lost_ms: None,
            ..waited.clone()
        };
        assert!(counted.clone().felt_by(1_000).there);
        assert!(!counted.felt_by(0).there);
        let none = Effect {
            there: false,
            ..waited.clone()
        };
        assert!(!none.felt_by(1).there);
    }
}

//! What the hypervisor took from each CPU, by poll interval.

use std::collections::VecDeque;

use crate::{event::Steal, time::MonoNs};

/// CPUs known to the log; the kernel's own limit is 8 192.
const MAX_CPUS: usize = 8_192;
/// Samples kept of one CPU: a window of 120 s polled 20 times a second.
const MAX_SAMPLES: usize = 2_400;

#[derive(Clone, Copy, Debug)]
struct Sample {
    start: u64,
    end: u64,
    stolen_ns: u64,
}

/// Samples with steal in them, disjoint and in order of time for each CPU.
#[derive(Debug, Default)]
pub(super) struct StealLog {
    cpus: Vec<VecDeque<Sample>>,
}

impl StealLog {
    pub(super) fn add(&mut self, steal: &Steal, horizon: MonoNs) -> Option<()> {
        let cpu = usize::try_from(steal.cpu)
            .ok()
            .filter(|cpu| *cpu < MAX_CPUS)?;
        if self
            .cpus
            .get(cpu)
            .and_then(VecDeque::back)
            .is_some_and(|s| s.end > steal.start.0)
        {
            return None;
        }
        if steal.stolen_ns == 0 {
            return Some(());
        }
        if self.cpus.len() <= cpu {
            self.cpus.resize_with(cpu + 1, VecDeque::new);
        }
        let samples = &mut self.cpus[cpu];
        while samples.len() >= MAX_SAMPLES || samples.front().is_some_and(|s| s.end < horizon.0) {
            samples.pop_front();
        }
        samples.push_back(Sample {
            start: steal.start.0,
            end: steal.end.0,
            stolen_ns: steal.stolen_ns,
        });
        Some(())
    }

    pub(super) fn stolen_ns(&self, cpu: u16, start: u64, end: u64) -> u64 {
        let Some(samples) = self.cpus.get(usize::from(cpu)) else {
            return 0;
        };
        let first = samples.partition_point(|s| s.end <= start);
        let overlapping = samples.range(first..).take_while(|s| s.start < end);
        let stolen: u64 = overlapping
            .map(|s| {
                let overlap = s.end.min(end) - s.start.max(start);
                let length = s.end - s.start;
                // /proc/stat counts in ticks: more than the interval can come out.
                let stolen = u128::from(s.stolen_ns.min(length)) * u128::from(overlap);
                (stolen / u128::from(length)) as u64
            })
            .sum();
        stolen.min(end.saturating_sub(start))
    }

    pub(super) fn expire(&mut self, horizon: MonoNs) {
        for samples in &mut self.cpus {
            while samples.front().is_some_and(|s| s.end < horizon.0) {
                samples.pop_front();
            }
        }
    }
}

//! `cpu`: throttled intervals and run-queue delay per task and cgroup (steal: see
//! [`super::steal`]).

use agent_common::event::{
    Record,
    cpu::{KIND_ON_CPU, KIND_RUNQUEUE, KIND_THROTTLED},
    sensor,
};

use super::{
    DecodeError, Hook, HookKind, Interpreter, Kernel, Meaning, Poller, Probe, Sensor,
    steal::StealPoller,
};
use crate::{
    event::{Confinement, Particulars},
    host::roots::Roots,
    vocabulary::Cause,
};

/// The sensor.
pub struct Cpu;

/// Name in metrics and `doctor`.
pub const NAME: &str = "cpu";

const PROBES: &[Probe] = &[
    Probe::essential(&[
        Hook {
            program: "cpu_switch",
            kind: HookKind::TpBtf,
            target: "sched_switch",
            loses: "",
        },
        Hook {
            program: "cpu_switch_raw",
            kind: HookKind::RawTp,
            target: "sched_switch",
            loses: "nothing but CPU time: its reads of kernel memory cost more per switch",
        },
    ]),
    Probe::optional(
        &[Hook::raw_tp("cpu_hotplug", "cpuhp_exit")],
        "that a CPU was taken away: it counts as idle for a minute",
    ),
];

impl Sensor for Cpu {
    fn id(&self) -> u32 {
        sensor::CPU
    }

    fn name(&self) -> &'static str {
        NAME
    }

    fn probes(&self) -> &'static [Probe] {
        PROBES
    }

    fn constants(&self, _: &Kernel<'_>) -> Vec<(&'static str, u64)> {
        // SAFETY: takes a number and returns one.
        let online = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
        vec![("CPUS", u64::try_from(online).unwrap_or(0))]
    }

    fn interpreter(&self, _: &Kernel<'_>) -> Box<dyn Interpreter> {
        Box::new(CpuInterpreter)
    }

    fn poller(&self, roots: &Roots) -> Option<Box<dyn Poller>> {
        Some(Box::new(StealPoller::new(&roots.procfs)))
    }
}

struct CpuInterpreter;

impl Interpreter for CpuInterpreter {
    fn record(&mut self, record: &Record) -> Result<Meaning, DecodeError> {
        if record.pid == 0 || record.tid == 0 {
            return Err(DecodeError::Impossible("process id 0"));
        }
        match record.kind {
            KIND_THROTTLED => Ok(Meaning {
                cause: Cause::CpuThrottle,
                particulars: Particulars::QuotaOf(record.detail),
            }),
            KIND_RUNQUEUE => Ok(Meaning {
                cause: Cause::Runqueue,
                particulars: match (record.detail, record.extra) {
                    // Its own threads, or nobody, had the CPUs that it may use.
                    (had, cpus) if cpus != 0 && (had == 0 || had == record.cgroup_id) => {
                        Particulars::Confined(Confinement { cpus })
                    }
                    (0, _) => Particulars::None,
                    (cgroup_id, _) => Particulars::CpuWentTo(cgroup_id),
                },
            }),
            KIND_ON_CPU => Ok(Cause::OnCpu.into()),
            kind => Err(DecodeError::Unknown {
                sensor: record.sensor,
                kind,
            }),
        }
    }
}

#[cfg(test)]
mod tests;

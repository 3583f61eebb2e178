//! `process`: processes that run another program or move to another cgroup, and cgroups that
//! are removed. Nobody's delay: it tells when what is known of them must be looked at again,
//! so that it need not be looked at every few seconds.

use agent_common::event::{
    Record,
    process::{KIND_EXEC, KIND_GROUP_REMOVED, KIND_MOVED},
    sensor,
};

use super::{DecodeError, Hook, Interpreter, Kernel, Meaning, Probe, Sensor, decode::process_of};
use crate::event::Change;

/// The sensor.
pub struct Process;

/// Its name.
pub const NAME: &str = "process";

const PROBES: &[Probe] = &[
    Probe::essential(&[Hook::raw_tp("process_exec", "sched_process_exec")]),
    Probe::essential(&[Hook::raw_tp("process_attach", "cgroup_attach_task")]),
    Probe::essential(&[Hook::raw_tp("process_rmdir", "cgroup_rmdir")]),
    Probe::optional(
        &[Hook::raw_tp("process_transfer", "cgroup_transfer_tasks")],
        "moves out of a cpuset that lost its CPUs",
    ),
];

impl Sensor for Process {
    fn id(&self) -> u32 {
        sensor::PROCESS
    }

    fn name(&self) -> &'static str {
        NAME
    }

    fn probes(&self) -> &'static [Probe] {
        PROBES
    }

    fn interpreter(&self, _: &Kernel<'_>) -> Box<dyn Interpreter> {
        Box::new(ProcessInterpreter)
    }
}

struct ProcessInterpreter;

impl ProcessInterpreter {
    fn unknown(record: &Record) -> DecodeError {
        DecodeError::Unknown {
            sensor: record.sensor,
            kind: record.kind,
        }
    }
}

impl Interpreter for ProcessInterpreter {
    fn record(&mut self, record: &Record) -> Result<Meaning, DecodeError> {
        Err(Self::unknown(record))
    }

    fn change(&mut self, record: &Record) -> Result<Option<Change>, DecodeError> {
        match record.kind {
            KIND_EXEC | KIND_MOVED => Ok(Some(Change::Process {
                process: process_of(record),
                cgroup_id: record.cgroup_id,
            })),
            KIND_GROUP_REMOVED => Ok(Some(Change::GroupRemoved(record.cgroup_id))),
            _ => Err(Self::unknown(record)),
        }
    }
}

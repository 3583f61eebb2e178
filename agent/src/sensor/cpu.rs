//! `cpu`: throttled intervals and run-queue delay per task and cgroup (steal: see
//! [`super::steal`]).

use agent_common::event::{
    cpu::{CpuEvent, KIND_ON_CPU, KIND_RUNQUEUE, KIND_THROTTLED},
    sensor,
};

use super::{DecodeError, Hook, HookKind, Sensor, WhyNot};
use crate::{
    event::{Delay, Event},
    host::btf::FieldOffsets,
    process::ProcessKey,
    time::MonoNs,
    vocabulary::Cause,
};

/// The sensor.
pub struct Cpu;

/// Name in metrics and `doctor`.
pub const NAME: &str = "cpu";

const HOOKS: &[Hook] = &[
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
];

/// A tick of `start_ticks` (USER_HZ is 100 on every architecture that the agent runs on).
const TICK_NS: u64 = 10_000_000;

impl Sensor for Cpu {
    fn id(&self) -> u32 {
        sensor::CPU
    }

    fn hooks(&self) -> &'static [Hook] {
        HOOKS
    }

    fn check(&self, fields: &FieldOffsets) -> Result<(), WhyNot> {
        let missing = fields.missing();
        if !missing.is_empty() {
            return Err(WhyNot {
                reason: format!("this kernel has no {}", missing.join(", ")),
                fix: "use a kernel from 5.10 on, built with CONFIG_SCHED_INFO, \
                      CONFIG_FAIR_GROUP_SCHED and CONFIG_CGROUP_SCHED"
                    .to_owned(),
            });
        }
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Event, DecodeError> {
        let event = view(bytes)?;
        let cause = match event.kind {
            KIND_THROTTLED => Cause::CpuThrottle,
            KIND_RUNQUEUE => Cause::Runqueue,
            KIND_ON_CPU => Cause::OnCpu,
            kind => {
                return Err(DecodeError::Unknown {
                    sensor: event.sensor,
                    kind,
                });
            }
        };
        if event.end_ns < event.start_ns {
            return Err(DecodeError::Impossible("end before its start"));
        }
        if event.pid == 0 || event.tid == 0 {
            return Err(DecodeError::Impossible("process id 0"));
        }
        Ok(Event::Delay(Delay {
            cause,
            start: MonoNs(event.start_ns),
            end: MonoNs(event.end_ns),
            process: ProcessKey {
                pid: event.pid,
                start_ticks: event.leader_start_boottime_ns / TICK_NS,
            },
            tid: event.tid,
            cpu: event.cpu,
            cgroup_id: event.cgroup_id,
            limiter_cgroup_id: event.limiter_cgroup_id,
            limiter: None,
        }))
    }
}

/// The record in `bytes`, if they have its length and belong to this sensor.
fn view(bytes: &[u8]) -> Result<CpuEvent, DecodeError> {
    if bytes.len() != size_of::<CpuEvent>() {
        return Err(DecodeError::Length(bytes.len()));
    }
    // SAFETY: the length was checked, any bytes are a valid `CpuEvent` (integers only), and
    // an unaligned read asks nothing of the address.
    let event = unsafe { bytes.as_ptr().cast::<CpuEvent>().read_unaligned() };
    if event.sensor != sensor::CPU {
        return Err(DecodeError::Unknown {
            sensor: event.sensor,
            kind: event.kind,
        });
    }
    Ok(event)
}

#[cfg(test)]
mod tests;

//! `context`: which span a thread was working on when it left the CPU, where its program
//! publishes that (OpenTelemetry, OTEP 4947). [`crate::host::thread_context`] finds out where.

use agent_common::event::{
    Record,
    context::{KIND_AWAY, TRACE_ONLY, UNREADABLE},
    sensor,
};

use super::{
    Activation, DecodeError, Hook, HookKind, Interpreter, Kernel, Meaning, Probe, Sensor, WhyNot,
    decode,
};
use crate::{
    event::{Away, Event, ThreadContext},
    time::MonoNs,
};

/// The sensor.
pub struct Context;

const PROBES: &[Probe] = &[Probe::essential(&[
    Hook {
        program: "context_switch",
        kind: HookKind::TpBtf,
        target: "sched_switch",
        loses: "",
    },
    Hook {
        program: "context_switch_raw",
        kind: HookKind::RawTp,
        target: "sched_switch",
        loses: "nothing but CPU time: its reads of kernel memory cost more per switch",
    },
])];

impl Sensor for Context {
    fn id(&self) -> u32 {
        sensor::CONTEXT
    }

    fn name(&self) -> &'static str {
        "context"
    }

    fn probes(&self) -> &'static [Probe] {
        PROBES
    }

    fn check(&self, _: &Kernel<'_>) -> Result<(), WhyNot> {
        if cfg!(target_arch = "x86_64") {
            return Ok(());
        }
        Err(WhyNot {
            reason: "where a thread's own memory lies is known for x86-64 only".to_owned(),
            fix: "nothing: spans are joined by the other ways".to_owned(),
        })
    }

    fn interpreter(&self, _: &Kernel<'_>) -> Box<dyn Interpreter> {
        Box::new(ContextInterpreter)
    }

    fn activation(&self) -> Activation {
        Activation::WhilePublishing
    }

    fn epoch(&self) -> Option<&'static str> {
        Some("CONTEXT_EPOCH")
    }
}

struct ContextInterpreter;

impl Interpreter for ContextInterpreter {
    fn event(&mut self, record: &Record) -> Result<Event, DecodeError> {
        if record.kind != KIND_AWAY {
            return Err(DecodeError::Unknown {
                sensor: record.sensor,
                kind: record.kind,
            });
        }
        if record.pid == 0 || record.tid == 0 {
            return Err(DecodeError::Impossible("process id 0"));
        }
        if record.extra & UNREADABLE != 0 {
            return Err(DecodeError::Unreadable);
        }
        Ok(Event::Away(Away {
            process: decode::process_of(record),
            tid: record.tid,
            start: MonoNs(record.start_ns),
            end: MonoNs(record.end_ns),
            context: ThreadContext {
                trace: record.cgroup_id.to_ne_bytes(),
                span: record.detail.to_ne_bytes(),
                is_trace_only: record.extra & TRACE_ONLY != 0,
            },
        }))
    }

    fn record(&mut self, record: &Record) -> Result<Meaning, DecodeError> {
        Err(DecodeError::Unknown {
            sensor: record.sensor,
            kind: record.kind,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            sensor: sensor::CONTEXT,
            kind: KIND_AWAY,
            start_ns: 1_000,
            end_ns: 2_000,
            cgroup_id: u64::from_ne_bytes(*b"trace-id"),
            detail: u64::from_ne_bytes(*b"span--id"),
            leader_start_boottime_ns: 30_000_000,
            pid: 7,
            tid: 8,
            cpu: 0,
            extra: 0,
        }
    }

    #[test]
    fn ids_come_out_as_they_lie_in_memory() {
        let event = ContextInterpreter.event(&record());
        let Ok(Event::Away(away)) = event else {
            panic!("{event:?}");
        };
        assert_eq!((away.process.pid, away.process.start_ticks), (7, 3));
        assert_eq!((away.start.0, away.end.0, away.tid), (1_000, 2_000, 8));
        assert_eq!(&away.context.trace, b"trace-id");
        assert_eq!(&away.context.span, b"span--id");
        assert!(!away.context.is_none());
    }

    #[test]
    fn what_could_not_be_read_is_no_context() {
        let unreadable = Record {
            extra: UNREADABLE,
            ..record()
        };
        assert_eq!(
            ContextInterpreter.event(&unreadable),
            Err(DecodeError::Unreadable)
        );
    }
}

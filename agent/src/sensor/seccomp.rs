//! `seccomp`: system calls that a filter refused, named.

use std::{collections::HashMap, sync::Arc};

use agent_common::{
    event::{
        Record,
        seccomp::{ACTION_ERRNO, ACTION_KILL, ACTION_TRAP, KIND_DENIED},
        sensor,
    },
    series::{SeriesKey, family},
};
use syscalls::Sysno;

use super::{
    Activation, DecodeError, Family, FamilyKind, Hook, HookKind, Interpreter, Kernel, Meaning,
    Probe, Sensor, system_calls::name,
};
use crate::{
    event::{Particulars, SystemCall},
    vocabulary::Cause,
};

/// When the sensor runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SeccompMode {
    /// Never.
    Off,
    /// While processes under a filter send spans.
    #[default]
    Auto,
    /// Always; the start fails if it cannot.
    On,
}

/// The sensor.
pub struct Seccomp;

const RAW_LOSES: &str = "nothing but CPU time: this kind of hook costs more per system call";

const PROBES: &[Probe] = &[
    Probe::essential(&[
        Hook {
            program: "seccomp_enter",
            kind: HookKind::TpBtf,
            target: "sys_enter",
            loses: "",
        },
        Hook {
            program: "seccomp_enter_raw",
            kind: HookKind::RawTp,
            target: "sys_enter",
            loses: RAW_LOSES,
        },
    ]),
    Probe::essential(&[
        Hook {
            program: "seccomp_exit",
            kind: HookKind::TpBtf,
            target: "sys_exit",
            loses: "",
        },
        Hook {
            program: "seccomp_exit_raw",
            kind: HookKind::RawTp,
            target: "sys_exit",
            loses: RAW_LOSES,
        },
    ]),
    Probe::optional(
        &[Hook::raw_tp("seccomp_dead", "sched_process_exit")],
        "refusals that end the process",
    ),
];

const FAMILIES: &[Family] = &[Family {
    id: family::SECCOMP_DENIALS,
    name: "isostack_seccomp_denials",
    help: "System calls refused by a seccomp filter.",
    kind: FamilyKind::Counter,
    labels: &["syscall", "action"],
}];

/// Different refusals remembered; an application knows far fewer system calls.
const MAX_REMEMBERED: usize = 4096;

impl Sensor for Seccomp {
    fn id(&self) -> u32 {
        sensor::SECCOMP
    }

    fn name(&self) -> &'static str {
        "seccomp"
    }

    fn probes(&self) -> &'static [Probe] {
        PROBES
    }

    fn interpreter(&self, _: &Kernel<'_>) -> Box<dyn Interpreter> {
        Box::new(SeccompInterpreter::default())
    }

    fn families(&self) -> &'static [Family] {
        FAMILIES
    }

    fn activation(&self) -> Activation {
        Activation::WhileFiltered
    }

    fn epoch(&self) -> Option<&'static str> {
        Some("SECCOMP_EPOCH")
    }

    fn arrays(&self, _: &Kernel<'_>) -> Vec<(&'static str, Vec<u32>)> {
        let mut born_in = vec![0; 512];
        for call in ["clone", "clone3", "fork", "vfork", "execve", "execveat"] {
            // Not every architecture has all of them.
            let number = call.parse::<Sysno>().ok().map(|call| call.id() as usize);
            if let Some(born) = number.and_then(|number| born_in.get_mut(number)) {
                *born = 1;
            }
        }
        vec![("BORN_IN", born_in)]
    }
}

#[derive(Default)]
struct SeccompInterpreter(HashMap<(u64, u32), Arc<SystemCall>>);

impl Interpreter for SeccompInterpreter {
    fn record(&mut self, record: &Record) -> Result<Meaning, DecodeError> {
        if record.kind != KIND_DENIED {
            return Err(DecodeError::Unknown {
                sensor: record.sensor,
                kind: record.kind,
            });
        }
        if self.0.len() >= MAX_REMEMBERED {
            self.0.clear();
        }
        let call = self
            .0
            .entry((record.detail, record.extra))
            .or_insert_with(|| {
                Arc::new(SystemCall {
                    name: name(record.detail),
                    action: action(record.extra).to_owned(),
                })
            });
        Ok(Meaning {
            cause: Cause::SeccompDenied,
            particulars: Particulars::SystemCall(Arc::clone(call)),
        })
    }

    fn labels(&mut self, key: &SeriesKey) -> Vec<String> {
        vec![name(key.b), action(key.a).to_owned()]
    }
}

fn action(number: u32) -> &'static str {
    match number {
        ACTION_ERRNO => "errno",
        ACTION_TRAP => "trap",
        ACTION_KILL => "kill",
        _ => "other",
    }
}

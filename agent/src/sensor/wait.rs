//! `wait`: what the threads of processes that send spans are blocked in.

use std::{collections::HashMap, sync::Arc};

use agent_common::{
    event::{
        Record, sensor,
        wait::{
            BY_FILE, KIND_DISK, KIND_LOCK, KIND_MEMORY, KIND_SLEEP, KIND_SOCKET, MAX_CALLS, NO_CALL,
        },
    },
    series::{SeriesKey, family},
};
use syscalls::Sysno;

use super::{
    Activation, DecodeError, Family, FamilyKind, Hook, HookKind, Interpreter, Kernel, Meaning,
    Probe, Sensor, WhyNot, system_calls::name,
};
use crate::{
    event::{Particulars, SystemCall},
    vocabulary::Cause,
};

/// The sensor.
pub struct Wait;

const PROBES: &[Probe] = &[Probe::essential(&[
    Hook {
        program: "wait_switch",
        kind: HookKind::TpBtf,
        target: "sched_switch",
        loses: "",
    },
    Hook {
        program: "wait_switch_raw",
        kind: HookKind::RawTp,
        target: "sched_switch",
        loses: "nothing but CPU time: its reads of kernel memory cost more per switch",
    },
])];

const FAMILIES: &[Family] = &[Family {
    id: family::WAIT,
    name: "isostack_wait_seconds",
    help: "Stretches in which a thread of a process that sends spans was blocked.",
    kind: FamilyKind::Histogram,
    labels: &["kind"],
}];

/// What a thread waits for in each of these system calls. Those not named are `other`.
const CALLS: &[(u32, &[&str])] = &[
    (
        KIND_LOCK,
        &[
            "futex",
            "futex_wait",
            "futex_waitv",
            "flock",
            // A child process, see `pipeline::kills`.
            "wait4",
            "waitid",
        ],
    ),
    (KIND_SLEEP, &["nanosleep", "clock_nanosleep", "pause"]),
    (
        KIND_SOCKET,
        &[
            "accept",
            "accept4",
            "connect",
            "recvfrom",
            "recvmmsg",
            "recvmsg",
            "sendmmsg",
            "sendmsg",
            "sendto",
            "epoll_pwait",
            "epoll_pwait2",
            "epoll_wait",
            "poll",
            "ppoll",
            "pselect6",
            "select",
            "io_uring_enter",
        ],
    ),
    (
        KIND_DISK,
        &[
            "fdatasync",
            "fsync",
            "msync",
            "sync",
            "sync_file_range",
            "syncfs",
            "openat",
            "open",
            "rename",
            "renameat2",
            "unlink",
            "unlinkat",
            "fallocate",
            "ftruncate",
            "getdents64",
            "io_getevents",
            "io_submit",
            "newfstatat",
            "statx",
            "mkdirat",
            "readahead",
            "fadvise64",
        ],
    ),
    (
        BY_FILE,
        &[
            "pread64", "preadv", "preadv2", "pwrite64", "pwritev", "pwritev2", "read", "readv",
            "write", "writev",
        ],
    ),
];

/// Different system calls remembered.
const MAX_REMEMBERED: usize = 4096;

impl Sensor for Wait {
    fn id(&self) -> u32 {
        sensor::WAIT
    }

    fn name(&self) -> &'static str {
        "wait"
    }

    fn probes(&self) -> &'static [Probe] {
        PROBES
    }

    fn check(&self, kernel: &Kernel<'_>) -> Result<(), WhyNot> {
        let known = kernel.fields.has("PT_REGS_SYSCALLNO")
            || ["PT_REGS_ORIG_AX", "PT_REGS_CX", "PT_REGS_IP"]
                .iter()
                .all(|field| kernel.fields.has(field));
        if known {
            return Ok(());
        }
        Err(WhyNot {
            reason: "the registers of a system call are not known on this architecture".to_owned(),
            fix: "use x86-64 or arm64".to_owned(),
        })
    }

    fn interpreter(&self, _: &Kernel<'_>) -> Box<dyn Interpreter> {
        Box::new(WaitInterpreter::default())
    }

    fn families(&self) -> &'static [Family] {
        FAMILIES
    }

    fn activation(&self) -> Activation {
        Activation::WhileTracking
    }

    fn arrays(&self, _: &Kernel<'_>) -> Vec<(&'static str, Vec<u32>)> {
        let mut kinds = vec![0; MAX_CALLS as usize];
        for (kind, calls) in CALLS {
            for call in *calls {
                // Not every architecture has all of them.
                let number = call.parse::<Sysno>().ok().map(|call| call.id() as usize);
                if let Some(of_call) = number.and_then(|number| kinds.get_mut(number)) {
                    *of_call = *kind;
                }
            }
        }
        vec![("CALL_KINDS", kinds)]
    }
}

#[derive(Default)]
struct WaitInterpreter(HashMap<u64, Arc<SystemCall>>);

impl Interpreter for WaitInterpreter {
    fn record(&mut self, record: &Record) -> Result<Meaning, DecodeError> {
        let cause = match record.kind {
            KIND_LOCK => Cause::LockWait,
            KIND_SLEEP => Cause::Sleep,
            KIND_SOCKET => Cause::SocketWait,
            // What the disk sensor saw of it counts before this; the rest is waiting for the
            // device, for others' requests or for the file system's journal.
            KIND_DISK => Cause::BlockQueue,
            KIND_MEMORY => Cause::MemoryReclaim,
            // What has no name is only counted.
            kind => {
                return Err(DecodeError::Unknown {
                    sensor: record.sensor,
                    kind,
                });
            }
        };
        if self.0.len() >= MAX_REMEMBERED {
            self.0.clear();
        }
        let call = self.0.entry(record.detail).or_insert_with(|| {
            Arc::new(SystemCall {
                name: match record.detail {
                    NO_CALL => String::new(),
                    call => name(call),
                },
                action: String::new(),
            })
        });
        Ok(Meaning {
            cause,
            particulars: Particulars::SystemCall(Arc::clone(call)),
        })
    }

    fn labels(&mut self, key: &SeriesKey) -> Vec<String> {
        let kind = match key.a {
            KIND_LOCK => "lock",
            KIND_SLEEP => "sleep",
            KIND_SOCKET => "socket",
            KIND_DISK => "disk",
            KIND_MEMORY => "memory",
            _ => "other",
        };
        vec![kind.to_owned()]
    }
}

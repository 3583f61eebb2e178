//! `wait`: what the threads of processes that send spans are blocked in.

use std::{collections::HashMap, sync::Arc};

use agent_common::{
    event::{
        Record, sensor,
        wait::{
            BY_FILE, KIND_DISK, KIND_LOCK, KIND_MAJOR_FAULT, KIND_MEMORY, KIND_REFAULT, KIND_SLEEP,
            KIND_SOCKET, KIND_SWAP_IN, MAX_CALLS, NO_CALL,
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
    host::functions::{self, Function},
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

/// What a thread may be blocked in that touched memory, by the constants of the kernel side that
/// say where it is, and all names that it has had.
const FUNCTIONS: &[(&str, &str, &[&str])] = &[
    ("FN_FREE_PAGES", "FN_FREE_PAGES_END", &["try_to_free_pages"]),
    (
        "FN_FREE_CGROUP_PAGES",
        "FN_FREE_CGROUP_PAGES_END",
        &["try_to_free_mem_cgroup_pages"],
    ),
    ("FN_SWAP_IN", "FN_SWAP_IN_END", &["do_swap_page"]),
    (
        "FN_SHMEM_SWAP_IN",
        "FN_SHMEM_SWAP_IN_END",
        &["shmem_swapin_folio", "shmem_swapin_page"],
    ),
    ("FN_FAULT", "FN_FAULT_END", &["handle_mm_fault"]),
];

/// In place of a system call's number: a major fault.
const FAULT: u64 = NO_CALL - 1;

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

    fn reduced(&self, kernel: &Kernel<'_>) -> Option<(String, &'static str)> {
        let reason = functions::hidden(kernel.roots)?;
        Some((reason, "swap-in is told as a page fault like any other"))
    }

    fn constants(&self, kernel: &Kernel<'_>) -> Vec<(&'static str, u64)> {
        let names: Vec<&[&str]> = FUNCTIONS.iter().map(|(.., names)| *names).collect();
        let found = functions::find(kernel.roots, &names);
        let constants = FUNCTIONS
            .iter()
            .zip(found)
            .filter_map(|(constants, found)| {
                let ((begin, end, _), Function { start, end: until }) = (constants, found?);
                Some([(*begin, start), (*end, until)])
            });
        constants.flatten().collect()
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
            KIND_DISK | KIND_MAJOR_FAULT => Cause::BlockQueue,
            KIND_MEMORY | KIND_REFAULT => Cause::MemoryReclaim,
            KIND_SWAP_IN => {
                return Ok(Meaning {
                    cause: Cause::MemoryReclaim,
                    particulars: Particulars::Memory {
                        memcg: false,
                        limit: None,
                        is_swap_in: true,
                    },
                });
            }
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
        let is_fault = matches!(record.kind, KIND_MAJOR_FAULT | KIND_REFAULT);
        // A fault may be one of the kernel's in a system call: that is not what it waits for.
        let number = if is_fault { FAULT } else { record.detail };
        let call = self.0.entry(number).or_insert_with(|| {
            Arc::new(SystemCall {
                name: match number {
                    FAULT => SystemCall::MAJOR_FAULT.to_owned(),
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
            KIND_SWAP_IN => "swap_in",
            KIND_MAJOR_FAULT => "major_fault",
            KIND_REFAULT => "refault",
            _ => "other",
        };
        vec![kind.to_owned()]
    }
}

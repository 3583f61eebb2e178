//! `memory`: direct reclaim, reclaim for a memory cgroup's limit, out-of-memory kills.

use agent_common::{
    consumption::KIND_CONSUMED,
    event::{
        Record,
        memory::{KIND_DIRECT_RECLAIM, KIND_HIGH_SLEEP, KIND_MEMCG_RECLAIM, KIND_OOM_KILL},
        sensor,
    },
    series::{SeriesKey, family},
};

use super::{
    DecodeError, Family, FamilyKind, Hook, Interpreter, Kernel, Meaning, Probe, Sensor,
    decode::{consumption, delay},
};
use crate::{
    event::{Event, Particulars, Resource},
    vocabulary::Cause,
};

/// The sensor.
pub struct Memory;

const PROBES: &[Probe] = &[
    Probe::essential(&[Hook::raw_tp(
        "memory_memcg_begin",
        "mm_vmscan_memcg_reclaim_begin",
    )]),
    Probe::essential(&[Hook::raw_tp(
        "memory_memcg_end",
        "mm_vmscan_memcg_reclaim_end",
    )]),
    Probe::essential(&[Hook::raw_tp(
        "memory_direct_begin",
        "mm_vmscan_direct_reclaim_begin",
    )]),
    Probe::essential(&[Hook::raw_tp(
        "memory_direct_end",
        "mm_vmscan_direct_reclaim_end",
    )]),
    Probe::optional(
        &[Hook::raw_tp("memory_mark_victim", "mark_victim")],
        OOM_KILLS,
    ),
    Probe::optional(
        &[Hook::raw_tp("memory_exit", "sched_process_exit")],
        OOM_KILLS,
    ),
    Probe::optional(
        &[Hook::raw_tp("memory_timer", "timer_expire_entry")],
        HIGH_SLEEP,
    ),
];

const HIGH_SLEEP: &str = "sleeps above memory.high";

const OOM_KILLS: &str = "out-of-memory kills";

const FAMILIES: &[Family] = &[
    Family {
        id: family::MEMORY_RECLAIM,
        name: "isostack_memory_reclaim_seconds",
        help: "Stretches in which a thread had to free memory before it got any.",
        kind: FamilyKind::Histogram,
        labels: &["limit"],
    },
    Family {
        id: family::OOM_KILLS,
        name: "isostack_oom_kills",
        help: "Processes killed for lack of memory.",
        kind: FamilyKind::Counter,
        labels: &["limit"],
    },
];

impl Sensor for Memory {
    fn id(&self) -> u32 {
        sensor::MEMORY
    }

    fn name(&self) -> &'static str {
        "memory"
    }

    fn probes(&self) -> &'static [Probe] {
        PROBES
    }

    fn reduced(&self, kernel: &Kernel<'_>) -> Option<(String, &'static str)> {
        let known = |symbol| kernel.fields.has(symbol);
        let all = known("PROCESS_TIMER_TASK") && known("TASK_NVCSW");
        (!all).then(|| ("this kernel's timers look different".to_owned(), HIGH_SLEEP))
    }

    fn interpreter(&self, _: &Kernel<'_>) -> Box<dyn Interpreter> {
        Box::new(MemoryInterpreter)
    }

    fn families(&self) -> &'static [Family] {
        FAMILIES
    }
}

struct MemoryInterpreter;

impl Interpreter for MemoryInterpreter {
    fn record(&mut self, record: &Record) -> Result<Meaning, DecodeError> {
        let (cause, memcg) = match record.kind {
            KIND_DIRECT_RECLAIM => (Cause::MemoryReclaim, false),
            KIND_MEMCG_RECLAIM | KIND_HIGH_SLEEP => (Cause::MemoryReclaim, true),
            KIND_OOM_KILL => (Cause::OomKill, record.extra != 0),
            kind => {
                return Err(DecodeError::Unknown {
                    sensor: record.sensor,
                    kind,
                });
            }
        };
        Ok(Meaning {
            cause,
            particulars: Particulars::Memory {
                memcg,
                limit: None,
                is_swap_in: false,
            },
        })
    }

    fn event(&mut self, record: &Record) -> Result<Event, DecodeError> {
        if record.kind != KIND_CONSUMED {
            return delay(self, record);
        }
        let memcg = record.detail != 0;
        let resource = Resource::Memory { memcg };
        Ok(consumption(record, resource, record.cgroup_id))
    }

    fn labels(&mut self, key: &SeriesKey) -> Vec<String> {
        let limit = match key.a {
            0 => "host",
            1 => "cgroup",
            _ => "high",
        };
        vec![limit.to_owned()]
    }
}

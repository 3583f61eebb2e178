//! `memory`: threads that must free memory before they get any, those put to sleep for using
//! too much, and those killed for it.
//!
//! Reclaim begins and ends in the context of the thread that suffers. All hooks are rare, and
//! so they are raw tracepoints with checked reads: one program for every kernel.

mod high;

use agent_common::{
    consumption::ConsumerKey,
    event::{
        Record,
        memory::{KIND_DIRECT_RECLAIM, KIND_MEMCG_RECLAIM, KIND_OOM_KILL},
        sensor,
    },
    series::{SeriesKey, family},
};
use aya_ebpf::{
    Global,
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
    macros::{map, raw_tracepoint},
    maps::LruHashMap,
    programs::RawTracePointContext,
};

use crate::{
    consumption, emit,
    kernel::{Probed, argument, sched::Task},
    series,
    tracked::is_tracked,
};

/// Reclaim from this length on is told of every thread.
#[unsafe(no_mangle)]
static RECLAIM_MIN_NS: Global<u64> = Global::new(1_000_000);
/// Reclaim from this length on is told of tracked thread groups.
#[unsafe(no_mangle)]
static TRACKED_RECLAIM_MIN_NS: Global<u64> = Global::new(50_000);

/// Short ones of a thread are told together from this length on: who writes a lot below a limit frees
/// a little memory again and again.
const TOGETHER_MIN_NS: u64 = 500_000;
/// As long as they follow each other within this time.
const TOGETHER_GAP_NS: u64 = 10_000_000;

/// Pages freed in one stretch below which nobody else is held up.
const LEAST_PAGES: u64 = 32;

/// The last reclaim of a thread.
#[repr(C)]
#[derive(Clone, Copy)]
struct Reclaim {
    /// Its start; 0 once it has ended.
    start_ns: u64,
    /// `KIND_MEMCG_RECLAIM` or `KIND_DIRECT_RECLAIM`.
    kind: u64,
    /// Its end; 0 until then.
    end_ns: u64,
    /// How often the thread had given up the CPU by then.
    switches: u64,
    /// What it and those shortly before it took, as far as that is not told.
    untold_ns: u64,
}

/// By thread id. Least recently used ones go first: threads come and go.
#[map]
static RECLAIMS: LruHashMap<u32, Reclaim> = LruHashMap::with_max_entries(4096, 0);

/// Victims of the out-of-memory killer that have not ended yet, by thread id: whether a
/// memory cgroup's limit was the reason.
#[map]
static VICTIMS: LruHashMap<u32, u32> = LruHashMap::with_max_entries(1024, 0);

/// Processes that were killed and counted: further threads of theirs may be marked too while
/// they end.
#[map]
static COUNTED: LruHashMap<Process, u32> = LruHashMap::with_max_entries(1024, 0);

/// A thread group, never mistaken for a later one of the same id.
#[repr(C)]
#[derive(Clone, Copy)]
struct Process {
    leader_start_boottime_ns: u64,
    tgid: u64,
}

/// kernel: v5.10.. include/trace/events/vmscan.h: mm_vmscan_direct_reclaim_begin(int order,
/// gfp_t gfp_flags, ..)
#[raw_tracepoint(tracepoint = "mm_vmscan_direct_reclaim_begin")]
pub fn memory_direct_begin(_: RawTracePointContext) -> u32 {
    begin(KIND_DIRECT_RECLAIM)
}

/// kernel: v5.10.. mm_vmscan_direct_reclaim_end(unsigned long nr_reclaimed, ..)
#[raw_tracepoint(tracepoint = "mm_vmscan_direct_reclaim_end")]
pub fn memory_direct_end(ctx: RawTracePointContext) -> u32 {
    end(KIND_DIRECT_RECLAIM, ctx.arg(0))
}

/// kernel: v5.10.. mm_vmscan_memcg_reclaim_begin(int order, gfp_t gfp_flags, ..)
#[raw_tracepoint(tracepoint = "mm_vmscan_memcg_reclaim_begin")]
pub fn memory_memcg_begin(_: RawTracePointContext) -> u32 {
    begin(KIND_MEMCG_RECLAIM)
}

/// kernel: v5.10.. mm_vmscan_memcg_reclaim_end(unsigned long nr_reclaimed, ..)
#[raw_tracepoint(tracepoint = "mm_vmscan_memcg_reclaim_end")]
pub fn memory_memcg_end(ctx: RawTracePointContext) -> u32 {
    end(KIND_MEMCG_RECLAIM, ctx.arg(0))
}

/// kernel: v5.10.. include/trace/events/oom.h: mark_victim(int pid), with backports and from
/// 6.8 on mark_victim(struct task_struct *task, uid_t uid). Runs in the thread that found no
/// memory; why can be told from what it did last.
#[raw_tracepoint(tracepoint = "mark_victim")]
pub fn memory_mark_victim(ctx: RawTracePointContext) -> u32 {
    let victim: u64 = ctx.arg(0);
    // SAFETY: where this is no task it is not asked for anything, and `Probed` copes with any
    // address.
    let task = unsafe { Task::<Probed>::new(victim as *const u8) };
    let is_task = argument::MARK_VICTIM_TASK.load() != 0;
    let tid = if is_task { task.tid() } else { victim as u32 };
    let current = Task::current().tid();
    // SAFETY: the value is copied out at once.
    let reclaim = unsafe { RECLAIMS.get(current) }.copied();
    let memcg = u32::from(reclaim.is_some_and(|r| r.kind == u64::from(KIND_MEMCG_RECLAIM)));
    if VICTIMS.insert(tid, memcg, u64::from(BPF_ANY)).is_err() {
        emit::lost(sensor::MEMORY);
    }
    // It gets its signal before it is marked. From 6.16 on, where the end of a thread is told
    // earlier, that may have been already; whichever of the two comes later counts.
    if is_task && tid != current && task.is_exiting() {
        let _ = VICTIMS.remove(tid);
        killed(task, memcg);
    }
    0
}

/// kernel: v5.10.. include/trace/events/sched.h: sched_process_exit(struct task_struct *p, ..),
/// in the context of `p`.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn memory_exit(_: RawTracePointContext) -> u32 {
    let task = Task::current();
    let tid = task.tid();
    // SAFETY: the value is copied out at once.
    let Some(memcg) = (unsafe { VICTIMS.get(tid) }).copied() else {
        return 0;
    };
    let _ = VICTIMS.remove(tid);
    killed(task, memcg);
    0
}

/// Counts and tells its process once.
#[inline(never)]
fn killed(task: Task<Probed>, memcg: u32) {
    let process = Process {
        leader_start_boottime_ns: task.leader_start_boottime_ns(),
        tgid: u64::from(task.tgid()),
    };
    if COUNTED
        .insert(process, memcg, u64::from(BPF_NOEXIST))
        .is_err()
    {
        return;
    }
    let cgroup_id = task.cgroup_id();
    let key = SeriesKey {
        cgroup_id,
        family: family::OOM_KILLS,
        a: memcg,
        b: 0,
    };
    series::count(sensor::MEMORY, &key, 1);
    // SAFETY: return numbers.
    let (now_ns, cpu) = unsafe { (bpf_ktime_get_ns(), bpf_get_smp_processor_id()) };
    emit::record(&Record {
        sensor: sensor::MEMORY,
        kind: KIND_OOM_KILL,
        start_ns: now_ns,
        end_ns: now_ns,
        cgroup_id,
        detail: 0,
        leader_start_boottime_ns: task.leader_start_boottime_ns(),
        pid: task.tgid(),
        tid: task.tid(),
        cpu,
        extra: memcg,
    });
}

#[inline(always)]
fn begin(kind: u32) -> u32 {
    // SAFETY: returns a number.
    let start_ns = unsafe { bpf_ktime_get_ns() };
    let kind = u64::from(kind);
    let tid = Task::current().tid();
    let Some(last) = RECLAIMS.get_ptr_mut(tid) else {
        let first = Reclaim {
            start_ns,
            kind,
            end_ns: 0,
            switches: 0,
            untold_ns: 0,
        };
        // A full table evicts: the worst is one stretch of reclaim that is not counted.
        let _ = RECLAIMS.insert(tid, first, u64::from(BPF_ANY));
        return 0;
    };
    // SAFETY: a map's value that only this thread writes.
    let last = unsafe { &mut *last };
    if last.kind != kind || start_ns.saturating_sub(last.end_ns) > TOGETHER_GAP_NS {
        last.untold_ns = 0;
    }
    last.start_ns = start_ns;
    last.kind = kind;
    last.end_ns = 0;
    0
}

#[inline(always)]
fn end(kind: u32, pages: u64) -> u32 {
    let task = Task::current();
    let Some(reclaim) = RECLAIMS.get_ptr_mut(task.tid()) else {
        return 0; // attached in the middle of it
    };
    // SAFETY: a map's value that only this thread writes.
    let reclaim = unsafe { &mut *reclaim };
    let start_ns = core::mem::take(&mut reclaim.start_ns);
    if start_ns == 0 {
        return 0;
    }
    // SAFETY: returns a number.
    let end_ns = unsafe { bpf_ktime_get_ns() };
    reclaim.end_ns = end_ns;
    reclaim.switches = task.voluntary_switches();
    let limit = u32::from(kind == KIND_MEMCG_RECLAIM);
    let key = ConsumerKey {
        cgroup_id: task.cgroup_id(),
        resource: u64::from(limit),
        sensor: u64::from(sensor::MEMORY),
    };
    consumption::add(&key, start_ns, end_ns, pages, LEAST_PAGES);
    let stall = Stall {
        kind,
        limit,
        start_ns,
        end_ns,
    };
    stall.count(task);
    reclaim.untold_ns += end_ns.saturating_sub(start_ns);
    // In one piece up to its end: as long as all of them, and about when they were.
    let together = Stall {
        start_ns: end_ns - reclaim.untold_ns,
        ..stall
    };
    if stall.is_told(task) || (reclaim.untold_ns >= TOGETHER_MIN_NS && together.is_told(task)) {
        reclaim.untold_ns = 0;
        together.tell(task);
    }
    0
}

/// A stretch that a thread lost for lack of memory.
#[derive(Clone, Copy)]
struct Stall {
    kind: u32,
    /// The label of its histogram.
    limit: u32,
    start_ns: u64,
    end_ns: u64,
}

impl Stall {
    #[inline(always)]
    const fn ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }

    #[inline(always)]
    fn count(&self, task: Task<Probed>) {
        let key = SeriesKey {
            cgroup_id: task.cgroup_id(),
            family: family::MEMORY_RECLAIM,
            a: self.limit,
            b: 0,
        };
        series::observe(sensor::MEMORY, &key, self.ns());
    }

    /// Whether it is long enough to be told.
    #[inline(always)]
    fn is_told(&self, task: Task<Probed>) -> bool {
        let told = |min_ns| emit::is_told(sensor::MEMORY, self.ns(), min_ns);
        told(RECLAIM_MIN_NS.load())
            || (told(TRACKED_RECLAIM_MIN_NS.load()) && is_tracked(task.tgid()))
    }

    #[inline(always)]
    fn tell(&self, task: Task<Probed>) {
        emit::record(&Record {
            sensor: sensor::MEMORY,
            kind: self.kind,
            start_ns: self.start_ns,
            end_ns: self.end_ns,
            cgroup_id: task.cgroup_id(),
            detail: 0,
            leader_start_boottime_ns: task.leader_start_boottime_ns(),
            pid: task.tgid(),
            tid: task.tid(),
            // SAFETY: returns a number.
            cpu: unsafe { bpf_get_smp_processor_id() },
            extra: 0,
        });
    }
}

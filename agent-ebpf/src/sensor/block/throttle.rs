//! How long a limit held I/O back.
//!
//! That happens before the block layer's first tracepoint, and nothing notes when it began.
//! What can be seen is the end: the work queue `kthrotld` passes the I/O on. Once it has
//! done so for any cgroup, the switch hook is asked for ([`crate::wanted`]): it sees since
//! when a thread of that cgroup has been blocked, and when it runs again. From the one to
//! the last I/O passed on in between it waited for the limit; what follows is the device.

use agent_common::{
    event::{Record, block::KIND_THROTTLE, sensor},
    series::{SeriesKey, family},
};
use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
    macros::{btf_tracepoint, map, raw_tracepoint},
    maps::LruHashMap,
    programs::{BtfTracePointContext, RawTracePointContext},
};

use crate::{
    emit,
    kernel::{Memory, Probed, Typed, block::Bio, sched::Task, worker::Runner},
    series, wanted,
};

/// First eight bytes of the work queue's name.
const KTHROTLD: u64 = u64::from_le_bytes(*b"kthrotld");

/// The last I/O of a cgroup that was held back and then passed on.
#[repr(C)]
#[derive(Clone, Copy)]
struct Passed {
    ns: u64,
    disk: u32,
    operation: u32,
}

/// By inode of the cgroup in the I/O controller's hierarchy.
#[map]
static PASSED: LruHashMap<u64, Passed> = LruHashMap::with_max_entries(1024, 0);

/// A thread that was blocked uninterruptibly.
#[repr(C)]
#[derive(Clone, Copy)]
struct Held {
    since_ns: u64,
    /// How often it had got a CPU by then.
    turns: u64,
}

/// By thread id. What is left of threads that went on while the hook was off says how often
/// they had run, and is not believed of one that has run since.
#[map]
static HELD_BACK: LruHashMap<u32, Held> = LruHashMap::with_max_entries(8192, 0);

/// To be called when a kernel thread submits an I/O.
#[inline(always)]
pub fn passed_on<M: Memory>(bio: Bio<M>, runner: Runner) {
    if runner.work_queue() != KTHROTLD {
        return;
    }
    let passed = Passed {
        // SAFETY: returns a number.
        ns: unsafe { bpf_ktime_get_ns() },
        disk: bio.disk(),
        operation: bio.operation(),
    };
    wanted::now(sensor::BLOCK, passed.ns);
    // A full table evicts the cgroup that was not held back for the longest time.
    let _ = PASSED.insert(bio.cgroup_id(), passed, u64::from(BPF_ANY));
}

/// kernel: v5.10.. include/trace/events/sched.h: sched_switch(bool preempt, struct
/// task_struct *prev, struct task_struct *next, ..). Attached only while I/O is held back.
#[btf_tracepoint(function = "sched_switch")]
pub fn block_switch(ctx: BtfTracePointContext) -> u32 {
    // SAFETY: the tracepoint's arguments are the two tasks, typed for the verifier.
    unsafe { switch::<Typed>(ctx.arg(1), ctx.arg(2)) }
    0
}

/// The same on a hook that needs no BTF program type; its reads go through a helper.
#[raw_tracepoint(tracepoint = "sched_switch")]
pub fn block_switch_raw(ctx: RawTracePointContext) -> u32 {
    // SAFETY: as above; the verifier has no types here.
    unsafe { switch::<Probed>(ctx.arg(1), ctx.arg(2)) }
    0
}

/// # Safety
///
/// Both are tasks of a kind that `M` can read.
#[inline(always)]
unsafe fn switch<M: Memory>(prev: *const u8, next: *const u8) {
    // SAFETY: by the caller's promise.
    let (prev, next) = unsafe { (Task::<M>::new(prev), Task::<M>::new(next)) };
    if prev.is_uninterruptible() {
        let held = Held {
            // SAFETY: returns a number.
            since_ns: unsafe { bpf_ktime_get_ns() },
            turns: prev.pcount(),
        };
        let _ = HELD_BACK.insert(prev.tid(), held, u64::from(BPF_ANY));
    }
    let tid = next.tid();
    // SAFETY: the value is copied out at once.
    let Some(held) = (unsafe { HELD_BACK.get(tid) }).copied() else {
        return;
    };
    let _ = HELD_BACK.remove(tid);
    if held.turns != next.pcount() {
        return;
    }
    // SAFETY: likewise.
    if let Some(passed) = (unsafe { PASSED.get(next.io_cgroup_id()) }).copied()
        && passed.ns > held.since_ns
    {
        tell(next, held.since_ns, passed);
    }
}

#[inline(always)]
fn tell<M: Memory>(task: Task<M>, since_ns: u64, passed: Passed) {
    let key = SeriesKey {
        cgroup_id: task.io_cgroup_id(),
        family: family::BLOCK,
        a: passed.disk,
        b: u64::from(passed.operation | KIND_THROTTLE << 8),
    };
    series::observe(sensor::BLOCK, &key, passed.ns - since_ns);
    emit::record(&Record {
        sensor: sensor::BLOCK,
        kind: KIND_THROTTLE,
        start_ns: since_ns,
        end_ns: passed.ns,
        cgroup_id: task.cgroup_id(),
        detail: u64::from(passed.disk),
        leader_start_boottime_ns: task.leader_start_boottime_ns(),
        pid: task.tgid(),
        tid: task.tid(),
        // SAFETY: returns a number.
        cpu: unsafe { bpf_get_smp_processor_id() },
        extra: passed.operation,
    });
}

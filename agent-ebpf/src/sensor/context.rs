//! `context`: which span a thread was working on when it left the CPU, by the context that its
//! program publishes for each of its threads (OpenTelemetry, OTEP 4947).
//!
//! At the switch-out the thread's memory is still mapped, and what lies there is complete: the
//! program's writer and this reader are never at work at the same time. A stretch off the CPU
//! that is worth telling is told at the switch-in, so that short ones cost no record.
//!
//! Of programs that publish nothing, OpenTelemetry's eBPF instrumentation may know the trace: where it
//! runs on this host, its map is read instead.

use agent_common::{
    context::{ContextPlace, MAX_MODULES, TraceContext},
    event::{
        Record,
        context::{KIND_AWAY, TRACE_ONLY, UNREADABLE},
        sensor,
    },
};
use aya_ebpf::{
    Global,
    bindings::BPF_ANY,
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_probe_read_user},
    macros::{btf_tracepoint, map, raw_tracepoint},
    maps::{Array, HashMap, LruHashMap},
    programs::{BtfTracePointContext, RawTracePointContext},
};

use crate::{
    emit,
    kernel::{Memory, Probed, Typed, sched::Task},
    tracked::is_tracked,
};

/// Stretches off the CPU from this length on are told: from which on delays of tracked thread
/// groups are.
#[unsafe(no_mangle)]
static CONTEXT_MIN_NS: Global<u64> = Global::new(50_000);

/// By thread group id; written by user space only.
#[map]
static CONTEXT_PLACES: HashMap<u32, ContextPlace> = HashMap::with_max_entries(4096, 0);

/// The other instrumentation's, where the loader found it pinned; else nobody's, and empty. Only
/// read here.
#[map(name = "traces_ctx_v1")]
static TRACES: LruHashMap<u64, TraceContext> = LruHashMap::with_max_entries(16_384, 0);

/// What a thread was at when it left the CPU.
#[repr(C)]
#[derive(Clone, Copy)]
struct Left {
    at_ns: u64,
    /// Second half of the trace id.
    trace: u64,
    span: u64,
    /// [`UNREADABLE`] or 0.
    extra: u32,
    /// [`CONTEXT_EPOCH`] then.
    epoch: u32,
}

/// By thread id. Least recently used ones go first: threads come and go.
#[map]
static CONTEXTS: LruHashMap<u32, Left> = LruHashMap::with_max_entries(16_384, 0);

/// What was left before the program was last put on its hook says nothing of what came since:
/// another number each time that it is.
#[map]
static CONTEXT_EPOCH: Array<u32> = Array::with_max_entries(1, 0);

/// The head of a context, as OTEP 4947 lays it out.
#[repr(C)]
#[derive(Clone, Copy)]
struct Head {
    trace: [u64; 2],
    span: u64,
    /// The first byte is 1 while it is valid, then flags and sizes.
    valid: u32,
    _pad: u32,
}

/// Bytes of [`Head`] up to and with `valid`.
const HEAD_BYTES: usize = 28;

/// kernel: v5.10.. include/trace/events/sched.h: sched_switch(bool preempt, struct
/// task_struct *prev, struct task_struct *next, ..)
#[btf_tracepoint(function = "sched_switch")]
pub fn context_switch(ctx: BtfTracePointContext) -> u32 {
    // SAFETY: the tracepoint's arguments are the two tasks, typed for the verifier.
    unsafe { switch::<Typed>(ctx.arg(1), ctx.arg(2)) }
    0
}

/// The same on a hook that needs no BTF program type.
#[raw_tracepoint(tracepoint = "sched_switch")]
pub fn context_switch_raw(ctx: RawTracePointContext) -> u32 {
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
    let (out, into) = unsafe { (Task::<M>::new(prev), Task::<M>::new(next)) };
    let tgid = out.tgid();
    if is_tracked(tgid) {
        // SAFETY: the value is copied out at once.
        if let Some(place) = unsafe { CONTEXT_PLACES.get(tgid) }.copied() {
            if place == ContextPlace::IN_THE_MAP {
                switch_out_mapped(tgid, out.tid());
            } else {
                switch_out(out.tid(), out.thread_pointer(), &place);
            }
        }
    }
    if is_tracked(into.tgid()) {
        switch_in(into);
    }
}

#[inline(never)]
fn switch_out(tid: u32, thread_pointer: u64, place: &ContextPlace) {
    let mut left = Left {
        // SAFETY: returns a number.
        at_ns: unsafe { bpf_ktime_get_ns() },
        trace: 0,
        span: 0,
        extra: 0,
        epoch: epoch(),
    };
    if thread_pointer != 0 {
        match slot(thread_pointer, place).and_then(read_user) {
            Some(0) => {}
            Some(record) => read(record, &mut left),
            // A thread that never touched the module's block has none.
            None if place.module != 0 => {}
            None => left.extra = UNREADABLE,
        }
    }
    keep(tid, &left);
}

/// Of threads that the other instrumentation does not know nothing is told. Whose spans are an
/// SDK's have the trace that it says, and span ids of their own.
#[inline(never)]
fn switch_out_mapped(tgid: u32, tid: u32) {
    let key = u64::from(tgid) << 32 | u64::from(tid);
    // SAFETY: the value is copied out at once; a trace that changes meanwhile is told wrongly once.
    let Some([_, trace, span]) = (unsafe { TRACES.get(key) }).copied() else {
        return;
    };
    let left = Left {
        // SAFETY: returns a number.
        at_ns: unsafe { bpf_ktime_get_ns() },
        trace,
        span,
        extra: TRACE_ONLY,
        epoch: epoch(),
    };
    keep(tid, &left);
}

#[inline(always)]
fn keep(tid: u32, left: &Left) {
    if let Some(known) = CONTEXTS.get_ptr_mut(tid) {
        // SAFETY: a map's value, which only the CPU that the thread is on writes.
        unsafe { *known = *left };
        return;
    }
    // A full table evicts: the worst is a stretch that is not told.
    let _ = CONTEXTS.insert(tid, left, u64::from(BPF_ANY));
}

/// Where the thread's pointer to its context is; `None` where that cannot be read.
#[inline(always)]
fn slot(thread_pointer: u64, place: &ContextPlace) -> Option<u64> {
    let mut block = thread_pointer;
    if place.module != 0 {
        // glibc and musl alike: the vector of blocks is the second word at the thread pointer.
        let vector = read_user(thread_pointer.wrapping_add(8))?;
        let entry = u64::from(place.module & (MAX_MODULES - 1)) * u64::from(place.entry_bytes);
        block = read_user(vector.wrapping_add(entry))?;
    }
    Some(block.wrapping_add(place.offset as u64))
}

#[inline(always)]
fn read_user(address: u64) -> Option<u64> {
    // SAFETY: the helper copes with any address.
    unsafe { bpf_probe_read_user(address as *const u64) }.ok()
}

#[inline(always)]
fn read(record: u64, left: &mut Left) {
    // SAFETY: the helper copes with any address; what it reads are numbers.
    let bytes = unsafe { bpf_probe_read_user(record as *const [u8; HEAD_BYTES]) };
    let Ok(bytes) = bytes else {
        left.extra = UNREADABLE;
        return;
    };
    let mut head = Head {
        trace: [0; 2],
        span: 0,
        valid: 0,
        _pad: 0,
    };
    // SAFETY: the head begins with these bytes, and any are a valid value of it.
    unsafe { (&raw mut head).cast::<[u8; HEAD_BYTES]>().write(bytes) };
    if head.valid as u8 == 1 {
        left.trace = head.trace[1];
        left.span = head.span;
    }
}

#[inline(always)]
fn switch_in<M: Memory>(task: Task<M>) {
    let tid = task.tid();
    let Some(known) = CONTEXTS.get_ptr_mut(tid) else {
        return;
    };
    // SAFETY: a map's value, which only the CPU that the thread is on writes.
    let left = unsafe { *known };
    if left.at_ns == 0 {
        return;
    }
    // SAFETY: as above.
    unsafe { (*known).at_ns = 0 };
    // SAFETY: return numbers.
    let (now_ns, cpu) = unsafe { (bpf_ktime_get_ns(), bpf_get_smp_processor_id()) };
    if left.epoch != epoch()
        || !emit::is_told(
            sensor::CONTEXT,
            now_ns.saturating_sub(left.at_ns),
            CONTEXT_MIN_NS.load(),
        )
    {
        return;
    }
    emit::record(&Record {
        sensor: sensor::CONTEXT,
        kind: KIND_AWAY,
        start_ns: left.at_ns,
        end_ns: now_ns,
        cgroup_id: left.trace,
        detail: left.span,
        leader_start_boottime_ns: task.leader_start_boottime_ns(),
        pid: task.tgid(),
        tid,
        cpu,
        extra: left.extra,
    });
}

#[inline(always)]
fn epoch() -> u32 {
    CONTEXT_EPOCH.get(0).copied().unwrap_or(0)
}

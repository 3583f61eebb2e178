//! `wait`: what the threads of processes that send spans are blocked in.
//!
//! At the switch-out the running thread is the one that blocks: its saved registers name the
//! system call. At the switch-in its `last_queued` says when it was woken; a thread that was
//! merely preempted has been queued since it was switched out and so was not blocked at all.

mod fault;

use core::ffi::c_void;

use agent_common::{
    event::{
        Record, sensor,
        wait::{
            BY_FILE, KIND_DISK, KIND_LOCK, KIND_MAJOR_FAULT, KIND_MEMORY, KIND_OTHER, KIND_REFAULT,
            KIND_SLEEP, KIND_SOCKET, KIND_SWAP_IN, MAX_CALLS, NO_CALL,
        },
    },
    series::{SeriesKey, family},
};
use aya_ebpf::{
    EbpfContext as _, Global,
    bindings::BPF_ANY,
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_probe_read_kernel},
    macros::{btf_tracepoint, map, raw_tracepoint},
    maps::{Array, LruHashMap},
    programs::{BtfTracePointContext, RawTracePointContext},
};

use self::fault::Doing;
use crate::{
    emit,
    kernel::{Memory, Probed, Typed, field, sched::Task, syscall::Registers},
    series,
    tracked::is_tracked,
};

/// Blocked stretches from this length on are told; all are counted.
#[unsafe(no_mangle)]
static WAIT_MIN_NS: Global<u64> = Global::new(1_000_000);

/// A thread that was switched out.
#[repr(C)]
#[derive(Clone, Copy)]
struct Blocked {
    /// `rq.clock` of the switch.
    clock: u64,
    /// The same, monotonic.
    start_ns: u64,
    /// Number of its system call, or `NO_CALL`.
    call: u64,
    /// A `KIND_` constant.
    kind: u64,
}

/// By thread id. Least recently used ones go first: threads come and go.
#[map]
static BLOCKED: LruHashMap<u32, Blocked> = LruHashMap::with_max_entries(16_384, 0);

/// The kind of wait of each system call by its number, [`BY_FILE`] where that depends on the
/// file; written by user space, which knows the architecture's numbers.
#[map]
static CALL_KINDS: Array<u32> = Array::with_max_entries(MAX_CALLS, 0);

/// kernel: v5.10.. include/trace/events/sched.h: sched_switch(bool preempt, struct
/// task_struct *prev, struct task_struct *next, ..)
#[btf_tracepoint(function = "sched_switch")]
pub fn wait_switch(ctx: BtfTracePointContext) -> u32 {
    // SAFETY: the tracepoint's arguments are the two tasks, typed for the verifier.
    unsafe { switch::<Typed>(ctx.as_ptr(), ctx.arg(1), ctx.arg(2)) }
    0
}

/// The same on a hook that needs no BTF program type.
#[raw_tracepoint(tracepoint = "sched_switch")]
pub fn wait_switch_raw(ctx: RawTracePointContext) -> u32 {
    // SAFETY: as above; the verifier has no types here.
    unsafe { switch::<Probed>(ctx.as_ptr(), ctx.arg(1), ctx.arg(2)) }
    0
}

/// # Safety
///
/// Both are tasks of a kind that `M` can read; `context` is the tracepoint's.
#[inline(always)]
unsafe fn switch<M: Memory>(context: *mut c_void, prev: *const u8, next: *const u8) {
    // SAFETY: by the caller's promise.
    let (out, into) = unsafe { (Task::<M>::new(prev), Task::<M>::new(next)) };
    if is_tracked(out.tgid()) {
        switch_out(context, prev, out.tid(), into.cfs_rq().clock());
    }
    if is_tracked(into.tgid()) {
        switch_in(into);
    }
}

#[inline(never)]
fn switch_out(context: *mut c_void, prev: *const u8, tid: u32, clock: u64) {
    let registers = Registers::of_current();
    let call = registers.call();
    let blocked = Blocked {
        clock,
        // SAFETY: returns a number.
        start_ns: unsafe { bpf_ktime_get_ns() },
        call,
        kind: u64::from(kind(context, prev, registers, call)),
    };
    // A full table evicts: the worst is a stretch that is not told.
    let _ = BLOCKED.insert(tid, blocked, u64::from(BPF_ANY));
}

#[inline(always)]
fn switch_in<M: Memory>(task: Task<M>) {
    let tid = task.tid();
    // SAFETY: the value is copied out at once.
    let Some(blocked) = (unsafe { BLOCKED.get(tid) }).copied() else {
        return;
    };
    let _ = BLOCKED.remove(tid);
    let woken = task.last_queued();
    if woken <= blocked.clock {
        return; // preempted
    }
    if task.last_arrival() > blocked.clock {
        return; // it ran since, unseen: while it was not tracked, or the hook was off
    }
    // It was woken for this CPU, or moved to it. Where it was switched out the clock may be another
    // one by a tick, where the CPUs have no stable one.
    let queued_ns = task.cfs_rq().clock().saturating_sub(woken);
    // SAFETY: returns a number.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let end_ns = now_ns.saturating_sub(queued_ns);
    let ns = end_ns.saturating_sub(blocked.start_ns);
    if ns == 0 {
        return;
    }
    let kind = blocked.kind as u32;
    let cgroup_id = task.cgroup_id();
    let key = SeriesKey {
        cgroup_id,
        family: family::WAIT,
        a: kind,
        b: 0,
    };
    series::observe(sensor::WAIT, &key, ns);
    if !emit::is_told(sensor::WAIT, ns, WAIT_MIN_NS.load()) || kind == KIND_OTHER {
        return; // of what has no name nothing can be told
    }
    emit::record(&Record {
        sensor: sensor::WAIT,
        kind,
        start_ns: blocked.start_ns,
        end_ns,
        cgroup_id,
        detail: blocked.call,
        leader_start_boottime_ns: task.leader_start_boottime_ns(),
        pid: task.tgid(),
        tid,
        // SAFETY: returns a number.
        cpu: unsafe { bpf_get_smp_processor_id() },
        extra: 0,
    });
}

#[inline(always)]
fn kind(context: *mut c_void, task: *const u8, registers: Registers, call: u64) -> u32 {
    // SAFETY: `task` is the running task.
    let is = |field: &Global<u32>| unsafe {
        crate::kernel::has(field) && crate::kernel::bit(task, field)
    };
    let (for_memory, for_disk) = (is(&field::TASK_IN_MEMSTALL), is(&field::TASK_IN_IOWAIT));
    // A look at the stack costs microseconds: not for who reads a file as it asked to.
    if for_memory || (for_disk && call == NO_CALL) {
        match fault::doing(context) {
            Doing::SwapIn => return KIND_SWAP_IN,
            Doing::Fault if for_memory => return KIND_REFAULT,
            Doing::Fault => return KIND_MAJOR_FAULT,
            Doing::Unknown if !for_memory => return KIND_MAJOR_FAULT,
            Doing::Reclaim | Doing::Other | Doing::Unknown => {}
        }
    }
    if for_memory {
        return KIND_MEMORY;
    }
    if for_disk {
        return KIND_DISK;
    }
    if call == NO_CALL {
        return KIND_OTHER;
    }
    match CALL_KINDS.get(call as u32).copied() {
        Some(BY_FILE) => kind_of_file(task, registers.first_argument() as u32),
        Some(kind @ (KIND_LOCK | KIND_SLEEP | KIND_SOCKET | KIND_DISK)) => kind,
        _ => KIND_OTHER,
    }
}

/// Sockets and pipes have somebody at the other end; all else that blocks is on a disk.
#[inline(always)]
fn kind_of_file(task: *const u8, fd: u32) -> u32 {
    const S_IFMT: u16 = 0o170_000;
    const S_IFSOCK: u16 = 0o140_000;
    const S_IFIFO: u16 = 0o010_000;
    const S_IFREG: u16 = 0o100_000;
    // SAFETY: `Probed` copes with any address; a wrong one yields 0.
    let mode: u16 = unsafe {
        let table = Probed::pointer(Probed::pointer(task, &field::TASK_FILES), &field::FILES_FDT);
        if fd >= Probed::read::<u32>(table, &field::FDTABLE_MAX_FDS) {
            return KIND_OTHER;
        }
        let entries = Probed::pointer(table, &field::FDTABLE_FD);
        let entry = entries.wrapping_add(fd as usize * size_of::<usize>());
        let file = bpf_probe_read_kernel(entry.cast::<usize>()).unwrap_or(0) as *const u8;
        Probed::read(
            Probed::pointer(file, &field::FILE_INODE),
            &field::INODE_MODE,
        )
    };
    match mode & S_IFMT {
        S_IFSOCK | S_IFIFO => KIND_SOCKET,
        S_IFREG => KIND_DISK,
        _ => KIND_OTHER,
    }
}

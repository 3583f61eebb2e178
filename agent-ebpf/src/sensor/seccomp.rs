//! `seccomp`: system calls that a filter refused.
//!
//! The kernel asks the filter before it tells of the entry, and tells of the exit in any case:
//! an exit without an entry is a refusal. Both hooks slow every system call of the host, so
//! they are attached only while somebody is there whom it concerns. Threads under no filter
//! cost one look at their mode.

use agent_common::{
    event::{
        Record,
        seccomp::{ACTION_ERRNO, ACTION_KILL, ACTION_TRAP, KIND_DENIED},
        sensor,
    },
    series::{SeriesKey, family},
};
use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::{
        bpf_get_current_task, bpf_get_smp_processor_id, bpf_ktime_get_ns,
        bpf_probe_read_kernel_str_bytes,
    },
    macros::{btf_tracepoint, map, raw_tracepoint},
    maps::{Array, LruHashMap},
    programs::{BtfTracePointContext, RawTracePointContext},
};

use crate::{
    emit,
    kernel::{Memory, Probed, field, has, sched::Task, syscall::Registers},
    series,
};

/// `seccomp.mode`: a filter decides (`SECCOMP_MODE_FILTER`).
const FILTER: u32 = 2;
/// `seccomp.mode`: the filter has decided to end the thread (`SECCOMP_MODE_DEAD`; 5.16).
const DEAD: u32 = 3;

/// In an entry of [`FILTERED`]: the thread is in a system call. The rest is the epoch.
const ENTERED: u32 = 1;

/// One number, written by user space: 0 while not both hooks are attached, and another one
/// each time that they are. What is remembered of a thread from another epoch is worth
/// nothing: it may have entered and left system calls unseen.
#[map]
static SECCOMP_EPOCH: Array<u32> = Array::with_max_entries(1, 0);

/// By thread id; only threads under a filter. One that is evicted is new when it comes
/// again, and of a new one no refusal is told: nothing is ever told that was none.
#[map]
static FILTERED: LruHashMap<u32, u32> = LruHashMap::with_max_entries(65_536, 0);

/// 1 for each system call that a new thread or program returns from without having entered
/// it: `fork` and its kin (result 0), `execve` (which may have taken another thread's id).
/// Written by user space, which knows the architecture's numbers.
#[map]
static BORN_IN: Array<u32> = Array::with_max_entries(512, 0);

/// kernel: v5.10.. include/trace/events/syscalls.h: sys_enter(struct pt_regs *regs, long id)
#[btf_tracepoint(function = "sys_enter")]
pub fn seccomp_enter(_: BtfTracePointContext) -> u32 {
    enter()
}

/// The same on a hook that needs no BTF program type.
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn seccomp_enter_raw(_: RawTracePointContext) -> u32 {
    enter()
}

/// kernel: v5.10.. sys_exit(struct pt_regs *regs, long ret)
#[btf_tracepoint(function = "sys_exit")]
pub fn seccomp_exit(ctx: BtfTracePointContext) -> u32 {
    exit(ctx.arg(0), ctx.arg::<u64>(1) as i64)
}

/// The same on a hook that needs no BTF program type.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn seccomp_exit_raw(ctx: RawTracePointContext) -> u32 {
    exit(ctx.arg(0), ctx.arg::<u64>(1) as i64)
}

/// kernel: v5.10.. include/trace/events/sched.h: sched_process_exit(struct task_struct *p, ..),
/// in the context of `p`.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn seccomp_dead(_: RawTracePointContext) -> u32 {
    if mode() == DEAD {
        denied(Registers::of_current().number(), ACTION_KILL);
    }
    0
}

#[inline(always)]
fn mode() -> u32 {
    // SAFETY: returns the running task, which `Probed` reads.
    unsafe {
        Probed::read(
            bpf_get_current_task() as *const u8,
            &field::TASK_SECCOMP_MODE,
        )
    }
}

#[inline(always)]
fn epoch() -> u32 {
    SECCOMP_EPOCH.get(0).copied().unwrap_or(0)
}

#[inline(always)]
fn enter() -> u32 {
    if mode() == FILTER {
        let state = epoch() << 1 | ENTERED;
        let _ = FILTERED.insert(Task::current().tid(), state, u64::from(BPF_ANY));
    }
    0
}

#[inline(always)]
fn exit(registers: *const u8, result: i64) -> u32 {
    if mode() != FILTER {
        return 0;
    }
    let tid = Task::current().tid();
    let outside = epoch() << 1;
    let Some(state) = FILTERED.get_ptr_mut(tid) else {
        // Just filtered, just born, or from before: from now on it is known.
        let _ = FILTERED.insert(tid, outside, u64::from(BPF_ANY));
        return 0;
    };
    // SAFETY: a map's value that only this thread writes.
    let before = unsafe { core::mem::replace(&mut *state, outside) };
    if before != outside || outside == 0 {
        return 0; // entered, or not known since
    }
    let call = Registers::at(registers).number();
    if result == 0 && BORN_IN.get(call as u32).is_some_and(|born| *born != 0) {
        return 0;
    }
    // A trap puts the registers back as they were, the number where the result would be.
    let trapped = result >= 0 && result as u64 & 0xffff_ffff == call & 0xffff_ffff && call != 0;
    denied(call, if trapped { ACTION_TRAP } else { ACTION_ERRNO });
    0
}

#[inline(never)]
fn denied(call: u64, action: u32) {
    let task = Task::current();
    if is_gvisor() {
        return; // its way of intercepting every system call of its guest
    }
    let cgroup_id = task.cgroup_id();
    let key = SeriesKey {
        cgroup_id,
        family: family::SECCOMP_DENIALS,
        a: action,
        b: call,
    };
    series::count(sensor::SECCOMP, &key, 1);
    // SAFETY: return numbers.
    let (now_ns, cpu) = unsafe { (bpf_ktime_get_ns(), bpf_get_smp_processor_id()) };
    emit::record(&Record {
        sensor: sensor::SECCOMP,
        kind: KIND_DENIED,
        start_ns: now_ns,
        end_ns: now_ns,
        cgroup_id,
        detail: call,
        leader_start_boottime_ns: task.leader_start_boottime_ns(),
        pid: task.tgid(),
        tid: task.tid(),
        cpu,
        extra: action,
    });
}

/// Whether the running program is gVisor's, by the name of its file.
#[inline(always)]
fn is_gvisor() -> bool {
    if !has(&field::TASK_MM)
        || !has(&field::MM_EXE_FILE)
        || !has(&field::FILE_DENTRY)
        || !has(&field::DENTRY_NAME)
    {
        return false;
    }
    let mut name = [0_u8; 8];
    // SAFETY: `Probed` and the helper cope with any address.
    unsafe {
        let mm = Probed::pointer(bpf_get_current_task() as *const u8, &field::TASK_MM);
        let dentry = Probed::pointer(
            Probed::pointer(mm, &field::MM_EXE_FILE),
            &field::FILE_DENTRY,
        );
        let text = Probed::pointer(dentry, &field::DENTRY_NAME);
        if bpf_probe_read_kernel_str_bytes(text, &mut name).is_err() {
            return false;
        }
    }
    name[0] == b'r' && name[1] == b'u' && name[2] == b'n' && name[3] == b's' && name[4] == b'c'
}

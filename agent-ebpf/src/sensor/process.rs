//! `process`: what makes user space look at a process or a cgroup again.
//!
//! All hooks are rare, and so they are raw tracepoints with checked reads: one program for
//! every kernel.

use agent_common::event::{
    Record,
    process::{KIND_EXEC, KIND_GROUP_REMOVED, KIND_MOVED},
    sensor,
};
use aya_ebpf::{
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};

use crate::{
    emit,
    kernel::{
        Probed,
        sched::{Task, id_of_cgroup},
    },
};

/// kernel: v5.10.. include/trace/events/sched.h: sched_process_exec(struct task_struct *p, ..),
/// in the context of `p`.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn process_exec(_: RawTracePointContext) -> u32 {
    let task = Task::current();
    tell(KIND_EXEC, task, task.cgroup_id());
    0
}

/// kernel: v5.10.. include/trace/events/cgroup.h: cgroup_attach_task(struct cgroup *dst_cgrp,
/// const char *path, struct task_struct *task, bool threadgroup)
#[raw_tracepoint(tracepoint = "cgroup_attach_task")]
pub fn process_attach(ctx: RawTracePointContext) -> u32 {
    moved(&ctx)
}

/// kernel: v5.10.. cgroup_transfer_tasks: as above, where a cpuset lost its last CPU.
#[raw_tracepoint(tracepoint = "cgroup_transfer_tasks")]
pub fn process_transfer(ctx: RawTracePointContext) -> u32 {
    moved(&ctx)
}

/// kernel: v5.10.. cgroup_rmdir(struct cgroup *cgrp, const char *path)
#[raw_tracepoint(tracepoint = "cgroup_rmdir")]
pub fn process_rmdir(ctx: RawTracePointContext) -> u32 {
    let cgroup: u64 = ctx.arg(0);
    emit::record(&Record {
        // SAFETY: this tracepoint's first argument is a cgroup.
        cgroup_id: unsafe { id_of_cgroup::<Probed>(cgroup as *const u8) },
        ..blank(KIND_GROUP_REMOVED)
    });
    0
}

#[inline(always)]
fn moved(ctx: &RawTracePointContext) -> u32 {
    let (cgroup, task): (u64, u64) = (ctx.arg(0), ctx.arg(2));
    // SAFETY: these tracepoints' first argument is a cgroup, their third a task.
    let (cgroup_id, task) = unsafe {
        (
            id_of_cgroup::<Probed>(cgroup as *const u8),
            Task::<Probed>::new(task as *const u8),
        )
    };
    tell(KIND_MOVED, task, cgroup_id);
    0
}

#[inline(always)]
fn tell(kind: u32, task: Task<Probed>, cgroup_id: u64) {
    emit::record(&Record {
        cgroup_id,
        leader_start_boottime_ns: task.leader_start_boottime_ns(),
        pid: task.tgid(),
        tid: task.tid(),
        ..blank(kind)
    });
}

#[inline(always)]
fn blank(kind: u32) -> Record {
    // SAFETY: return numbers.
    let (now_ns, cpu) = unsafe { (bpf_ktime_get_ns(), bpf_get_smp_processor_id()) };
    Record {
        sensor: sensor::PROCESS,
        kind,
        start_ns: now_ns,
        end_ns: now_ns,
        cgroup_id: 0,
        detail: 0,
        leader_start_boottime_ns: 0,
        pid: 0,
        tid: 0,
        cpu,
        extra: 0,
    }
}

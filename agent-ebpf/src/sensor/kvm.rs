//! `kvm`: how long the host kept each virtual CPU out of guest mode, and why.
//!
//! The hooks are in a module that may come and go, and the reason of an exit is in a structure
//! of another one: where, user space says in a table, once they are there. Raw tracepoints, so
//! that no prototype matters.

use agent_common::{
    event::{
        Record,
        kvm::{
            HALT_POLL, HALT_WAIT, ISA_NONE, KIND_EXIT, LAYOUT_FIRST, LAYOUT_ISA, LAYOUT_LEN,
            LAYOUT_REASON, LAYOUT_SECOND, REASON_ARGUMENT, REASON_MEMBER, REASON_POINTED,
        },
        sensor,
    },
    series::{SeriesKey, family},
};
use aya_ebpf::{
    EbpfContext as _, Global,
    bindings::BPF_ANY,
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_probe_read_kernel},
    macros::{map, raw_tracepoint},
    maps::{Array, LruHashMap},
    programs::RawTracePointContext,
};

use crate::{emit, kernel::sched::Task, series};

/// Stretches from this length on are told; all are counted.
#[unsafe(no_mangle)]
static KVM_EXIT_MIN_NS: Global<u64> = Global::new(1_000_000);

/// Where the reason of an exit is; see the `LAYOUT_` constants.
#[map]
static KVM_LAYOUT: Array<u32> = Array::with_max_entries(LAYOUT_LEN, 0);

/// The exit under way of a virtual CPU.
#[repr(C)]
#[derive(Clone, Copy)]
struct Exit {
    start_ns: u64,
    reason: u32,
    isa: u32,
}

/// By thread id. Least recently used ones go first: a virtual CPU may leave for good.
#[map]
static EXITS: LruHashMap<u32, Exit> = LruHashMap::with_max_entries(4096, 0);

/// kernel: arch/x86/kvm/trace.h: kvm_exit(unsigned int exit_reason, struct kvm_vcpu *vcpu, u32
/// isa), from 5.17 on (struct kvm_vcpu *vcpu, u32 isa); arch/arm64/kvm/trace_arm.h: (int ret,
/// unsigned int esr_ec, unsigned long vcpu_pc)
#[raw_tracepoint(tracepoint = "kvm_exit")]
pub fn kvm_exit(ctx: RawTracePointContext) -> u32 {
    let layout = |at| KVM_LAYOUT.get(at).copied().unwrap_or(0);
    let first = layout(LAYOUT_FIRST);
    let arguments = ctx.as_ptr().cast::<u64>();
    // Both, and not the one whose place was computed: kernels before 7.0 refuse that.
    // SAFETY: every version of the tracepoint has at least two arguments.
    let (one, other) = unsafe { (arguments.read_volatile(), arguments.add(1).read_volatile()) };
    let argument = if first & 0xff == 0 { one } else { other };
    let reason = match layout(LAYOUT_REASON) {
        REASON_ARGUMENT => argument as u32,
        REASON_MEMBER => word(argument, first >> 8),
        REASON_POINTED => {
            let member = argument.wrapping_add(u64::from(first >> 8)) as *const u64;
            // SAFETY: the helper copes with any address.
            let pointer = unsafe { bpf_probe_read_kernel(member) }.unwrap_or(0);
            word(pointer, layout(LAYOUT_SECOND))
        }
        _ => 0,
    };
    let exit = Exit {
        // SAFETY: returns a number.
        start_ns: unsafe { bpf_ktime_get_ns() },
        reason,
        isa: layout(LAYOUT_ISA),
    };
    let _ = EXITS.insert(Task::current().tid(), exit, u64::from(BPF_ANY));
    0
}

/// kernel: kvm_entry(..), in the thread of the virtual CPU.
#[raw_tracepoint(tracepoint = "kvm_entry")]
pub fn kvm_entry(_: RawTracePointContext) -> u32 {
    let task = Task::current();
    let tid = task.tid();
    // SAFETY: the value is copied out at once.
    let Some(exit) = (unsafe { EXITS.get(tid) }).copied() else {
        return 0;
    };
    let _ = EXITS.remove(tid);
    // SAFETY: return numbers.
    let (now_ns, cpu) = unsafe { (bpf_ktime_get_ns(), bpf_get_smp_processor_id()) };
    let ns = now_ns.saturating_sub(exit.start_ns);
    let cgroup_id = task.cgroup_id();
    let key = SeriesKey {
        cgroup_id,
        family: family::KVM_EXIT,
        a: exit.reason,
        b: u64::from(exit.isa),
    };
    series::observe(sensor::KVM, &key, ns);
    if emit::is_told(sensor::KVM, ns, KVM_EXIT_MIN_NS.load()) {
        emit::record(&Record {
            sensor: sensor::KVM,
            kind: KIND_EXIT,
            start_ns: exit.start_ns,
            end_ns: now_ns,
            cgroup_id,
            detail: u64::from(exit.reason),
            leader_start_boottime_ns: task.leader_start_boottime_ns(),
            pid: task.tgid(),
            tid,
            cpu,
            extra: exit.isa,
        });
    }
    0
}

/// kernel: v5.10.. include/trace/events/kvm.h: kvm_vcpu_wakeup(__u64 ns, bool waited, bool
/// valid): a halted virtual CPU was polled or slept for.
#[raw_tracepoint(tracepoint = "kvm_vcpu_wakeup")]
pub fn kvm_wakeup(ctx: RawTracePointContext) -> u32 {
    let (ns, waited): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    let key = SeriesKey {
        cgroup_id: Task::current().cgroup_id(),
        family: family::KVM_EXIT,
        a: if waited & 0xff != 0 {
            HALT_WAIT
        } else {
            HALT_POLL
        },
        b: u64::from(ISA_NONE),
    };
    series::observe(sensor::KVM, &key, ns);
    0
}

#[inline(always)]
fn word(base: u64, offset: u32) -> u32 {
    // SAFETY: the helper copes with any address.
    unsafe { bpf_probe_read_kernel(base.wrapping_add(u64::from(offset)) as *const u32) }
        .unwrap_or(0)
}

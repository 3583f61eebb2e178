//! The sleep that a thread is put to above `memory.high`.
//!
//! It has no tracepoint. It follows upon reclaim for a memory cgroup in the same thread at
//! once, is a killable sleep on a timer, and so its end can be told from any other's: the
//! timer expires, the thread is in that state, its last reclaim was for a cgroup, and it
//! gave up the CPU exactly once since.

use agent_common::event::memory::{KIND_HIGH_SLEEP, KIND_MEMCG_RECLAIM};
use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::raw_tracepoint, programs::RawTracePointContext};

use super::{RECLAIMS, Stall};
use crate::kernel::{Memory, Probed, field, has, sched::Task};

/// The kernel's own shortest and longest sleep are 10 ms and 2 s.
const MIN_NS: u64 = 5_000_000;
const MAX_NS: u64 = 3_000_000_000;
/// The label of its histogram.
const HIGH: u32 = 2;

/// kernel: v5.10.. include/trace/events/timer.h: timer_expire_entry(struct timer_list *timer,
/// ..), in the interrupt. The timer of a sleeping thread is the first member of a struct
/// process_timer on its stack.
#[raw_tracepoint(tracepoint = "timer_expire_entry")]
pub fn memory_timer(ctx: RawTracePointContext) -> u32 {
    if !has(&field::PROCESS_TIMER_TASK) || !has(&field::TASK_NVCSW) {
        return 0;
    }
    let timer: u64 = ctx.arg(0);
    // SAFETY: whatever timer it is, `Probed` copes with any address, and what is found there
    // is believed only if all of the below fits.
    let task = unsafe {
        let task = Probed::pointer(timer as *const u8, &field::PROCESS_TIMER_TASK);
        Task::<Probed>::new(task)
    };
    // Most timers are not a thread's sleep, most sleeps are not killable.
    if !task.is_killable() {
        return 0;
    }
    // SAFETY: the value is copied out at once.
    let Some(last) = (unsafe { RECLAIMS.get(task.tid()) }).copied() else {
        return 0;
    };
    // SAFETY: returns a number.
    let end_ns = unsafe { bpf_ktime_get_ns() };
    let slept_ns = end_ns.saturating_sub(last.end_ns);
    if last.end_ns != 0
        && last.kind == u64::from(KIND_MEMCG_RECLAIM)
        && task.voluntary_switches() == last.switches + 1
        && (MIN_NS..MAX_NS).contains(&slept_ns)
    {
        let sleep = Stall {
            kind: KIND_HIGH_SLEEP,
            limit: HIGH,
            start_ns: last.end_ns,
            end_ns,
        };
        sleep.count(task);
        if sleep.is_told(task) {
            sleep.tell(task);
        }
    }
    0
}

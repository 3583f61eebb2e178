//! Asks: how long a thread that works on a request waited for what it asked of somebody else.
//!
//! An event loop waits for many answers at once, and its being idle does not say for which. The
//! connection does: from the first writing (or from when it was begun to be connected) to the first
//! reading, for the request that the thread worked on then. Where that is not known (a timer, a file,
//! another thread's message came in between), or several requests asked on one connection at once,
//! nothing is told.

use agent_common::event::{Record, sensor, tcp::KIND_ASK};
use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::{bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_ktime_get_ns},
    macros::map,
    maps::LruHashMap,
};

use super::turn::Turn;
use crate::{emit, kernel::sched::Task};

/// Waits from this length on are told.
const ASK_MIN_NS: u64 = 1_000_000;

/// What was asked on a connection.
#[repr(C)]
#[derive(Clone, Copy)]
struct Ask {
    /// When, as long as it is not answered; 0: nothing is.
    asked_ns: u64,
    /// When the request was begun to be read for which it is or was; 0: not known, or several.
    work_ns: u64,
    /// 1: it was only begun to be connected for that.
    is_new: u64,
}

/// By the socket's address. Least recently used ones go first.
#[map]
static ASKS: LruHashMap<u64, Ask> = LruHashMap::with_max_entries(16_384, 0);

/// The running thread connects the socket, for the request that was begun to be read then.
#[inline(always)]
pub fn connect(socket: u64, work_ns: u64) {
    if work_ns == 0 {
        // What is known of its address is another one's.
        let _ = ASKS.remove(socket);
        return;
    }
    let ask = Ask {
        // SAFETY: returns a number.
        asked_ns: unsafe { bpf_ktime_get_ns() },
        work_ns,
        is_new: 1,
    };
    insert(socket, &ask);
}

/// The running thread writes to a connection that was not accepted; `work_ns` as above, 0 where it
/// is not known.
#[inline(always)]
pub fn write(socket: u64, work_ns: u64, now_ns: u64) {
    let Some(ask) = ASKS.get_ptr_mut(socket) else {
        if work_ns != 0 {
            let ask = Ask {
                asked_ns: now_ns,
                work_ns,
                is_new: 0,
            };
            insert(socket, &ask);
        }
        return;
    };
    // SAFETY: a map's value. Several threads that ask on one connection at the same time are not
    // told apart anyway.
    let ask = unsafe { &mut *ask };
    let is_first = core::mem::take(&mut ask.is_new) != 0;
    // That it is connected now woke the thread, and says nothing of whom it works for.
    let is_another = work_ns != 0 && work_ns != ask.work_ns;
    if ask.asked_ns == 0 || (is_first && is_another) {
        ask.work_ns = work_ns;
        ask.asked_ns = now_ns;
    } else if is_another {
        ask.work_ns = 0;
    }
}

/// The running thread, whose turn this is, has read from a connection that was not accepted.
#[inline(always)]
pub fn read(socket: u64, turn: &mut Turn) {
    let Some(ask) = ASKS.get_ptr_mut(socket) else {
        turn.works_on(0);
        return;
    };
    // SAFETY: as above.
    let ask = unsafe { &mut *ask };
    let start_ns = core::mem::take(&mut ask.asked_ns);
    turn.works_on(ask.work_ns);
    if start_ns != 0 && ask.work_ns != 0 {
        tell(start_ns, ask.work_ns);
    }
}

#[inline(always)]
fn insert(socket: u64, ask: &Ask) {
    if ASKS.insert(socket, ask, u64::from(BPF_ANY)).is_err() {
        emit::lost(sensor::TCP);
    }
}

#[inline(never)]
fn tell(start_ns: u64, work_ns: u64) -> u32 {
    // SAFETY: returns a number.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    if !emit::is_told(sensor::TCP, now_ns.saturating_sub(start_ns), ASK_MIN_NS) {
        return 0;
    }
    let task = Task::current();
    let thread = bpf_get_current_pid_tgid();
    emit::record(&Record {
        sensor: sensor::TCP,
        kind: KIND_ASK,
        start_ns,
        end_ns: now_ns,
        cgroup_id: task.cgroup_id(),
        detail: work_ns,
        leader_start_boottime_ns: task.leader_start_boottime_ns(),
        pid: (thread >> 32) as u32,
        tid: thread as u32,
        // SAFETY: returns a number.
        cpu: unsafe { bpf_get_smp_processor_id() },
        extra: 0,
    });
    0
}

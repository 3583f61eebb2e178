//! Which CPUs had nothing to do lately: a thread that waits while one of them is idle, and may not
//! use that one, is held up by its cpuset or affinity, and not by who has the CPUs that it may use.
//!
//! Written only where a CPU becomes idle or busy, each in a cache line of its own.

use aya_ebpf::{
    Global,
    helpers::bpf_get_smp_processor_id,
    macros::{map, raw_tracepoint},
    maps::Array,
    programs::RawTracePointContext,
};

use crate::kernel::{
    Memory,
    sched::{Cpus, Task},
};

/// CPUs that are known.
const MAX_CPUS: u32 = 1024;
/// CPUs that are looked at, of more one out of several: the verifier follows each step of a loop.
const LOOKS: u32 = 16;
/// A CPU that is idle for longer than that is probably gone.
const GONE_NS: u64 = 60_000_000_000;

/// CPUs of this machine; 0: not known, and nothing is said.
#[unsafe(no_mangle)]
static CPUS: Global<u64> = Global::new(0);

/// Finished pieces of idle time that are kept: with the one that goes on, and where the next goes,
/// they fill a cache line.
const PIECES: usize = 3;

/// In `rq.clock`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Piece {
    start: u64,
    end: u64,
}

/// When a CPU was idle of late: what comes in between is short and cuts it into pieces.
#[repr(C, align(64))]
struct Idle {
    /// Since then it is idle, 0 while it is not; in `rq.clock`.
    since: u64,
    /// The times before that.
    pieces: [Piece; PIECES],
    /// Which of these is the oldest.
    next: u64,
}

const _: () = assert!(size_of::<Idle>() == 64);

/// By number of the CPU.
#[map]
static IDLE: Array<Idle> = Array::with_max_entries(MAX_CPUS, 0);

/// A CPU comes or goes: what it did before says nothing any more, and while it is gone it is not idle.
///
/// kernel: v5.10.. include/trace/events/cpuhp.h: cpuhp_exit(unsigned int cpu, int state, int idx,
/// int ret), at every step of it, the last ones after it has gone.
#[raw_tracepoint(tracepoint = "cpuhp_exit")]
pub fn cpu_hotplug(ctx: RawTracePointContext) -> u32 {
    let cpu: u64 = ctx.arg(0);
    if let Some(idle) = IDLE.get_ptr_mut(cpu as u32) {
        // SAFETY: a map's value; what the CPU itself writes at the same time is overwritten by the
        // steps that follow.
        let idle = unsafe { &mut *idle };
        idle.since = 0;
        for piece in &mut idle.pieces {
            *piece = Piece { start: 0, end: 0 };
        }
    }
    0
}

/// To be called at every switch.
#[inline(always)]
pub fn on_switch<M: Memory>(prev: Task<M>, next: Task<M>, clock: u64) {
    let (from_idle, to_idle) = (prev.tid() == 0, next.tid() == 0);
    if from_idle == to_idle {
        return;
    }
    // SAFETY: returns a number.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(idle) = IDLE.get_ptr_mut(cpu) else {
        return; // more CPUs than are looked at
    };
    // SAFETY: a map's value that only this CPU writes; who reads it meanwhile may see a stretch
    // that is too long or too short once.
    let idle = unsafe { &mut *idle };
    if to_idle {
        idle.since = clock;
        return;
    }
    if idle.since == 0 {
        return; // since when is not known
    }
    let next = idle.next as usize;
    if let Some(piece) = idle.pieces.get_mut(next) {
        piece.start = idle.since;
        piece.end = clock;
    }
    idle.next = if next + 1 < PIECES {
        next as u64 + 1
    } else {
        0
    };
    idle.since = 0;
}

/// Of a thread that waited from `start` to `end`: how many CPUs it may use, if one that it may not
/// use was idle for at least half of that time; else 0.
#[inline(always)]
pub fn confined_to<M: Memory>(task: Task<M>, start: u64, end: u64) -> u32 {
    let allowed = task.cpus_allowed();
    if u64::from(allowed) < CPUS.load() && is_any_idle_but(task.cpus(), start, end) {
        allowed
    } else {
        0
    }
}

#[inline(never)]
fn is_any_idle_but(allowed: Cpus, start: u64, end: u64) -> bool {
    let least = end.saturating_sub(start) / 2;
    let stride = (CPUS.load() as u32).div_ceil(LOOKS);
    for look in 0..LOOKS {
        let cpu = look * stride;
        let Some(idle) = IDLE.get(cpu) else {
            return false;
        };
        if idle.ns_within(start, end) >= least && !allowed.has(cpu) {
            return true;
        }
    }
    false
}

impl Idle {
    /// How long it was idle between these two, as far as it is remembered.
    #[inline(always)]
    fn ns_within(&self, start: u64, end: u64) -> u64 {
        let within = |piece: &Piece| {
            let from = if piece.start > start {
                piece.start
            } else {
                start
            };
            let to = if piece.end < end { piece.end } else { end };
            to.saturating_sub(from)
        };
        let mut ns = match self.since {
            0 => 0,
            since if since.saturating_add(GONE_NS) < end => 0,
            since => within(&Piece { start: since, end }),
        };
        for piece in &self.pieces {
            ns += within(piece);
        }
        ns
    }
}

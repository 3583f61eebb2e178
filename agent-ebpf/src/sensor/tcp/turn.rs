//! Turns: which thread of a tracked process read a request and wrote the answer.
//!
//! What is kept is one small entry per thread, not per connection: a thread that works on one
//! request at a time has one turn at a time. Whoever does not (an event loop, a handed-over
//! connection) shows by writing where it has not read last, and is marked for a while, so
//! that user space draws no conclusion from it.

use agent_common::event::{
    Record, sensor,
    tcp::{KIND_TURN, TURN_INTERLEAVED, TURN_NOT_READ},
};
use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::{bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_ktime_get_ns},
    macros::map,
    maps::LruHashMap,
};

use super::ask;
use crate::{
    emit,
    kernel::{net::Sock, net::TCP, sched::Task},
    tracked::is_tracked,
};

/// A further writing of the same answer is told when the last one told is this old.
const AGAIN_NS: u64 = 500_000;
/// Who worked on several requests at once is taken to do so for this long.
const INTERLEAVED_NS: u64 = 1_000_000_000;
/// Turns are told until lengths are doubled more than three times to save cost: all of them
/// or none, as a missing one would make another look like the only one.
const WORTH: u64 = 8;

/// What a thread is at.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Turn {
    /// Address of the connection that it read a request from last, or of the one that it
    /// wrote to without; 0: none.
    socket: u64,
    /// When it began to read.
    read_ns: u64,
    /// When its writing was last told.
    told_ns: u64,
    /// It works on several at once until then.
    interleaved_until_ns: u64,
    /// 1: some of the answer is written.
    answered: u64,
    /// When it began to read the request that it works on; 0: not known.
    work_ns: u64,
    /// How often it had given up the CPU by itself when that became known.
    switches: u64,
}

impl Turn {
    /// When the running thread, whose turn this is, began to read the request that it works on; 0
    /// where that is not known (also where the kernel does not count).
    #[inline(always)]
    pub fn work_ns(&self) -> u64 {
        if self.switches != 0 && self.switches == Task::current().voluntary_switches() {
            self.work_ns
        } else {
            0
        }
    }

    /// The running thread works on that request now.
    #[inline(always)]
    pub fn works_on(&mut self, work_ns: u64) {
        self.work_ns = work_ns;
        self.switches = Task::current().voluntary_switches();
    }
}

/// By thread id. Least recently used ones go first: threads come and go.
#[map]
static TURNS: LruHashMap<u32, Turn> = LruHashMap::with_max_entries(16_384, 0);

/// The running thread has read from the connection.
#[inline(always)]
pub fn on_read(socket: u64) {
    let thread = bpf_get_current_pid_tgid();
    if is_tracked((thread >> 32) as u32) {
        read(socket, thread as u32);
    }
}

/// The running thread begins to connect the socket.
#[inline(always)]
pub fn on_connect(socket: u64) {
    let thread = bpf_get_current_pid_tgid();
    if is_tracked((thread >> 32) as u32) {
        connect(socket, thread as u32);
    }
}

/// The running thread writes to the socket; `locked`: it is known to be TCP's.
#[inline(always)]
pub fn on_write(socket: u64, locked: bool) {
    let thread = bpf_get_current_pid_tgid();
    if is_tracked((thread >> 32) as u32) {
        write(socket, thread as u32, locked);
    }
}

#[inline(never)]
fn read(socket: u64, tid: u32) -> u32 {
    let known = TURNS.get_ptr_mut(tid);
    if let Some(turn) = known {
        // SAFETY: a map's value; only this thread writes it.
        let turn = unsafe { &mut *turn };
        if turn.socket == socket && turn.answered == 0 {
            turn.works_on(turn.read_ns);
            return 0; // more of the same request
        }
    }
    let sock = Sock::at(socket);
    if !sock.is_in_process() {
        return 0;
    }
    if !sock.is_accepted() {
        if let Some(turn) = known {
            // SAFETY: as above.
            ask::read(socket, unsafe { &mut *turn });
        }
        return 0;
    }
    // SAFETY: returns a number.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let mut turn = Turn {
        socket,
        read_ns: now_ns,
        told_ns: 0,
        interleaved_until_ns: 0,
        answered: 0,
        work_ns: 0,
        switches: 0,
    };
    turn.works_on(now_ns);
    if let Some(before) = known {
        // SAFETY: as above.
        let before = unsafe { &mut *before };
        turn.interleaved_until_ns = before.interleaved_until_ns;
        if before.answered == 0 && before.socket != socket && before.socket != 0 {
            turn.interleaved_until_ns = now_ns + INTERLEAVED_NS;
        }
        *before = turn;
        return 0;
    }
    if TURNS.insert(tid, turn, u64::from(BPF_ANY)).is_err() {
        emit::lost(sensor::TCP);
    }
    0
}

#[inline(never)]
fn connect(socket: u64, tid: u32) -> u32 {
    let work_ns = match TURNS.get_ptr_mut(tid) {
        // SAFETY: a map's value; only this thread writes it.
        Some(turn) => unsafe { &*turn }.work_ns(),
        None => 0,
    };
    ask::connect(socket, work_ns);
    0
}

#[inline(never)]
fn write(socket: u64, tid: u32, locked: bool) -> u32 {
    // SAFETY: returns a number.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    if let Some(turn) = TURNS.get_ptr_mut(tid) {
        // SAFETY: a map's value; only this thread writes it.
        let turn = unsafe { &mut *turn };
        if turn.socket == socket {
            if turn.answered == 0 || now_ns - turn.told_ns >= AGAIN_NS {
                turn.answered = 1;
                turn.told_ns = now_ns;
                let interleaved = now_ns < turn.interleaved_until_ns;
                let (start_ns, extra) = match turn.read_ns {
                    0 => (now_ns, TURN_NOT_READ),
                    read_ns => (read_ns, 0),
                };
                let extra = extra | if interleaved { TURN_INTERLEAVED } else { 0 };
                tell(socket, start_ns, now_ns, extra);
            }
            return 0;
        }
        if !is_tcp(socket, locked) {
            return 0;
        }
        if !Sock::at(socket).is_accepted() {
            ask::write(socket, turn.work_ns(), now_ns);
            return 0;
        }
        // Not what it read last.
        if turn.socket != 0 && turn.answered == 0 {
            turn.interleaved_until_ns = now_ns + INTERLEAVED_NS;
        } else {
            *turn = Turn {
                socket,
                read_ns: 0,
                told_ns: now_ns,
                answered: 1,
                ..*turn
            };
        }
        tell(socket, now_ns, now_ns, TURN_NOT_READ);
        return 0;
    }
    if is_tcp(socket, locked) && Sock::at(socket).is_accepted() {
        tell(socket, now_ns, now_ns, TURN_NOT_READ);
    }
    0
}

/// Whether it is a connection of TCP.
#[inline(always)]
fn is_tcp(socket: u64, locked: bool) -> bool {
    let sock = Sock::at(socket);
    locked || (sock.protocol() == TCP && sock.is_full())
}

#[inline(always)]
fn tell(socket: u64, start_ns: u64, end_ns: u64, extra: u32) {
    if !emit::is_told(sensor::TCP, WORTH, 1) {
        return;
    }
    let task = Task::current();
    let thread = bpf_get_current_pid_tgid();
    emit::record(&Record {
        sensor: sensor::TCP,
        kind: KIND_TURN,
        start_ns,
        end_ns,
        cgroup_id: task.cgroup_id(),
        detail: socket >> 6,
        leader_start_boottime_ns: task.leader_start_boottime_ns(),
        pid: (thread >> 32) as u32,
        tid: thread as u32,
        // SAFETY: returns a number.
        cpu: unsafe { bpf_get_smp_processor_id() },
        extra,
    });
}

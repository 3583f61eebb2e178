//! Who waits for an I/O: of tracked thread groups, the thread that submitted it is
//! remembered until it is completed.

use agent_common::event::{
    Record,
    block::{KIND_DEVICE, KIND_QUEUE},
    sensor,
};
use aya_ebpf::{
    EbpfContext as _, Global,
    bindings::BPF_ANY,
    helpers::{bpf_get_current_task, bpf_get_smp_processor_id, bpf_ktime_get_ns},
    macros::{btf_tracepoint, map, raw_tracepoint},
    maps::LruHashMap,
    programs::{BtfTracePointContext, RawTracePointContext},
};

use super::throttle;
use crate::{
    consumption, emit,
    kernel::{
        Memory, Probed, Typed,
        block::{Bio, bio_is_second_argument},
        sched::Task,
        second_argument,
        worker::Runner,
    },
    tracked::is_tracked,
};

/// Stretches from this length on are told.
#[unsafe(no_mangle)]
static TRACKED_BLOCK_MIN_NS: Global<u64> = Global::new(50_000);

/// Merged I/Os of one request that are looked at.
const MAX_MERGED: usize = 8;
/// What was remembered longer ago belongs to another I/O, which had the same address.
const MAX_AGE_NS: u64 = 120_000_000_000;

/// Who submitted an I/O, and when.
#[repr(C)]
#[derive(Clone, Copy)]
struct Submission {
    ns: u64,
    cgroup_id: u64,
    leader_start_boottime_ns: u64,
    /// Address of the task.
    task: u64,
    /// Address of the cgroup's share of the queue.
    share: u64,
    tgid: u32,
    tid: u32,
}

/// By the I/O's address. Some never reach a request (they are split, or their device has
/// none): least recently used ones go first.
#[map]
static SUBMISSIONS: LruHashMap<u64, Submission> = LruHashMap::with_max_entries(4096, 0);

/// kernel: v5.11.. include/trace/events/block.h: block_bio_queue(struct bio *bio); in 5.10
/// after a struct request_queue *
#[btf_tracepoint(function = "block_bio_queue")]
pub fn block_submit(ctx: BtfTracePointContext) -> u32 {
    // SAFETY: the tracepoint's argument is a bio, typed for the verifier.
    submitted(unsafe {
        Bio::<Typed>::new(if bio_is_second_argument() {
            second_argument(ctx.as_ptr())
        } else {
            ctx.arg(0)
        })
    });
    0
}

/// The same on a hook that needs no BTF program type; its reads go through a helper.
#[raw_tracepoint(tracepoint = "block_bio_queue")]
pub fn block_submit_raw(ctx: RawTracePointContext) -> u32 {
    // SAFETY: as above; the verifier has no types here.
    submitted(unsafe {
        Bio::<Probed>::new(if bio_is_second_argument() {
            second_argument(ctx.as_ptr())
        } else {
            ctx.arg(0)
        })
    });
    0
}

#[inline(always)]
fn submitted<M: Memory>(bio: Bio<M>) {
    let runner = Runner::current();
    if runner.is_kernel_thread() {
        throttle::passed_on(bio, runner);
        return;
    }
    let task = Task::current();
    let tgid = task.tgid();
    if !is_tracked(tgid) {
        return;
    }
    let submission = Submission {
        // SAFETY: returns a number.
        ns: unsafe { bpf_ktime_get_ns() },
        cgroup_id: task.cgroup_id(),
        leader_start_boottime_ns: task.leader_start_boottime_ns(),
        // SAFETY: returns an address, which is only remembered.
        task: unsafe { bpf_get_current_task() },
        share: bio.share(),
        tgid,
        tid: task.tid(),
    };
    consumption::seek(sensor::BLOCK, submission.ns);
    if SUBMISSIONS
        .insert(bio.address(), submission, u64::from(BPF_ANY))
        .is_err()
    {
        emit::lost(sensor::BLOCK);
    }
}

/// Tells the threads that wait for a completed request what they waited for: what they did
/// not have to wait for, such as read-ahead, is nobody's delay.
#[inline(always)]
pub fn completed<M: Memory>(bio: Bio<M>, disk: u32, operation: u32, device_ns: u64, end_ns: u64) {
    let mut bio = bio;
    for _ in 0..MAX_MERGED {
        if bio.is_null() {
            return;
        }
        let address = bio.address();
        // SAFETY: the value is copied out at once.
        if let Some(submission) = (unsafe { SUBMISSIONS.get(address) }).copied() {
            let _ = SUBMISSIONS.remove(address);
            if submission.share == bio.share() && submission.still_waits(end_ns) {
                submission.tell(disk, operation, device_ns, end_ns);
            }
        }
        bio = bio.next();
    }
}

impl Submission {
    #[inline(always)]
    fn still_waits(&self, now_ns: u64) -> bool {
        // SAFETY: the task may have ended since, and `Probed` copes with any address; its
        // thread id tells.
        let task = unsafe { Task::<Probed>::new(self.task as *const u8) };
        now_ns.saturating_sub(self.ns) < MAX_AGE_NS && task.tid() == self.tid && !task.is_runnable()
    }

    #[inline(always)]
    fn tell(&self, disk: u32, operation: u32, device_ns: u64, end_ns: u64) {
        let device_ns = device_ns.max(self.ns);
        self.stretch(KIND_QUEUE, disk, operation, self.ns, device_ns);
        self.stretch(KIND_DEVICE, disk, operation, device_ns, end_ns);
    }

    #[inline(always)]
    fn stretch(&self, kind: u32, disk: u32, operation: u32, start_ns: u64, end_ns: u64) {
        let ns = end_ns.saturating_sub(start_ns);
        if !emit::is_told(sensor::BLOCK, ns, TRACKED_BLOCK_MIN_NS.load()) {
            return;
        }
        emit::record(&Record {
            sensor: sensor::BLOCK,
            kind,
            start_ns,
            end_ns,
            cgroup_id: self.cgroup_id,
            detail: u64::from(disk),
            leader_start_boottime_ns: self.leader_start_boottime_ns,
            pid: self.tgid,
            tid: self.tid,
            // SAFETY: returns a number.
            cpu: unsafe { bpf_get_smp_processor_id() },
            extra: operation,
        });
    }
}

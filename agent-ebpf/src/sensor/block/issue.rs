//! When the device got a request. Most queues make the kernel note that in the request
//! itself; only once one was met that does not, a hook of our own takes the time.

use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::bpf_ktime_get_ns,
    macros::{btf_tracepoint, map, raw_tracepoint},
    maps::{Array, LruHashMap},
    programs::{BtfTracePointContext, RawTracePointContext},
};

use crate::kernel::{Memory, block::Request, block::request_is_second_argument};

/// By the request's address. Requests are allocated with their queue and used again and
/// again, so what is left behind is written over.
#[map]
static ISSUED: LruHashMap<u64, u64> = LruHashMap::with_max_entries(16_384, 0);

/// 1 once a request came without the time.
#[map]
static TAKE_TIME: Array<u64> = Array::with_max_entries(1, 0);

/// kernel: v5.10.. include/trace/events/block.h: block_rq_issue(struct request *rq), on some
/// 5.10 after a struct request_queue *
#[btf_tracepoint(function = "block_rq_issue")]
pub fn block_issue(ctx: BtfTracePointContext) -> u32 {
    if is_wanted() {
        note(if request_is_second_argument() {
            ctx.arg::<*const u8>(1) as u64
        } else {
            ctx.arg::<*const u8>(0) as u64
        });
    }
    0
}

/// The same on a hook that needs no BTF program type.
#[raw_tracepoint(tracepoint = "block_rq_issue")]
pub fn block_issue_raw(ctx: RawTracePointContext) -> u32 {
    if is_wanted() {
        note(if request_is_second_argument() {
            ctx.arg(1)
        } else {
            ctx.arg(0)
        });
    }
    0
}

#[inline(always)]
fn is_wanted() -> bool {
    TAKE_TIME.get(0).is_some_and(|wanted| *wanted != 0)
}

#[inline(always)]
fn note(request: u64) {
    // SAFETY: returns a number.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    // A full table evicts: the worst is one request whose wait is counted as service.
    let _ = ISSUED.insert(request, now_ns, u64::from(BPF_ANY));
}

/// `CLOCK_MONOTONIC` when the device got it; 0 where that is not known.
#[inline(always)]
pub fn device_start<M: Memory>(request: Request<M>) -> u64 {
    let noted_ns = request.io_start_ns();
    if noted_ns != 0 {
        return noted_ns;
    }
    if !is_wanted() {
        if let Some(wanted) = TAKE_TIME.get_ptr_mut(0) {
            // SAFETY: a map's value; whoever writes it writes the same.
            unsafe { *wanted = 1 };
        }
        return 0;
    }
    let address = request.address();
    // SAFETY: the value is copied out at once.
    let Some(issued_ns) = (unsafe { ISSUED.get(address) }).copied() else {
        return 0;
    };
    let _ = ISSUED.remove(address);
    issued_ns
}

//! Reads of what was in memory before, and was pushed out of it for lack of room: the disk does
//! the work, but the reason is the limit, or the host, that had no room for it.
//!
//! The kernel knows such a page by what it left in its place, but does not tell. So the pages
//! that reclaim pushes out are remembered here, of the memory cgroups in which tracked processes
//! read files, until a thread of such a process puts the same page of the same file into memory
//! again; the I/O that it submits next is for these. Only while such processes reclaim memory.

use agent_common::{
    event::{memory::KIND_MEMCG_RECLAIM, sensor},
    series::{SeriesKey, family},
};
use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::bpf_ktime_get_ns,
    macros::{map, raw_tracepoint},
    maps::{Array, LruHashMap},
    programs::RawTracePointContext,
};

use super::RECLAIMS;
use crate::{
    kernel::{Probed, page::Folio, sched::Task},
    series,
    tracked::is_tracked,
};

/// Pages of a folio that are looked at: all of up to 64 KiB, of larger ones every so many.
const LOOKS: u64 = 16;
/// A read is submitted at once after its pages were put into memory, or the thread did not run
/// meanwhile.
const GAP_NS: u64 = 100_000_000;

/// Pages that were pushed out, the latest first, each as a hash of its file and place with
/// [`TAKEN`] and [`LIMIT`] in it; 0: none.
#[repr(C)]
struct Bucket([u64; 4]);

/// In a remembered page: there is one.
const TAKEN: u64 = 2;
/// A memory cgroup's limit was the reason, not the host.
const LIMIT: u64 = 1;

/// By the high bits of the hash; a page that four others of its bucket came after is forgotten. Of
/// 4 KiB each it is room for 1 GiB, and 2 MiB large.
#[map]
static PUSHED_OUT: Array<Bucket> = Array::with_max_entries(1 << BUCKET_BITS, 0);
const BUCKET_BITS: u32 = 16;

/// Memory cgroups in which tracked processes read files. Least recently used ones go first.
#[map]
static READERS: LruHashMap<u64, u32> = LruHashMap::with_max_entries(256, 0);

/// What a thread put into memory last, to read it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Reading {
    pages: u64,
    /// Those of them that had been pushed out,
    again: u64,
    /// and those of these for a limit.
    limited: u64,
    /// When the last was put there.
    last_ns: u64,
    /// 1: the read is under way; what comes now is another.
    submitted: u64,
}

/// By thread id. Least recently used ones go first: threads come and go.
#[map]
static READINGS: LruHashMap<u32, Reading> = LruHashMap::with_max_entries(4096, 0);

/// kernel: v5.10.. include/trace/events/filemap.h: mm_filemap_delete_from_page_cache(struct folio
/// *folio), before 5.16 of a struct page *; before it is taken out.
#[raw_tracepoint(tracepoint = "mm_filemap_delete_from_page_cache")]
pub fn memory_pushed_out(ctx: RawTracePointContext) -> u32 {
    // SAFETY: the tracepoint's argument.
    let folio = unsafe { Folio::new(ctx.arg(0)) };
    // SAFETY: only whether it is there is of interest.
    if unsafe { READERS.get(folio.charged_to()) }.is_none() {
        return 0;
    }
    let Some(limit) = reclaims() else {
        return 0; // whoever gave it up wanted to
    };
    let file = folio.file();
    if file == 0 {
        return 0;
    }
    let (first, pages) = (folio.index(), folio.pages());
    let stride = pages.div_ceil(LOOKS);
    for look in 0..LOOKS {
        let at = look * stride;
        if at >= pages {
            break;
        }
        push_out(hash(file, first.wrapping_add(at)), limit);
    }
    0
}

/// kernel: v5.10.. mm_filemap_add_to_page_cache(struct folio *folio), before 5.16 of a struct page
/// *; in the context of the thread that wants it, charged already.
#[raw_tracepoint(tracepoint = "mm_filemap_add_to_page_cache")]
pub fn memory_brought_in(ctx: RawTracePointContext) -> u32 {
    let task = Task::current();
    if !is_tracked(task.tgid()) {
        return 0;
    }
    // SAFETY: the tracepoint's argument.
    let folio = unsafe { Folio::new(ctx.arg(0)) };
    let charged_to = folio.charged_to();
    // SAFETY: only whether it is there is of interest.
    if unsafe { READERS.get(charged_to) }.is_none() {
        // A full table evicts: the worst is a cgroup whose pages are not remembered for a while.
        let _ = READERS.insert(charged_to, 0, u64::from(BPF_ANY));
    }
    let (file, first, pages) = (folio.file(), folio.index(), folio.pages());
    let stride = pages.div_ceil(LOOKS);
    let mut found = 0;
    for look in 0..LOOKS {
        let at = look * stride;
        if at >= pages {
            break;
        }
        found |= bring_in(hash(file, first.wrapping_add(at)));
    }
    let again = if found == 0 { 0 } else { pages };
    let limited = if found & LIMIT == 0 { 0 } else { pages };
    // SAFETY: returns a number.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let tid = task.tid();
    if let Some(reading) = READINGS.get_ptr_mut(tid) {
        // SAFETY: a map's value that only this thread writes.
        let reading = unsafe { &mut *reading };
        let is_more = reading.submitted == 0 && now_ns.saturating_sub(reading.last_ns) < GAP_NS;
        reading.last_ns = now_ns;
        if is_more {
            reading.pages += pages;
            reading.again += again;
            reading.limited += limited;
        } else {
            reading.pages = pages;
            reading.again = again;
            reading.limited = limited;
            reading.submitted = 0;
        }
        return 0;
    }
    let reading = Reading {
        pages,
        again,
        limited,
        last_ns: now_ns,
        submitted: 0,
    };
    // A full table evicts: the worst is a read that is taken for one of something new.
    let _ = READINGS.insert(tid, reading, u64::from(BPF_ANY));
    0
}

/// What a read that the running thread submits now is for.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ReadFor {
    /// Something that was not in memory, or not known to have been.
    New = 0,
    /// Half of it or more had been pushed out as the host ran short of memory.
    PushedOut = 1,
    /// Likewise below a memory cgroup's limit.
    PushedOutBelowLimit = 2,
}

/// To be called when a thread of a tracked process submits a read; counts the pages of it that had
/// been pushed out.
#[inline(always)]
pub fn submitted(task: Task<Probed>, now_ns: u64) -> ReadFor {
    let Some(reading) = READINGS.get_ptr_mut(task.tid()) else {
        return ReadFor::New;
    };
    // SAFETY: a map's value that only this thread writes.
    let reading = unsafe { &mut *reading };
    if now_ns.saturating_sub(reading.last_ns) >= GAP_NS {
        return ReadFor::New;
    }
    let is_limited = reading.limited * 2 >= reading.again;
    // A read may be submitted in pieces.
    if reading.submitted == 0 {
        reading.submitted = 1;
        if reading.again != 0 {
            let key = SeriesKey {
                cgroup_id: task.cgroup_id(),
                family: family::REFAULTS,
                a: u32::from(is_limited),
                b: 0,
            };
            series::count(sensor::MEMORY, &key, reading.again);
        }
    }
    if reading.again * 2 < reading.pages {
        ReadFor::New
    } else if is_limited {
        ReadFor::PushedOutBelowLimit
    } else {
        ReadFor::PushedOut
    }
}

/// Whether the running thread reclaims memory; then [`LIMIT`], or 0 for the host.
#[inline(always)]
fn reclaims() -> Option<u64> {
    let task = Task::current();
    if task.is_kswapd() {
        return Some(0);
    }
    // SAFETY: the value is copied out at once.
    let reclaim = unsafe { RECLAIMS.get(task.tid()) }.copied()?;
    let limit = u64::from(reclaim.kind == u64::from(KIND_MEMCG_RECLAIM));
    (reclaim.start_ns != 0).then_some(limit)
}

/// Of a page of a file.
#[inline(always)]
fn hash(file: u64, index: u64) -> u64 {
    let mut hash = file ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ hash >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (hash ^ hash >> 29).wrapping_mul(0x94d0_49bb_1331_11eb)
}

#[inline(always)]
fn bucket(hash: u64) -> Option<&'static mut Bucket> {
    let bucket = PUSHED_OUT.get_ptr_mut((hash >> (64 - BUCKET_BITS)) as u32)?;
    // SAFETY: a map's value. Others may write it at the same time, each word as a whole: the
    // worst is a page that is forgotten.
    Some(unsafe { &mut *bucket })
}

#[inline(always)]
fn push_out(hash: u64, limit: u64) {
    if let Some(Bucket(pages)) = bucket(hash) {
        let [first, second, third, _] = *pages;
        *pages = [
            hash & !(TAKEN | LIMIT) | TAKEN | limit,
            first,
            second,
            third,
        ];
    }
}

/// Forgets the page; 0 if it was not remembered, else how ([`TAKEN`], [`LIMIT`]).
#[inline(always)]
fn bring_in(hash: u64) -> u64 {
    let Some(Bucket(pages)) = bucket(hash) else {
        return 0;
    };
    let mark = hash & !(TAKEN | LIMIT) | TAKEN;
    let mut found = 0;
    for page in pages {
        if *page & !LIMIT == mark {
            found |= *page & (TAKEN | LIMIT);
            *page = 0;
        }
    }
    found
}

//! Histograms of every cgroup: a direct-mapped table per CPU, and behind it a hash table for
//! those that had to make room.

use agent_common::{
    cpu::{CgroupTotals, CpuSlot},
    event::sensor,
    histogram::{Histogram, slot_of},
};
use aya_ebpf::{
    Global,
    bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST},
    macros::map,
    maps::{HashMap, PerCpuArray},
};
use aya_log_ebpf::debug;

use crate::{atomic, emit};

/// Sized by the loader, with [`CPU_SLOT_MASK`].
#[map]
static CPU_SLOTS: PerCpuArray<CpuSlot> = PerCpuArray::with_max_entries(1024, 0);

/// Length of [`CPU_SLOTS`] - 1; the length is a power of two.
#[unsafe(no_mangle)]
static CPU_SLOT_MASK: Global<u32> = Global::new(1023);

/// What was counted in slots that were taken over, by cgroup. Pruned by user space.
#[map]
static CPU_TOTALS: HashMap<u64, CgroupTotals> = HashMap::with_max_entries(8192, BPF_F_NO_PREALLOC);

/// The slot of a cgroup on this CPU.
#[inline(always)]
pub fn slot(cgroup_id: u64) -> Option<&'static mut CpuSlot> {
    let slot = CPU_SLOTS.get_ptr_mut(cgroup_id as u32 & CPU_SLOT_MASK.load())?;
    // SAFETY: the pointer is to this CPU's own copy; programs on this hook run with
    // interrupts off, so nobody else on this CPU holds it. User space only reads it.
    let slot = unsafe { &mut *slot };
    if slot.cgroup_id != cgroup_id {
        take_over(slot, cgroup_id);
    }
    Some(slot)
}

/// Counts one throttled interval.
#[inline(always)]
pub fn throttled(slot: &mut CpuSlot, ns: u64) {
    add(&mut slot.totals.throttled, ns);
}

/// Counts one wait for a CPU.
#[inline(always)]
pub fn runqueue(slot: &mut CpuSlot, ns: u64) {
    add(&mut slot.totals.runqueue, ns);
}

#[inline(always)]
fn add(histogram: &mut Histogram, ns: u64) {
    histogram.sum_ns += ns;
    if let Some(count) = histogram.slots.get_mut(slot_of(ns)) {
        *count += 1;
    }
}

#[inline(never)]
fn take_over(slot: &mut CpuSlot, cgroup_id: u64) {
    if slot.cgroup_id != 0 {
        debug!(
            (),
            "cgroup {} leaves its slot to {}", slot.cgroup_id, cgroup_id
        );
        if !flush(slot) {
            emit::lost(sensor::CPU);
        }
    }
    // Volatile, word by word: a call of memset is not available here.
    let words: *mut u64 = core::ptr::from_mut(slot).cast();
    for i in 0..size_of::<CpuSlot>() / 8 {
        // SAFETY: within the slot, which is made of u64 only.
        unsafe { words.add(i).write_volatile(0) };
    }
    slot.cgroup_id = cgroup_id;
}

#[expect(
    clippy::needless_borrows_for_generic_args,
    reason = "by value, the totals would be copied to a stack of 512 bytes"
)]
fn flush(slot: &CpuSlot) -> bool {
    if CPU_TOTALS
        .insert(slot.cgroup_id, &slot.totals, u64::from(BPF_NOEXIST))
        .is_ok()
    {
        return true;
    }
    let Some(totals) = CPU_TOTALS.get_ptr_mut(slot.cgroup_id) else {
        return false;
    };
    let from: *const u64 = core::ptr::from_ref(&slot.totals).cast();
    let to: *mut u64 = totals.cast();
    for i in 0..size_of::<CgroupTotals>() / 8 {
        // SAFETY: both are made of u64 only, `i` is within them; other CPUs add at the same
        // time, hence the atomic.
        unsafe {
            let add = *from.add(i);
            if add != 0 {
                atomic::add(to.add(i), add);
            }
        }
    }
    true
}

//! Who consumed how much, told in stretches of a few milliseconds: single I/Os and packets are
//! too many to be told one by one, and a total since the start cannot say who it was just then.

use agent_common::{
    consumption::{ConsumerKey, KIND_CONSUMED},
    event::{Record, sensor},
};
use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::bpf_get_smp_processor_id,
    macros::map,
    maps::{Array, LruHashMap},
};

use crate::{atomic, emit};

/// A stretch is told when it is this long and something more comes.
const STRETCH_NS: u64 = 10_000_000;

/// What one consumer has had since it was last told.
#[repr(C)]
#[derive(Clone, Copy)]
struct Sum {
    first_ns: u64,
    last_ns: u64,
    amount: u64,
}

/// Least recently used ones go first: the worst is a stretch that is not told.
#[map]
static CONSUMERS: LruHashMap<ConsumerKey, Sum> = LruHashMap::with_max_entries(1024, 0);

/// How long after somebody's last use of a resource its other consumers are told.
const SOUGHT_FOR_NS: u64 = 10_000_000_000;

/// `CLOCK_MONOTONIC` when a tracked thread last used the resource, by sensor id; 0: never.
#[map]
static SOUGHT: Array<u64> = Array::with_max_entries(sensor::COUNT, 0);

/// A tracked thread uses the sensor's resource: who else does becomes of interest.
#[inline(always)]
pub fn seek(sensor_id: u32, now_ns: u64) {
    if let Some(sought) = SOUGHT.get_ptr_mut(sensor_id) {
        // SAFETY: a map's value; an aligned write of one word, and any of those at the same
        // time will do.
        unsafe { sought.write_volatile(now_ns) };
    }
}

/// Whether consumers of the sensor's resource are of interest.
#[inline(always)]
pub fn is_sought(sensor_id: u32, now_ns: u64) -> bool {
    SOUGHT
        .get(sensor_id)
        .is_some_and(|sought| *sought != 0 && now_ns.saturating_sub(*sought) < SOUGHT_FOR_NS)
}

/// Adds `amount`, consumed from `start_ns` to `end_ns`; stretches of less than `least` are not
/// told.
#[inline(always)]
pub fn add(key: &ConsumerKey, start_ns: u64, end_ns: u64, amount: u64, least: u64) {
    let Some(sum) = CONSUMERS.get_ptr_mut(key) else {
        let sum = Sum {
            first_ns: start_ns,
            last_ns: end_ns,
            amount,
        };
        if CONSUMERS.insert(key, sum, u64::from(BPF_ANY)).is_err() {
            emit::lost(key.sensor as u32);
        }
        return;
    };
    // SAFETY: a map's value. When two CPUs tell the same stretch at the same time, one finds
    // nothing left to tell.
    unsafe {
        let first_ns = (*sum).first_ns;
        if end_ns.saturating_sub(first_ns) < STRETCH_NS {
            (*sum).last_ns = end_ns;
            atomic::add(&raw mut (*sum).amount, amount);
            return;
        }
        let last_ns = (*sum).last_ns;
        let told = (*sum).amount;
        (*sum).first_ns = if start_ns > last_ns {
            start_ns
        } else {
            last_ns
        };
        (*sum).last_ns = end_ns;
        (*sum).amount = amount;
        if told >= least && last_ns >= first_ns {
            tell(key, first_ns, last_ns, told);
        }
    }
}

#[inline(always)]
fn tell(key: &ConsumerKey, start_ns: u64, end_ns: u64, amount: u64) {
    emit::record(&Record {
        sensor: key.sensor as u32,
        kind: KIND_CONSUMED,
        start_ns,
        end_ns,
        cgroup_id: key.cgroup_id,
        detail: key.resource,
        leader_start_boottime_ns: 0,
        pid: 0,
        tid: 0,
        // SAFETY: returns a number.
        cpu: unsafe { bpf_get_smp_processor_id() },
        extra: if amount > u64::from(u32::MAX) {
            u32::MAX
        } else {
            amount as u32
        },
    });
}

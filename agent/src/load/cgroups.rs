//! Reads the per-cgroup histograms: slots of every CPU plus what had to leave them.

use std::collections::{HashMap, HashSet};

use agent_common::cpu::{CgroupTotals, CpuSlot};
use aya::maps::{HashMap as KernelHashMap, MapData, PerCpuArray};
use parking_lot::Mutex;

use crate::sensor::{CgroupCpu, KernelHistogram};

/// Both tables and what they gave last time.
pub struct CgroupTables {
    inner: Mutex<Inner>,
}

struct Inner {
    slots: PerCpuArray<MapData, CpuSlot>,
    totals: KernelHashMap<MapData, u64, CgroupTotals>,
    /// Entries that `totals` has room for; 0 where the kernel did not say.
    capacity: u32,
    last: HashMap<u64, CgroupCpu>,
    /// Gone, but still in a slot that nobody took over.
    gone: HashSet<u64>,
}

impl CgroupTables {
    pub fn new(
        slots: PerCpuArray<MapData, CpuSlot>,
        totals: KernelHashMap<MapData, u64, CgroupTotals>,
        capacity: u32,
    ) -> Self {
        Self {
            inner: Mutex::new(Inner {
                slots,
                totals,
                capacity,
                last: HashMap::new(),
                gone: HashSet::new(),
            }),
        }
    }

    /// Everything counted so far, by cgroup, in no order.
    pub fn read(&self) -> Vec<CgroupCpu> {
        self.inner.lock().read()
    }

    /// How full the table behind the slots is, 0..1.
    pub fn fill(&self) -> f64 {
        let inner = self.inner.lock();
        let entries = inner.totals.keys().filter(Result::is_ok).count();
        if inner.capacity == 0 {
            0.0
        } else {
            entries as f64 / f64::from(inner.capacity)
        }
    }

    /// Forgets the cgroups that are no longer live.
    pub fn prune(&self, is_live: impl Fn(u64) -> bool) -> usize {
        let inner = &mut *self.inner.lock();
        inner.read();
        let dead: Vec<u64> = inner
            .last
            .keys()
            .copied()
            .filter(|id| !is_live(*id))
            .collect();
        for id in &dead {
            inner.last.remove(id);
            inner.gone.insert(*id);
            // Usually it never had to leave its slots and is not in there.
            drop(inner.totals.remove(id));
        }
        dead.len()
    }
}

impl Inner {
    fn read(&mut self) -> Vec<CgroupCpu> {
        let mut now: HashMap<u64, CgroupCpu> = HashMap::new();
        let mut in_slots = HashSet::new();
        for index in 0..self.slots.len() {
            let Ok(per_cpu) = self.slots.get(&index, 0) else {
                continue;
            };
            for slot in per_cpu.iter().filter(|slot| slot.cgroup_id != 0) {
                in_slots.insert(slot.cgroup_id);
                add(&mut now, slot.cgroup_id, &slot.totals);
            }
        }
        for (id, totals) in self.totals.iter().filter_map(Result::ok) {
            add(&mut now, id, &totals);
        }
        // An id is never given twice while the host runs (kernfs counts generations in it).
        self.gone.retain(|id| in_slots.contains(id));
        for (id, cpu) in now {
            if self.gone.contains(&id) {
                continue;
            }
            let last = self.last.entry(id).or_default();
            last.cgroup_id = id;
            // A slot that was being taken over while it was read is for a moment in neither
            // table.
            raise(&mut last.throttled, &cpu.throttled);
            raise(&mut last.runqueue, &cpu.runqueue);
        }
        self.last.values().cloned().collect()
    }
}

fn add(all: &mut HashMap<u64, CgroupCpu>, id: u64, totals: &CgroupTotals) {
    let cpu = all.entry(id).or_default();
    cpu.throttled.add(&totals.throttled);
    cpu.runqueue.add(&totals.runqueue);
}

fn raise(to: &mut KernelHistogram, from: &KernelHistogram) {
    to.sum_ns = to.sum_ns.max(from.sum_ns);
    to.slots.resize(from.slots.len(), 0);
    for (to, from) in to.slots.iter_mut().zip(&from.slots) {
        *to = (*to).max(*from);
    }
}

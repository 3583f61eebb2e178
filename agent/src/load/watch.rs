//! Attaches what the kernel side asks for, for as long as it does, and tells who saves cost.

use std::sync::Arc;

use agent_common::event::sensor;
use aya::{
    Ebpf,
    maps::{Array, MapData},
};
use parking_lot::Mutex;

use super::{demand::OnDemand, late::Late, upkeep::Upkeep};
use crate::{
    event::Event,
    sensor::{Activation, Poller},
    time::MonoNs,
};

/// Without a use for it for this long a hook is taken off.
const KEEP_NS: u64 = 10_000_000_000;

/// Owns programs and links: dropping it detaches and unloads them all.
pub struct Programs {
    pub ebpf: Ebpf,
    pub on_demand: OnDemand,
    pub upkeep: Upkeep,
    pub late: Late,
}

/// See the module.
pub struct Watch {
    wanted: Array<MapData, u64>,
    programs: Arc<Mutex<Option<Programs>>>,
}

impl Watch {
    /// Of these programs; `wanted` is the map `WANTED`.
    pub fn new(wanted: Array<MapData, u64>, programs: Arc<Mutex<Option<Programs>>>) -> Self {
        Self { wanted, programs }
    }
}

impl Poller for Watch {
    fn poll(&mut self, now: MonoNs, out: &mut Vec<Event>) {
        let last_ns = self.wanted.get(&sensor::BLOCK, 0).unwrap_or(0);
        let wanted = last_ns != 0 && now.since(MonoNs(last_ns)) < KEEP_NS;
        if let Some(Programs {
            ebpf,
            on_demand,
            upkeep,
            ..
        }) = self.programs.lock().as_mut()
        {
            on_demand.set(ebpf, Activation::WhileThrottled, wanted);
            out.append(&mut upkeep.take_savings());
        }
    }
}

//! Reads the counters and histograms by cgroup and label.

use std::collections::BTreeMap;

use agent_common::{
    event::block::KIND_DEVICE,
    histogram::Histogram,
    series::{SeriesKey, family},
};
use aya::maps::{HashMap as KernelHashMap, MapData};
use parking_lot::Mutex;

use super::unseen::Completions;
use crate::sensor::{self, Decoder, Family, KernelHistogram, Measured, Value};

/// Both tables, and who knows what their numbers mean.
pub struct SeriesTables {
    inner: Mutex<Inner>,
    /// Entries that each has room for, histograms first; 0 where the kernel did not say.
    capacities: [u32; 2],
}

struct Inner {
    histograms: KernelHashMap<MapData, SeriesKey, Histogram>,
    counters: KernelHashMap<MapData, SeriesKey, u64>,
    decoder: Decoder,
    /// Of cgroups that were forgotten.
    completions: Completions,
}

impl SeriesTables {
    pub fn new(
        histograms: KernelHashMap<MapData, SeriesKey, Histogram>,
        counters: KernelHashMap<MapData, SeriesKey, u64>,
        capacities: [u32; 2],
        decoder: Decoder,
    ) -> Self {
        Self {
            inner: Mutex::new(Inner {
                histograms,
                counters,
                decoder,
                completions: Completions::new(),
            }),
            capacities,
        }
    }

    /// Everything counted so far, in no order.
    pub fn read(&self) -> Vec<Measured> {
        let inner = &mut *self.inner.lock();
        let (mut histograms, mut counts) = (BTreeMap::new(), BTreeMap::new());
        for (key, histogram) in inner.histograms.iter().filter_map(Result::ok) {
            if let Some(key) = translated(&mut inner.decoder, key) {
                let sum: &mut KernelHistogram = histograms.entry(key).or_default();
                sum.add(&histogram);
            }
        }
        for (key, count) in inner.counters.iter().filter_map(Result::ok) {
            if let Some(key) = translated(&mut inner.decoder, key) {
                *counts.entry(key).or_insert(0_u64) += count;
            }
        }
        let histograms = histograms
            .into_iter()
            .map(|(k, v)| (k, Value::Histogram(v)));
        let counts = counts.into_iter().map(|(k, v)| (k, Value::Count(v)));
        histograms
            .chain(counts)
            .filter_map(|(key, value)| measured(&mut inner.decoder, key, value))
            .collect()
    }

    /// Block requests completed since the start, by disk.
    pub fn completions(&self) -> Completions {
        let inner = &*self.inner.lock();
        let mut sums = inner.completions.clone();
        for (key, histogram) in inner.histograms.iter().filter_map(Result::ok) {
            if is_completion(&key) {
                *sums.entry(key.a).or_insert(0) += histogram.slots.iter().sum::<u64>();
            }
        }
        sums
    }

    /// How full each table is, 0..1, histograms first.
    pub fn fill(&self) -> [f64; 2] {
        let inner = self.inner.lock();
        let entries = [
            inner.histograms.keys().filter(Result::is_ok).count(),
            inner.counters.keys().filter(Result::is_ok).count(),
        ];
        let mut fill = [0.0; 2];
        for (fill, (entries, capacity)) in fill
            .iter_mut()
            .zip(entries.into_iter().zip(self.capacities))
        {
            *fill = entries as f64 / f64::from(capacity.max(1));
        }
        fill
    }

    /// Forgets the cgroups that are no longer live.
    pub fn prune(&self, is_live: impl Fn(u64) -> bool) {
        let inner = &mut *self.inner.lock();
        let decoder = &mut inner.decoder;
        let mut gone = |key: &SeriesKey| {
            key.cgroup_id != 0
                && translated(decoder, *key).is_none_or(|key| !is_live(key.cgroup_id))
        };
        let dead: Vec<SeriesKey> = inner
            .histograms
            .keys()
            .filter_map(Result::ok)
            .filter(&mut gone)
            .collect();
        for key in dead {
            if is_completion(&key)
                && let Ok(histogram) = inner.histograms.get(&key, 0)
            {
                let sum = inner.completions.entry(key.a).or_insert(0);
                *sum += histogram.slots.iter().sum::<u64>();
            }
            // Somebody who removed it meanwhile did what was wanted.
            drop(inner.histograms.remove(&key));
        }
        let dead: Vec<SeriesKey> = inner
            .counters
            .keys()
            .filter_map(Result::ok)
            .filter(&mut gone)
            .collect();
        for key in dead {
            drop(inner.counters.remove(&key));
        }
    }
}

/// Every request is counted once as the device's.
fn is_completion(key: &SeriesKey) -> bool {
    key.family == family::BLOCK && (key.b >> 8) as u32 == KIND_DEVICE
}

/// With the cgroup as the CPU controller's hierarchy has it; `None` if it is gone.
fn translated(decoder: &mut Decoder, key: SeriesKey) -> Option<SeriesKey> {
    // A family's id is its sensor's times 16, and a number.
    let cgroup_id = decoder.cgroup(key.family / 16, key.cgroup_id)?;
    Some(SeriesKey { cgroup_id, ..key })
}

/// A family that nobody knows is of another version's object, which cannot be.
fn measured(decoder: &mut Decoder, key: SeriesKey, value: Value) -> Option<Measured> {
    let (sensor, family): (u32, &'static Family) =
        sensor::families().find(|(_, family)| family.id == key.family)?;
    Some(Measured {
        key,
        family,
        labels: decoder.labels(sensor, &key),
        value,
    })
}

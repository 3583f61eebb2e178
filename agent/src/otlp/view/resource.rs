//! Resources, read once and shared by every request that carries the same bytes.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use parking_lot::Mutex;

use super::Attribute;
use crate::{
    otlp::{
        schema,
        wire::{Fields, Value, WireError},
    },
    span::Resource,
};

/// Resources kept in each of the two generations.
const MAX_GENERATION: usize = 512;
/// A resource of more bytes is read each time: it would take too much of the cache.
const MAX_CACHED_BYTES: usize = 16 * 1024;
/// Longer attribute values are cut: they name things, and are shown.
const MAX_VALUE_BYTES: usize = 1024;

/// Two generations: what is used stays, the rest goes when the younger one is full.
#[derive(Default)]
struct Cache {
    young: HashMap<Box<[u8]>, Arc<Resource>>,
    old: HashMap<Box<[u8]>, Arc<Resource>>,
}

impl Cache {
    fn get(&mut self, bytes: &[u8]) -> Option<Arc<Resource>> {
        if let Some(found) = self.young.get(bytes) {
            return Some(Arc::clone(found));
        }
        let (key, found) = self.old.remove_entry(bytes)?;
        self.insert(key, Arc::clone(&found));
        Some(found)
    }

    fn insert(&mut self, key: Box<[u8]>, resource: Arc<Resource>) {
        if self.young.len() >= MAX_GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, resource);
    }
}

/// One for the process: a resource is the same whichever connection it came by.
static CACHE: LazyLock<Mutex<Cache>> = LazyLock::new(Mutex::default);

/// The resource of these bytes, shared.
pub(in crate::otlp) fn intern(bytes: &[u8]) -> Result<Arc<Resource>, WireError> {
    if bytes.len() > MAX_CACHED_BYTES {
        return read(bytes).map(Arc::new);
    }
    if let Some(found) = CACHE.lock().get(bytes) {
        return Ok(found);
    }
    let resource = Arc::new(read(bytes)?);
    CACHE.lock().insert(bytes.into(), Arc::clone(&resource));
    Ok(resource)
}

/// Reads a `Resource` message. Of several attributes of one key, the first counts.
pub(super) fn read(bytes: &[u8]) -> Result<Resource, WireError> {
    schema::RESOURCE.check(bytes, 2)?;
    let mut resource = Resource::default();
    let mut fields = Fields::new(bytes);
    while let Some(field) = fields.next_field()? {
        if let (1, Value::Len(attribute)) = (field.number, field.value) {
            take(&mut resource, &Attribute::read(attribute, 3)?);
        }
    }
    Ok(resource)
}

fn take(resource: &mut Resource, attribute: &Attribute<'_>) {
    let target = match attribute.key {
        b"service.name" => &mut resource.service,
        b"service.instance.id" => &mut resource.instance_id,
        b"container.id" => &mut resource.container_id,
        b"k8s.pod.uid" => &mut resource.pod_uid,
        b"k8s.pod.name" => &mut resource.pod,
        b"k8s.namespace.name" => &mut resource.namespace,
        b"k8s.node.name" => &mut resource.node,
        b"host.name" => &mut resource.host,
        b"telemetry.sdk.language" => &mut resource.language,
        b"process.pid" => {
            resource.pid = resource.pid.or_else(|| pid(attribute));
            return;
        }
        _ => return,
    };
    if let (true, Some(value)) = (target.is_empty(), attribute.string()) {
        let value = &value[..value.len().min(MAX_VALUE_BYTES)];
        String::from_utf8_lossy(value).as_ref().clone_into(target);
    }
}

/// An integer by the conventions; some exporters send it as text.
fn pid(attribute: &Attribute<'_>) -> Option<u32> {
    let from_text = || std::str::from_utf8(attribute.string()?).ok()?.parse().ok();
    attribute
        .int()
        .and_then(|pid| u32::try_from(pid).ok())
        .or_else(from_text)
        .filter(|pid| *pid > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_used() {
        let mut cache = Cache::default();
        let used = Arc::new(Resource::default());
        cache.insert(Box::from(&b"used"[..]), Arc::clone(&used));
        for i in 0..10 * MAX_GENERATION {
            let key = i.to_string().into_bytes().into_boxed_slice();
            cache.insert(key, Arc::default());
            let found = cache.get(b"used").expect("it is asked for all the time");
            assert!(Arc::ptr_eq(&found, &used));
            assert!(cache.young.len() + cache.old.len() <= 2 * MAX_GENERATION);
        }
        assert!(cache.get(b"0").is_none());
    }
}

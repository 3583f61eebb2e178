//! Podman's names: one list for all containers, in the storage's own file.

use std::{
    collections::HashMap,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use serde::Deserialize;

use super::{MAX_FILE, MAX_NAME, read_bounded};

/// The file is looked at again at most this often.
const LIFETIME: Duration = Duration::from_secs(2);
/// Where the storage drivers keep it, below the host's root.
const LISTS: &[&str] = &[
    "var/lib/containers/storage/overlay-containers/containers.json",
    "var/lib/containers/storage/overlay-containers/volatile-containers.json",
    "var/lib/containers/storage/vfs-containers/containers.json",
];
/// Names kept.
const MAX_NAMES: usize = 16_384;

#[derive(Debug, Default)]
pub(super) struct Names(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    looked: Option<Instant>,
    changed: Vec<Option<SystemTime>>,
    names: HashMap<String, String>,
}

#[derive(Deserialize)]
struct Container {
    id: String,
    #[serde(default)]
    names: Vec<String>,
}

impl Names {
    /// The first name of the container with this id.
    pub fn get(&self, root: &Path, id: &str) -> Option<String> {
        let mut inner = self.0.lock();
        let fresh = inner.looked.is_some_and(|at| at.elapsed() < LIFETIME);
        if !fresh {
            inner.looked = Some(Instant::now());
            let changed: Vec<_> = LISTS
                .iter()
                .map(|list| root.join(list).metadata().and_then(|m| m.modified()).ok())
                .collect();
            if changed != inner.changed {
                inner.changed = changed;
                inner.names = LISTS.iter().flat_map(|l| read(&root.join(l))).collect();
            }
        }
        inner.names.get(id).cloned()
    }
}

fn read(path: &Path) -> Vec<(String, String)> {
    let containers: Vec<Container> = read_bounded(path, MAX_FILE)
        .ok()
        .and_then(|file| serde_json::from_slice(&file).ok())
        .unwrap_or_default();
    let named = containers.into_iter().filter_map(|container| {
        let mut name = container.names.into_iter().next()?;
        name.truncate(name.floor_char_boundary(MAX_NAME));
        Some((container.id, name))
    });
    named.take(MAX_NAMES).collect()
}

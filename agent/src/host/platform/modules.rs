//! What the kernel brings along for isolation: modules and their parameters, character
//! devices, IOMMUs.

use std::{collections::BTreeMap, path::Path};

use super::text;

/// Modules that run or connect machines, with the parameters that matter.
const MODULES: &[(&str, &[&str])] = &[
    ("kvm_amd", &["npt", "nested", "sev", "sev_es", "sev_snp"]),
    ("kvm_intel", &["ept", "nested", "unrestricted_guest", "tdx"]),
    ("kvm_pvm", &[]),
    ("vhost_net", &[]),
    ("vhost_vsock", &[]),
    ("vhost_vdpa", &[]),
    ("vfio_pci", &[]),
    ("mshv_root", &[]),
];

/// Character devices below `/sys/class/misc`.
const DEVICES: &[&str] = &[
    "kvm",
    "sev",
    "sev-guest",
    "sev_guest",
    "tdx_guest",
    "vhost-net",
    "vhost-vsock",
    "mshv",
];

/// Names read of a directory.
const MAX_NAMES: usize = 64;

pub(super) fn modules(sys: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (module, parameters) in MODULES {
        let dir = sys.join("module").join(module);
        if !dir.is_dir() {
            continue;
        }
        found.insert((*module).to_owned(), String::new());
        for parameter in *parameters {
            let value = text(&dir.join("parameters").join(parameter));
            if !value.is_empty() {
                found.insert(format!("{module}.{parameter}"), value);
            }
        }
    }
    found
}

pub(super) fn misc_devices(sys: &Path) -> Vec<String> {
    let class = sys.join("class/misc");
    DEVICES
        .iter()
        .filter(|name| std::fs::symlink_metadata(class.join(name)).is_ok())
        .map(|name| (*name).to_owned())
        .collect()
}

/// Names in a directory, sorted and bounded.
pub(super) fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .flatten()
        .take(MAX_NAMES)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// How many entries a directory has.
pub(super) fn count(dir: &Path) -> u32 {
    std::fs::read_dir(dir).map_or(0, |entries| {
        u32::try_from(entries.take(1 << 16).count()).unwrap_or(u32::MAX)
    })
}

//! Which modules of a kernel a guest gets: those that the sensors meet, and what they need.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use harness::peers;

use super::{initramfs::Archive, kernel::Kernel};

/// Loaded at the start of every guest. Which of them a kernel has is its own affair: a test
/// that needs one says so.
const LOADED: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "veth",
    "loop",
    "kvm_amd",
];
/// At hand for `modprobe`, which the kernel calls by itself for file systems, queue
/// disciplines and netfilter.
const AT_HAND: &[&str] = &[
    "bfq",
    "bridge",
    "br_netfilter",
    "brd",
    "dm_delay",
    "dm_flakey",
    "dm_mod",
    "dummy",
    "ext4",
    "ifb",
    "ip6_tables",
    "ip_tables",
    "kyber_iosched",
    "macvlan",
    "nbd",
    "netconsole",
    "null_blk",
    "overlay",
    "raid1",
    "tcp_diag",
    "tun",
    "unix_diag",
    "vhost_net",
    "xfs",
    "zram",
];
/// At hand too, whole directories of them.
const AT_HAND_BELOW: &[&str] = &[
    "kernel/net/sched",
    "kernel/net/netfilter",
    "kernel/net/ipv4/netfilter",
    "kernel/net/ipv6/netfilter",
    "kernel/crypto",
];

/// Adds the modules with their index, and the list of those to load.
pub fn add(archive: &mut Archive, kernel: &Kernel) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir()?;
    let place = Path::new("lib/modules").join(kernel.release());
    let root = scratch.path().join(&place);
    fs::create_dir_all(&root)?;

    let mut files = BTreeMap::new();
    collect(&kernel.modules.join("kernel"), &mut files)
        .with_context(|| kernel.modules.display().to_string())?;
    let below = |path: &Path| {
        AT_HAND_BELOW
            .iter()
            .any(|dir| path.starts_with(kernel.modules.join(dir)))
    };
    let mut wanted: Vec<String> = files
        .iter()
        .filter(|(_, path)| below(path))
        .map(|(name, _)| name.clone())
        .chain(LOADED.iter().chain(AT_HAND).map(|&name| name.to_owned()))
        .collect();
    while let Some(name) = wanted.pop() {
        // Built in, not of this kernel, or taken already.
        let Some(path) = files.remove(&name) else {
            continue;
        };
        let module = uncompressed(&path)?;
        wanted.extend(dependencies(&module));
        fs::write(root.join(format!("{name}.ko")), module)?;
    }
    for list in [
        "modules.builtin",
        "modules.builtin.modinfo",
        "modules.order",
    ] {
        fs::copy(kernel.modules.join(list), root.join(list)).with_context(|| list.to_owned())?;
    }
    let mut depmod = Command::new("/sbin/depmod");
    depmod.arg("-b").arg(scratch.path()).arg(kernel.release());
    peers::run(&mut depmod)?;
    archive.copy_tree(&root, &place)?;
    archive.file("etc/modules", 0o644, LOADED.join("\n").as_bytes())
}

/// Every module below a directory, by the kernel's name for it.
fn collect(dir: &Path, files: &mut BTreeMap<String, PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if let Some((name, _)) = path
            .file_name()
            .and_then(|name| name.to_str()?.split_once(".ko"))
        {
            files.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

fn uncompressed(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path.extension().is_some_and(|kind| kind == "xz") {
        let output = Command::new("xz").arg("-dc").arg(path).output();
        return Ok(output.context("xz")?.stdout);
    }
    fs::read(path).with_context(|| path.display().to_string())
}

/// The `depends` entry of its `.modinfo` section: `depends=mbcache,jbd2`.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = module[at + KEY.len()..].split(|&byte| byte == 0).next();
    String::from_utf8_lossy(value.unwrap_or_default())
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_names_what_it_needs() {
        let module = b"\x7fELF..\0license=GPL\0depends=mbcache,jbd2,crc32c-generic\0retpoline=Y\0";
        assert_eq!(dependencies(module), ["mbcache", "jbd2", "crc32c_generic"]);
        assert!(dependencies(b"\0depends=\0").is_empty());
        assert!(dependencies(b"\x7fELF").is_empty());
    }
}

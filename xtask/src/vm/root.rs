//! What every guest's file system has: a shell, tools of this machine, the agent, the tests.

use std::path::Path;

use super::{initramfs::Archive, programs::Programs};

/// Programs of this machine that tests may call in a guest; those that are not installed
/// are left out, and a test that needs one says so.
const TOOLS: &[&str] = &[
    "bash",
    "chrt",
    "fio",
    "ip",
    "iptables",
    "iptables-legacy",
    "kmod",
    "losetup",
    "mkfs.ext4",
    "nft",
    "setpriv",
    "ss",
    "taskset",
    "tc",
    "dmsetup",
    "timeout",
    "unshare",
];

/// The segment that all guests have in common.
pub fn segment(programs: &Programs) -> anyhow::Result<Vec<u8>> {
    let mut archive = Archive::root()?;
    archive.file("init", 0o755, include_bytes!("init.sh"))?;
    archive.copy(Path::new("/bin/busybox"), "usr/bin/busybox")?;
    archive.link(Path::new("usr/bin/sh"), "bash")?;
    for tool in TOOLS {
        let places = ["/usr/bin", "/usr/sbin"];
        let found = places.map(|place| Path::new(place).join(tool));
        if let Some(path) = found.iter().find(|path| path.exists()) {
            archive.program(path)?;
        }
    }
    for name in ["modprobe", "insmod", "rmmod", "lsmod", "depmod"] {
        archive.link(&Path::new("usr/sbin").join(name), "../bin/kmod")?;
    }
    let plugins = Path::new("/usr/lib/x86_64-linux-gnu/xtables");
    if plugins.is_dir() {
        archive.copy_tree(plugins, plugins)?;
    }
    archive.copy(&programs.agent, "usr/bin/isostack-agent")?;
    for (name, path) in &programs.tests {
        archive.copy(path, Path::new("tests").join(name))?;
    }
    archive.finish()
}

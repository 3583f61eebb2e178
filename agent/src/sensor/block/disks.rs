//! Disks by number: what `/sys/dev/block` says of them.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{event::Disk, time::MonoNs};

/// Disks remembered; when full, everything is forgotten and read anew.
const MAX_DISKS: usize = 4096;
/// A number may be given to another disk, so what is known is read again after this long.
const LIFETIME: Duration = Duration::from_secs(60);

/// Drivers of devices whose back end is a hypervisor's.
const PARAVIRTUAL: &[&str] = &["virtio", "xen", "vbd"];

/// What is known of the host's disks.
pub struct Disks {
    numbers: PathBuf,
    known: HashMap<u32, (Arc<Disk>, MonoNs)>,
}

impl Disks {
    /// Reads `dev/block` under `sysfs`, when asked.
    #[must_use]
    pub fn new(sysfs: &Path) -> Self {
        Self {
            numbers: sysfs.join("dev/block"),
            known: HashMap::new(),
        }
    }

    /// The disk of a number, major * 2^20 + minor. One that is not there any more is named
    /// after its number.
    pub fn get(&mut self, number: u32) -> Arc<Disk> {
        self.get_at(number, MonoNs::now())
    }

    fn get_at(&mut self, number: u32, now: MonoNs) -> Arc<Disk> {
        let lifetime_ns = LIFETIME.as_nanos() as u64;
        if let Some((disk, read_at)) = self.known.get(&number)
            && now.since(*read_at) < lifetime_ns
        {
            return disk.clone();
        }
        let disk = self.read(number);
        if self.known.len() >= MAX_DISKS {
            self.known.clear();
        }
        self.known.insert(number, (disk.clone(), now));
        disk
    }

    fn read(&self, number: u32) -> Arc<Disk> {
        let (major, minor) = (number >> 20, number & 0xf_ffff);
        let digits = format!("{major}:{minor}");
        // .../pci0000:00/0000:00:02.0/virtio1/block/vda; only the link is read, as a frozen
        // tree has no more.
        let target = fs::read_link(self.numbers.join(&digits)).unwrap_or_default();
        let name = target
            .file_name()
            .map_or(digits, |name| name.to_string_lossy().into_owned());
        let paravirtual = target.components().any(|part| {
            let part = part.as_os_str().to_string_lossy();
            PARAVIRTUAL.iter().any(|word| is_numbered(&part, word))
        });
        Arc::new(Disk { name, paravirtual })
    }
}

/// `virtio1`, `vbd-51712`, `xen`.
fn is_numbered(part: &str, word: &str) -> bool {
    part.strip_prefix(word)
        .is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '-'))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn disks_are_named_and_those_of_a_hypervisor_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let numbers = dir.path().join("dev/block");
        fs::create_dir_all(&numbers).unwrap();
        for (number, target) in [
            (
                "254:0",
                "../../devices/pci0000:00/0000:00:02.0/virtio1/block/vda",
            ),
            ("202:0", "../../devices/vbd-51712/block/xvda"),
            (
                "259:0",
                "../../devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1",
            ),
            ("7:1", "../../devices/virtual/block/loop1"),
        ] {
            symlink(target, numbers.join(number)).unwrap();
        }
        let mut disks = Disks::new(dir.path());
        let table = [
            (254 << 20, "vda", true),
            (202 << 20, "xvda", true),
            (259 << 20, "nvme0n1", false),
            (7 << 20 | 1, "loop1", false),
            (8 << 20 | 16, "8:16", false),
        ];
        for (number, name, paravirtual) in table {
            let name = name.to_owned();
            assert_eq!(*disks.get(number), Disk { name, paravirtual });
        }
    }

    #[test]
    fn a_number_given_to_another_disk_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let numbers = dir.path().join("dev/block");
        fs::create_dir_all(&numbers).unwrap();
        let mut disks = Disks::new(dir.path());
        let start = MonoNs(1_000_000_000);
        let later = |s: u64| MonoNs(start.0 + s * 1_000_000_000);
        assert_eq!(disks.get_at(7 << 20, start).name, "7:0");
        symlink("../../devices/virtual/block/loop0", numbers.join("7:0")).unwrap();
        assert_eq!(disks.get_at(7 << 20, later(59)).name, "7:0");
        assert_eq!(disks.get_at(7 << 20, later(60)).name, "loop0");
    }
}

//! What `/proc/PID` says about isolation beyond `status`: the executable's file, descriptors,
//! threads, mapped libraries.

use std::{fs::Metadata, os::unix::fs::MetadataExt as _, path::Path};

use super::{ProcDir, mappings};
use crate::stack::process::{Descriptors, ExeFile, library_engine};

/// Descriptors looked at for what they say about isolation.
const DESCRIPTORS: usize = 4096;
/// Threads whose names are read.
const MAX_THREADS: usize = 64;
/// Libraries kept.
const MAX_LIBRARIES: usize = 4;
/// Permission bits of group and others to write.
const WRITABLE: u32 = 0o022;

impl ProcDir {
    /// Owner and mode of the executable's file, and whether it is what the host has at `exe`.
    #[must_use]
    pub fn exe_file(&self, exe: &str, host_root: Option<&Path>) -> Option<ExeFile> {
        let file = std::fs::metadata(self.path("exe")).ok()?;
        let on_host = host_root.map(|root| {
            let there = std::fs::metadata(root.join(exe.trim_start_matches('/')));
            there.is_ok_and(|there| same(&there, &file))
        });
        let gone = std::fs::read_link(self.path("exe"))
            .is_ok_and(|link| link.to_string_lossy().ends_with(" (deleted)"));
        Some(ExeFile {
            owner: file.uid(),
            writable: file.mode() & WRITABLE != 0,
            // Replaced while it ran: what is there now says nothing.
            on_host: on_host.filter(|on_host| *on_host || !gone),
        })
    }

    /// Open descriptors that say something about isolation, of the first few thousand.
    #[must_use]
    pub fn descriptors(&self) -> Descriptors {
        let mut found = Descriptors::default();
        let mut left = DESCRIPTORS;
        self.any_fd(|target| {
            if target == "anon_inode:kvm-vm" {
                found.kvm_machine = true;
            } else if target.starts_with("anon_inode:kvm-vcpu") {
                found.vcpus += 1;
            } else if target.starts_with("/dev/vhost-vdpa") {
                found.vdpa = true;
            } else if target.starts_with("/dev/vhost-") {
                found.vhost = true;
            } else if target == "anon_inode:[landlock-ruleset]" {
                found.landlock = true;
            } else if let Some(group) = target.strip_prefix("/dev/vfio/")
                && group.bytes().all(|b| b.is_ascii_digit())
            {
                found.vfio_groups += 1;
            }
            left -= 1;
            left == 0
        });
        found
    }

    /// Names of the first threads.
    #[must_use]
    pub fn thread_names(&self) -> Vec<String> {
        let Ok(tasks) = std::fs::read_dir(self.path("task")) else {
            return Vec::new();
        };
        let names = tasks.flatten().take(MAX_THREADS).filter_map(|task| {
            let bytes = super::read_bounded(&task.path().join("comm"), 64).ok()?;
            Some(
                String::from_utf8_lossy(&bytes)
                    .trim_end_matches('\n')
                    .to_owned(),
            )
        });
        names.collect()
    }

    /// Mapped byte-code engines: executable mappings only, as anybody may look at a file.
    #[must_use]
    pub fn engine_libraries(&self) -> Vec<String> {
        let mut engines: Vec<String> = Vec::new();
        if let Ok(maps) = self.open("maps") {
            mappings::each_executable(&maps, |path| {
                if library_engine(path).is_some()
                    && engines.len() < MAX_LIBRARIES
                    && !engines.iter().any(|known| known == path)
                {
                    engines.push(path.to_owned());
                }
            });
        }
        engines
    }
}

fn same(one: &Metadata, other: &Metadata) -> bool {
    one.dev() == other.dev() && one.ino() == other.ino()
}

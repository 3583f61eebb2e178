//! The guest's file system: an archive that the kernel unpacks into memory, assembled of
//! segments that are made once and shared between guests.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Component, Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use cpio::newc;

const DIRECTORY: u32 = 0o040_755;
const LINK: u32 = 0o120_777;
const FILE: u32 = 0o100_000;

/// Directories that are links into `/usr`, as on every current distribution.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// One archive in the making.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    there: BTreeSet<PathBuf>,
    inode: u32,
}

impl Archive {
    /// One with the directories and links that every root has.
    pub fn root() -> anyhow::Result<Self> {
        let mut archive = Self::default();
        for name in MERGED {
            archive.directory(&Path::new("usr").join(name))?;
            archive.link(Path::new(name), &format!("usr/{name}"))?;
        }
        for name in ["dev", "proc", "sys", "tmp", "run", "etc", "tests"] {
            archive.directory(Path::new(name))?;
        }
        Ok(archive)
    }

    /// A directory and those above it.
    fn directory(&mut self, path: &Path) -> anyhow::Result<()> {
        let mut upper: Vec<&Path> = path.ancestors().collect();
        upper.reverse();
        for dir in upper {
            if !dir.as_os_str().is_empty() && self.there.insert(dir.to_owned()) {
                self.entry(dir, DIRECTORY, &[])?;
            }
        }
        Ok(())
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &Path, target: &str) -> anyhow::Result<()> {
        if self.there.insert(path.to_owned()) {
            self.entry(path, LINK, target.as_bytes())?;
        }
        Ok(())
    }

    /// A file with these bytes, executable if `mode` says so.
    pub fn file(&mut self, path: impl AsRef<Path>, mode: u32, data: &[u8]) -> anyhow::Result<()> {
        let path = in_usr(path.as_ref());
        if let Some(dir) = path.parent() {
            self.directory(dir)?;
        }
        if self.there.insert(path.clone()) {
            self.entry(&path, FILE | mode, data)?;
        }
        Ok(())
    }

    /// A copy of a file of this machine.
    pub fn copy(&mut self, from: &Path, to: impl AsRef<Path>) -> anyhow::Result<()> {
        let data = fs::read(from).with_context(|| from.display().to_string())?;
        let mode = fs::metadata(from)?.permissions().mode() & 0o777;
        self.file(to, mode, &data)
    }

    /// A copy of everything below a directory of this machine.
    pub fn copy_tree(&mut self, from: &Path, to: &Path) -> anyhow::Result<()> {
        let mut entries: Vec<_> = fs::read_dir(from)
            .with_context(|| from.display().to_string())?
            .collect::<Result<_, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let to = to.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                self.copy_tree(&entry.path(), &to)?;
            } else {
                self.copy(&entry.path(), to)?;
            }
        }
        Ok(())
    }

    /// A program of this machine under its own path, with the libraries it is linked to.
    pub fn program(&mut self, path: &Path) -> anyhow::Result<()> {
        self.copy(path, path)?;
        let output = Command::new("ldd").arg(path).output().context("ldd")?;
        // A static program has none, and ldd says so by failing.
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let library = line
                .split_whitespace()
                .find(|word| word.starts_with('/'))
                .map(Path::new);
            if let Some(library) = library {
                self.copy(library, library)?;
            }
        }
        Ok(())
    }

    /// The finished segment.
    pub fn finish(mut self) -> anyhow::Result<Vec<u8>> {
        newc::trailer(&mut self.bytes)?;
        // The next segment begins where the kernel looks for it.
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        Ok(self.bytes)
    }

    fn entry(&mut self, path: &Path, mode: u32, data: &[u8]) -> anyhow::Result<()> {
        let name = path.to_str().context("a file name that is not text")?;
        self.inode += 1;
        let header = newc::Builder::new(name).ino(self.inode).mode(mode).nlink(1);
        let size = u32::try_from(data.len())?;
        let mut writer = header.write(&mut self.bytes, size);
        std::io::Write::write_all(&mut writer, data)?;
        writer.finish()?;
        Ok(())
    }
}

/// Without the root's slash, and below `usr` what is only linked from above it.
fn in_usr(path: &Path) -> PathBuf {
    let relative: PathBuf = path
        .components()
        .filter(|part| matches!(part, Component::Normal(_)))
        .collect();
    if MERGED.iter().any(|name| relative.starts_with(name)) {
        Path::new("usr").join(relative)
    } else {
        relative
    }
}

//! What the committed object was made of. A module of `xtask`, which writes the hash beside
//! the object it built, and of the agent's build script, which compares.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A hash of everything that the eBPF object is made of. It recognises a forgotten rebuild;
/// that the object is really what its source builds to is proven by `cargo xtask ebpf --check`.
pub fn source_hash(workspace: &Path) -> io::Result<String> {
    let mut files = vec![
        "agent-common/Cargo.toml".into(),
        "agent-ebpf/Cargo.toml".into(),
        "rust-toolchain.toml".into(),
    ];
    for directory in ["agent-common/src", "agent-ebpf/src"] {
        collect(workspace, directory.into(), &mut files)?;
    }
    files.sort();

    let mut hash = Fnv::new();
    for file in files {
        let content = fs::read(workspace.join(&file))?;
        hash.field(file.to_string_lossy().as_bytes());
        hash.field(&content);
    }
    // Only the packages that are linked in: others change without the object changing.
    let lock = fs::read_to_string(workspace.join("Cargo.lock"))?;
    for package in lock.split("[[package]]").filter(|package| {
        package.contains("name = \"aya-ebpf") || package.contains("name = \"aya-log-")
    }) {
        hash.field(package.trim().as_bytes());
    }
    Ok(format!("{:032x}", hash.0))
}

fn collect(workspace: &Path, directory: PathBuf, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(workspace.join(&directory))? {
        let entry = entry?;
        let path = directory.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            collect(workspace, path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// FNV-1a, 128 bits.
struct Fnv(u128);

impl Fnv {
    fn new() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }

    fn field(&mut self, bytes: &[u8]) {
        // The length first, so that moving a byte from one field to the next shows.
        for byte in (bytes.len() as u64).to_le_bytes().iter().chain(bytes) {
            self.0 = (self.0 ^ u128::from(*byte))
                .wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
    }
}

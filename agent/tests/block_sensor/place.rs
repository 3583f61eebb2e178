//! Where the I/O is done: a loop device and a cgroup of its own, gone when dropped and, the
//! device, also when the test is killed.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use super::cgroup::{Group, hierarchy_of};

/// Size of the disk.
const BYTES: u64 = 64 << 20;

/// A loop device on a file of real blocks.
pub struct LoopDisk {
    /// `/dev/loop0`
    pub path: PathBuf,
    /// `loop0`
    pub name: String,
    /// The device detaches itself when this is closed.
    _open: File,
    dir: tempfile::TempDir,
}

/// Requests that the kernel counted.
pub struct Counts {
    pub reads: u64,
    pub writes: u64,
}

impl LoopDisk {
    pub fn new() -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let file = dir.path().join("disk");
        let mut backing = File::create(&file).unwrap();
        let block = vec![7; 1 << 20];
        for _ in 0..BYTES >> 20 {
            backing.write_all(&block).unwrap();
        }
        backing.sync_all().unwrap();
        // Past the cache: the disk takes its time, beside which a wake-up's is small.
        let output = Command::new("losetup")
            .args(["--find", "--show", "--direct-io=on"])
            .arg(&file)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let path = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
        let open = File::open(&path).unwrap();
        // Still open, so this only asks to be detached at the last close.
        let detached = Command::new("losetup").arg("-d").arg(&path).status();
        assert!(detached.unwrap().success());
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        Self {
            path,
            name,
            _open: open,
            dir,
        }
    }

    /// `/sys/block/NAME/stat`.
    pub fn counts(&self) -> Counts {
        let text = fs::read_to_string(format!("/sys/block/{}/stat", self.name)).unwrap();
        let numbers: Vec<u64> = text.split_whitespace().flat_map(str::parse).collect();
        Counts {
            reads: numbers[0],
            writes: numbers[4],
        }
    }

    /// Major and minor number.
    pub fn number(&self) -> String {
        words(fs::metadata(&self.path).unwrap().rdev())
    }

    /// Of the disk that it is a file on.
    pub fn below(&self) -> String {
        words(fs::metadata(self.dir.path()).unwrap().dev())
    }
}

/// A cgroup of the CPU controller and, where the I/O controller has a hierarchy of its own,
/// the same there.
pub struct IoGroup {
    pub cpu: Group,
    io: Option<Group>,
}

impl IoGroup {
    pub fn new() -> Self {
        let cpu = Group::new();
        cpu.favour();
        let (root, v1) = hierarchy_of("blkio");
        let elsewhere = v1 && !cpu.path.starts_with(&root);
        let io = elsewhere.then(|| Group::at(root.join(cpu.path.file_name().unwrap()), v1));
        Self { cpu, io }
    }

    pub fn directories(&self) -> impl Iterator<Item = &Path> {
        [Some(&self.cpu), self.io.as_ref()]
            .into_iter()
            .flatten()
            .map(|group| &*group.path)
    }

    /// Lets it read and write `iops` times a second each on the disk of that number.
    pub fn limit(&self, number: &str, iops: u64) -> Result<(), String> {
        let write = |path: PathBuf, text: String| {
            fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
        };
        match &self.io {
            Some(io) => ["read", "write"].into_iter().try_for_each(|direction| {
                let file = format!("blkio.throttle.{direction}_iops_device");
                write(io.path.join(file), format!("{number} {iops}"))
            }),
            None => {
                let parent = self.cpu.path.parent().unwrap();
                write(parent.join("cgroup.subtree_control"), "+io".to_owned())?;
                let limits = format!("{number} riops={iops} wiops={iops}");
                write(self.cpu.path.join("io.max"), limits)
            }
        }
    }
}

fn words(device: u64) -> String {
    format!(
        "{}:{}",
        rustix::fs::major(device),
        rustix::fs::minor(device)
    )
}

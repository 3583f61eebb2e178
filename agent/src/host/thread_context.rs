//! Where a process publishes which span each of its threads works on: OpenTelemetry's thread
//! context (OTEP 4947), announced by its process context (OTEP 4719).
//!
//! A library or the program itself exports the thread-local variable `otel_thread_ctx_v1`, a
//! pointer to a record. Where each thread has that variable depends on how the file was linked and
//! loaded, and is the same for all threads of a process: it is found once, and again when the
//! process maps other files (`dlopen`, `exec`).
//!
//! Files and memory are the process's own: nothing of them is believed beyond their form. The
//! worst that a lie does is that the kernel side reads the liar's own memory.

mod maps;
mod object_file;
mod process_context;

use std::{
    fs::File,
    hash::BuildHasher as _,
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use agent_common::context::{ContextPlace, MAX_MODULES};
use foldhash::fast::FixedState;
use parking_lot::Mutex;

use self::{
    maps::{MappedFile, Maps},
    object_file::{Access, Variable},
    process_context::ProcessContext,
};
use super::{
    identify::cache::Generations,
    proc::{ProcDir, read_bounded},
    roots::Roots,
};
use crate::process::ProcessKey;

/// Bytes read of a list of mappings: some ten thousand of them.
const MAPS_LIMIT: u64 = 4 << 20;
/// Files remembered.
const MAX_FILES: usize = 4096;
/// Different files of one process that are looked into.
const MAX_MAPPED_FILES: usize = 1024;
/// A variable is not further than this from the thread pointer or its module's block.
const MAX_OFFSET: i64 = 1 << 31;
/// Bytes of an entry of the vector of blocks.
const GLIBC_ENTRY: u32 = 16;
const MUSL_ENTRY: u32 = 8;

/// What was found out about a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Publishing {
    /// It does not publish.
    Nothing,
    /// It publishes there.
    At(ContextPlace),
    /// It publishes, in a way that cannot be followed: the reason.
    Unusable(String),
}

/// What a file is, as long as it is not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct FileKey {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

/// See the module's head.
#[derive(Debug)]
pub struct ThreadContexts {
    roots: Roots,
    files: Mutex<Generations<FileKey, Option<Variable>>>,
}

impl ThreadContexts {
    /// Knows no file yet.
    #[must_use]
    pub fn new(roots: Roots) -> Self {
        Self {
            roots,
            files: Mutex::new(Generations::new(MAX_FILES)),
        }
    }

    /// Looks at a process, unless it has mapped just the files that it had when `seen` was
    /// returned: then `None`. Reads files, so not for a thread that must not wait.
    ///
    /// # Errors
    /// When the process is gone, or its list of mappings is not readable.
    pub fn look(
        &self,
        process: ProcessKey,
        seen: Option<u64>,
    ) -> io::Result<Option<(u64, Publishing)>> {
        let dir = ProcDir::new(&self.roots, process.pid);
        let text = read_bounded(&dir.path("maps"), MAPS_LIMIT)?;
        let maps = Maps::parse(&text);
        let now = FixedState::default().hash_one(&maps);
        if seen == Some(now) {
            return Ok(None);
        }
        Ok(Some((now, self.publishing(&dir, &maps))))
    }

    fn publishing(&self, dir: &ProcDir, maps: &Maps) -> Publishing {
        let found = maps
            .files
            .iter()
            .take(MAX_MAPPED_FILES)
            .find_map(|file| Some((file, self.variable(dir, file)?)));
        let Some((file, variable)) = found else {
            return Publishing::Nothing;
        };
        let place = open_memory(dir).and_then(|memory| {
            if let Some(at) = maps.process_context
                && let Some(schema) = ProcessContext::read(&memory, at)?.thread_schema
                && !is_followed(&schema)
            {
                return Ok(Err(format!(
                    "its threads' contexts are of the schema `{schema}`, and only `tlsdesc_v1` \
                     and `tls_v1` are read"
                )));
            }
            place(&memory, file, &variable, maps.is_musl)
        });
        match place {
            Ok(Ok(place)) => Publishing::At(place),
            Ok(Err(reason)) => Publishing::Unusable(reason),
            Err(error) => Publishing::Unusable(format!("its memory is not readable: {error}")),
        }
    }

    /// The variable, if that file has it.
    fn variable(&self, dir: &ProcDir, mapped: &MappedFile) -> Option<Variable> {
        let file = open_mapped(dir, mapped)?;
        let about = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
        let key = FileKey {
            device: about.dev(),
            inode: about.ino(),
            size: about.size(),
            changed: (about.mtime(), about.mtime_nsec()),
        };
        if let Some(known) = self.files.lock().get(&key) {
            return known;
        }
        let variable = object_file::find(&file).unwrap_or_else(|error| {
            tracing::debug!(file = mapped.path, %error, "Not looked into for thread contexts");
            None
        });
        self.files.lock().insert(key, variable.clone());
        variable
    }
}

fn is_followed(schema: &str) -> bool {
    ["tlsdesc_v1", "tls_v1"]
        .iter()
        .any(|known| schema.starts_with(known))
}

/// By the mapping itself, whatever has become of the path since; where that takes a privilege
/// that the agent lacks, by the path. Never waits for a writer of a pipe.
fn open_mapped(dir: &ProcDir, mapped: &MappedFile) -> Option<File> {
    let open = |path: &Path| {
        File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
            .open(path)
    };
    let by_mapping = dir.path(&format!("map_files/{}", mapped.range));
    let by_path = || dir.path("root").join(mapped.path.trim_start_matches('/'));
    open(&by_mapping).or_else(|_| open(&by_path())).ok()
}

fn open_memory(dir: &ProcDir) -> io::Result<File> {
    File::open(dir.path("mem"))
}

fn word(memory: &File, address: u64) -> io::Result<u64> {
    let mut bytes = [0; 8];
    memory.read_exact_at(&mut bytes, address)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Where each thread has the variable.
fn place(
    memory: &File,
    file: &MappedFile,
    variable: &Variable,
    is_musl: bool,
) -> io::Result<Result<ContextPlace, String>> {
    // Files are mapped where there is room: their addresses count from there.
    let base = file.start.wrapping_sub(variable.first_address);
    let at_pointer = |offset: i64| ContextPlace {
        offset,
        ..ContextPlace::default()
    };
    let in_module = |module: u64, offset: u64| {
        let module = u32::try_from(module).ok().filter(|m| *m < MAX_MODULES);
        let offset = i64::try_from(offset).ok().filter(|o| *o < MAX_OFFSET);
        match (module, offset) {
            (Some(module @ 1..), Some(offset)) => Ok(ContextPlace {
                offset,
                module,
                entry_bytes: if is_musl { MUSL_ENTRY } else { GLIBC_ENTRY },
            }),
            _ => Err("its loader has not said yet where the variable is".to_owned()),
        }
    };
    Ok(match variable.access {
        Access::Static { offset } => Ok(at_pointer(offset)),
        Access::Offset { slot } => {
            let offset = word(memory, base.wrapping_add(slot))? as i64;
            near(offset).map(at_pointer)
        }
        Access::Index { slot } => {
            let at = base.wrapping_add(slot);
            in_module(word(memory, at)?, word(memory, at.wrapping_add(8))?)
        }
        Access::Descriptor { slot } => {
            // The function to call, then its argument: an offset, or where module and offset are.
            let argument = word(memory, base.wrapping_add(slot).wrapping_add(8))?;
            if (argument as i64) < 0 {
                near(argument as i64).map(at_pointer)
            } else {
                in_module(
                    word(memory, argument)?,
                    word(memory, argument.wrapping_add(8))?,
                )
            }
        }
        Access::Unknown => Err(
            "the file that exports `otel_thread_ctx_v1` reaches it by no way that can be followed"
                .to_owned(),
        ),
    })
}

/// Static blocks lie right below the thread pointer.
fn near(offset: i64) -> Result<i64, String> {
    if (-MAX_OFFSET..0).contains(&offset) {
        Ok(offset)
    } else {
        Err("its loader has not said yet where the variable is".to_owned())
    }
}

#[cfg(test)]
mod tests;

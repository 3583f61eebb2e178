//! `/proc/PID/maps`: which files are mapped where.

/// A file that is mapped from its beginning.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MappedFile {
    /// Where it begins.
    pub start: u64,
    /// That mapping as the kernel names it, e.g. `7f12-7f34`.
    pub range: String,
    /// As the process's mount namespace names it.
    pub path: String,
    /// Device and inode, as the kernel prints them.
    id: (String, u64),
}

/// What matters of the list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Maps {
    /// Each file once, in the order of their addresses.
    pub files: Vec<MappedFile>,
    /// Where the process context is.
    pub process_context: Option<u64>,
    /// The C library is musl.
    pub is_musl: bool,
}

/// Names of the mapping of a process context: anonymous shared or private memory with a name, or
/// a file that is in memory only.
const PROCESS_CONTEXT: &[&str] = &[
    "[anon_shmem:OTEL_CTX]",
    "[anon:OTEL_CTX]",
    "/memfd:OTEL_CTX",
];

impl Maps {
    /// Lines that do not have the kernel's form are left out.
    pub fn parse(text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        let mut maps = Self::default();
        for line in text.lines() {
            maps.line(line);
        }
        maps
    }

    fn line(&mut self, line: &str) -> Option<()> {
        let mut rest = line;
        let mut next = || {
            let (word, after) = rest.split_once(' ')?;
            rest = after.trim_start_matches(' ');
            Some(word)
        };
        let (range, _, offset, device, inode) = (next()?, next()?, next()?, next()?, next()?);
        let path = rest;
        let start = u64::from_str_radix(range.split_once('-')?.0, 16).ok()?;
        if PROCESS_CONTEXT.iter().any(|name| path.starts_with(name)) {
            self.process_context.get_or_insert(start);
            return Some(());
        }
        let offset = u64::from_str_radix(offset, 16).ok()?;
        let inode: u64 = inode.parse().ok()?;
        if inode == 0 || offset != 0 || !path.starts_with('/') {
            return None;
        }
        let name = path.rsplit('/').next().unwrap_or_default();
        self.is_musl |= name.starts_with("ld-musl") || name.starts_with("libc.musl");
        let id = (device.to_owned(), inode);
        if !self.files.iter().any(|file| file.id == id) {
            self.files.push(MappedFile {
                start,
                range: range.to_owned(),
                path: path.to_owned(),
                id,
            });
        }
        Some(())
    }
}

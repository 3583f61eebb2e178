//! The files that a process runs code from. Since 6.11 the kernel answers that question about
//! `/proc/PID/maps` itself; before, and in frozen trees, all of the file is read, which costs
//! several times as much: data and anonymous memory are most of it.

use std::{fs::File, io::Read as _};

use rustix::{
    io::Errno,
    ioctl::{Updater, ioctl, opcode},
};

/// Mappings of one process looked at.
const MAX_MAPPINGS: usize = 4096;
/// Most bytes read of `maps`.
const MAX_BYTES: u64 = 256 * 1024;
/// Longest path that the kernel gives, with its end.
const PATH_MAX: usize = 4096;

/// `PROCMAP_QUERY_VMA_EXECUTABLE`, `_COVERING_OR_NEXT_VMA`, `_FILE_BACKED_VMA`.
const NEXT_EXECUTABLE_FILE: u64 = 0x04 | 0x10 | 0x20;

/// `struct procmap_query` of `linux/fs.h`.
#[repr(C)]
#[derive(Default)]
struct Query {
    size: u64,
    flags: u64,
    address: u64,
    vma_start: u64,
    vma_end: u64,
    vma_flags: u64,
    vma_page_size: u64,
    vma_offset: u64,
    inode: u64,
    dev_major: u32,
    dev_minor: u32,
    name_size: u32,
    build_id_size: u32,
    name_address: u64,
    build_id_address: u64,
}

const _: () = assert!(size_of::<Query>() == 104);

/// Tells the path of every file that is mapped to be executed from; the same one may come
/// again. Nothing where the process is gone.
pub fn each_executable(maps: &File, mut found: impl FnMut(&str)) {
    if ask(maps, &mut found).is_err() {
        read(maps, found);
    }
}

/// # Errors
/// The kernel does not answer questions about this file.
fn ask(maps: &File, found: &mut impl FnMut(&str)) -> Result<(), Errno> {
    let mut path = [0_u8; PATH_MAX];
    let mut address = 0;
    for asked in 0..MAX_MAPPINGS {
        let mut query = Query {
            size: size_of::<Query>() as u64,
            flags: NEXT_EXECUTABLE_FILE,
            address,
            name_size: PATH_MAX as u32,
            name_address: path.as_mut_ptr() as u64,
            ..Query::default()
        };
        // SAFETY: the number is that of PROCMAP_QUERY, whose argument `Query` is; the kernel
        // writes at most `name_size` bytes to `path`, which outlives the call. Any other kind
        // of file refuses the number.
        let answer = unsafe {
            let question =
                Updater::<{ opcode::read_write::<Query>(b'f', 17) }, Query>::new(&mut query);
            ioctl(maps, question)
        };
        match answer {
            Ok(()) => {}
            // A name that does not fit is nobody's that is known; the rest is looked at.
            Err(Errno::NAMETOOLONG) if query.vma_end > address => query.name_size = 0,
            Err(error) if asked == 0 && matches!(error, Errno::NOTTY | Errno::INVAL) => {
                return Err(error);
            }
            // No further one, or no process.
            Err(_) => return Ok(()),
        }
        let length = (query.name_size as usize).min(PATH_MAX).saturating_sub(1);
        if let Ok(path) = std::str::from_utf8(&path[..length]) {
            found(path);
        }
        address = query.vma_end;
    }
    Ok(())
}

fn read(maps: &File, mut found: impl FnMut(&str)) {
    let mut bytes = Vec::new();
    if maps.take(MAX_BYTES).read_to_end(&mut bytes).is_err() {
        return;
    }
    for line in String::from_utf8_lossy(&bytes).lines() {
        let mode = line.split(' ').nth(1).unwrap_or_default();
        if mode.as_bytes().get(2) == Some(&b'x')
            && let Some(path) = line.find('/').map(|at| &line[at..])
        {
            found(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(look: impl FnOnce(&mut dyn FnMut(&str))) -> Vec<String> {
        let mut paths = Vec::new();
        look(&mut |path| paths.push(path.to_owned()));
        paths
    }

    #[test]
    fn the_answer_and_the_file_say_the_same() {
        let open = || File::open("/proc/self/maps").unwrap();
        let by_reading = collect(|found| read(&open(), found));
        let own = std::env::current_exe().unwrap();
        assert!(by_reading.contains(&own.to_string_lossy().into_owned()));
        let mut answered = Ok(());
        let by_asking = collect(|found| answered = ask(&open(), &mut &mut *found));
        match answered {
            Ok(()) => assert_eq!(by_asking, by_reading),
            Err(error) => println!("this kernel does not answer: {error}"),
        }
    }

    #[test]
    fn a_frozen_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("maps");
        let text = "\
7f00-7f01 r--p 00000000 fe:00 12   /usr/lib/libdata.so
7f01-7f02 r-xp 00001000 fe:00 12   /opt/with blank/libcode.so
7f02-7f03 rwxp 00000000 00:00 0
7fff-8000 r-xp 00000000 00:00 0    [vdso]
";
        std::fs::write(&path, text).unwrap();
        let found = collect(|found| each_executable(&File::open(&path).unwrap(), found));
        assert_eq!(found, ["/opt/with blank/libcode.so"]);
    }
}

//! Files of the state directory: written whole, read by nobody else.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

/// Writes beside the file, then in its place: a crash leaves the old one. Makes the directory,
/// for its owner only, where there is none; not those above it.
///
/// # Errors
/// If it cannot be written.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("json.new");
    if let Some(directory) = path.parent() {
        make(directory)?;
    }
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

/// Whether files can be made in a directory that is there, by making one.
///
/// # Errors
/// Why not.
pub fn check(directory: &Path) -> io::Result<()> {
    // Rights alone do not say it: root has them where nobody can write.
    let file = directory.join(format!(".{}.new", std::process::id()));
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&file)?;
    match fs::remove_file(&file) {
        // Another agent of this number, in a container of its own.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Makes the state directory, for its owner only, where there is none; not those above it.
///
/// # Errors
/// If it cannot be made, or files in it cannot.
pub fn prepare(directory: &Path) -> io::Result<()> {
    make(directory)?;
    check(directory)
}

fn make(directory: &Path) -> io::Result<()> {
    if directory.exists() {
        return Ok(());
    }
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_directory_is_made_and_nothing_above_it() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("state/known.json");
        replace(&file, b"1").unwrap();
        replace(&file, b"2").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"2");
        let mode = fs::metadata(file.parent().unwrap()).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o700);
        assert!(replace(&root.path().join("a/b/known.json"), b"1").is_err());
        assert!(!root.path().join("a").exists());
    }

    #[test]
    fn a_directory_that_cannot_be_used_is_found_out_at_once() {
        let root = tempfile::tempdir().unwrap();
        let made = root.path().join("made");
        prepare(&made).unwrap();
        assert_eq!(fs::read_dir(made).unwrap().count(), 0);
        let nowhere = prepare(&root.path().join("a/b")).unwrap_err();
        assert_eq!(nowhere.kind(), io::ErrorKind::NotFound);
        fs::write(root.path().join("file"), "").unwrap();
        let file = prepare(&root.path().join("file")).unwrap_err();
        assert_eq!(file.kind(), io::ErrorKind::NotADirectory);
        // Nobody writes there, whoever runs this.
        check(Path::new("/proc")).unwrap_err();
    }
}

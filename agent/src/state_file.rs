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
    if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
        match fs::DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
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
}

//! What is usual, kept over a restart: a file in the state directory.

use std::{
    io,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::{host::proc::read_bounded, pipeline::baseline::Saved, state_file};

/// The file in the state directory.
const FILE: &str = "baselines.json";
/// Form of the file; another one is not read.
const FORM: u32 = 2;
/// Most bytes read: twice what 2 000 operations take at most.
const MAX_FILE: u64 = 64 << 20;

/// The file.
#[derive(Clone, Debug)]
pub struct Known(PathBuf);

#[derive(Serialize, Deserialize)]
struct Content {
    form: u32,
    baselines: Saved,
}

/// Only this, so that another form is told from a broken file.
#[derive(Deserialize)]
struct Form {
    form: u32,
}

impl Known {
    /// In that directory.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self(directory.join(FILE))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What an earlier run left; `None` if there was none.
    ///
    /// # Errors
    /// If the file cannot be read or is not one of this version's.
    pub fn read(&self) -> io::Result<Option<Saved>> {
        let file = match read_bounded(&self.0, MAX_FILE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let Form { form } = serde_json::from_slice(&file)?;
        if form != FORM {
            return Err(io::Error::other(format!(
                "it is of form {form}, this version reads form {FORM}"
            )));
        }
        let content: Content = serde_json::from_slice(&file)?;
        Ok(Some(content.baselines))
    }

    /// Writes beside the file, then in its place: a crash leaves the old one.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, baselines: Saved) -> io::Result<()> {
        let content = Content {
            form: FORM,
            baselines,
        };
        // One at a time: the last one, at a stop, may come while the minute's is under way.
        static WRITING: Mutex<()> = Mutex::new(());
        let _turn = WRITING.lock();
        state_file::replace(&self.0, &serde_json::to_vec(&content)?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        pipeline::baseline::{Baselines, WARM},
        verdict::Split,
    };

    fn baselines() -> Baselines {
        let mut baselines = Baselines::new(8, 7);
        let key = baselines.key("shop", b"GET /cart");
        let split = Split {
            self_time_ns: 5_000_000,
            ..Split::default()
        };
        for _ in 0..WARM {
            baselines.learn(key, &split);
        }
        baselines
    }

    #[test]
    fn what_was_written_comes_back_and_nobody_else_may_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let known = Known::new(dir.path());
        assert_eq!(known.read().unwrap(), None, "the first start");
        for _ in 0..2 {
            known.write(baselines().save()).unwrap();
        }
        assert_eq!(known.read().unwrap(), Some(baselines().save()));
        let mode = fs::metadata(known.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "nothing beside"
        );
    }

    #[test]
    fn a_broken_file_is_an_error_that_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let known = Known::new(dir.path());
        let good = {
            known.write(baselines().save()).unwrap();
            fs::read_to_string(known.path()).unwrap()
        };
        for (text, why) in [
            ("", "EOF"),
            ("{}", "form"),
            (&good[..good.len() / 2], "EOF"),
            (&*good.replace("\"form\":2", "\"form\":3"), "form 3"),
            (&*good.replace("\"seed\":7", "\"seed\":-7"), "-7"),
        ] {
            fs::write(known.path(), text).unwrap();
            let error = known.read().unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        let large = fs::File::create(known.path()).unwrap();
        large.set_len(MAX_FILE + 1).unwrap();
        assert!(known.read().is_err(), "too large");
        fs::remove_file(known.path()).unwrap();
        fs::create_dir(known.path()).unwrap();
        assert!(known.read().is_err());
        assert!(known.write(baselines().save()).is_err());
    }
}

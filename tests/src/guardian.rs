//! A tiny child that cleans up when its creator ends, however that ends.
//!
//! `Drop` does not run after `kill -9`. The guardian blocks on a pipe whose other end only
//! the creator holds; when the pipe ends, by drop or by death, it does its work and exits.
//! It sits in a process group of its own, so Ctrl-C in the terminal does not reach it.

use std::{
    ffi::OsStr,
    io,
    os::unix::process::CommandExt as _,
    process::{Child, ChildStdin, Command, Stdio},
};

/// Runs a shell script once this value is dropped or its process is gone.
#[derive(Debug)]
pub struct Guardian {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl Guardian {
    /// Starts the child; `script` sees `args` as `"$@"`.
    ///
    /// # Errors
    /// When `sh` cannot be started.
    pub fn new<S: AsRef<OsStr>>(script: &str, args: &[S]) -> io::Result<Self> {
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(format!(
                "trap '' INT TERM HUP; while read -r _; do :; done\n{script}"
            ))
            .arg("guardian")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let pipe = child.stdin.take();
        Ok(Self { child, pipe })
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        drop(self.pipe.take());
        // Only fails when it was reaped already.
        let _ = self.child.wait();
    }
}

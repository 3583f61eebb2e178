//! A child process that ends with its owner, its output kept for the failure message.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::{fs::FileExt as _, process::CommandExt as _},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use crate::{cgroup::Cgroup, wait};

/// A running program; killed on drop and when the creating thread ends.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    /// Has no name: nothing is left of it, however the owner ends.
    log: File,
}

impl Process {
    /// Starts `command` inside `cgroup` from its first instruction on, with both outputs
    /// in a file.
    ///
    /// The kernel kills the child when the *thread* that called this ends: call it from
    /// one that lives as long as the child is needed.
    ///
    /// # Errors
    /// When the program cannot be started or the cgroup cannot be entered.
    pub fn start(
        name: &str,
        command: &mut Command,
        cgroup: Option<&Cgroup>,
    ) -> anyhow::Result<Self> {
        let procs: Vec<PathBuf> = cgroup.map(Cgroup::procs).into_iter().collect();
        Self::start_in(name, command, &procs)
    }

    /// The same inside several cgroups, one in each hierarchy, by their files of processes.
    ///
    /// # Errors
    /// When the program cannot be started or a cgroup cannot be entered.
    pub fn start_in(name: &str, command: &mut Command, procs: &[PathBuf]) -> anyhow::Result<Self> {
        let log = tempfile::tempfile().context("a file for the output")?;
        let open = |path: &PathBuf| fs::OpenOptions::new().write(true).open(path);
        let procs: Vec<File> = procs
            .iter()
            .map(open)
            .collect::<Result<_, _>>()
            .with_context(|| format!("cannot put {name} into its cgroup"))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            // Ctrl-C is for the owner, who ends its children in order.
            .process_group(0);
        let enter = move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            procs.iter().try_for_each(|mut procs| procs.write_all(b"0"))
        };
        // SAFETY: between fork and exec only async-signal-safe calls are made: prctl(2) and
        // write(2) on a descriptor opened before; nothing allocates on the success path.
        unsafe { command.pre_exec(enter) };
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has printed so far.
    #[must_use]
    pub fn output(&self) -> String {
        let length = self.log.metadata().map_or(0, |meta| meta.len());
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        // At an offset: the children share the file's position.
        match self.log.read_exact_at(&mut bytes, 0) {
            Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => format!("(its output cannot be read: {error})"),
        }
    }

    /// Waits for a complete line of output that contains `needle`.
    ///
    /// # Errors
    /// When the process ends without one, or in [`wait::PATIENCE`].
    pub fn wait_for_line(&mut self, needle: &str) -> anyhow::Result<String> {
        let found = wait::until(
            &format!("{needle:?} from {}", self.name),
            wait::PATIENCE,
            || {
                let ended = self.child.try_wait().ok().flatten();
                let output = self.output();
                let line = output
                    .split_inclusive('\n')
                    .find(|line| line.ends_with('\n') && line.contains(needle));
                match (line, ended) {
                    (Some(line), _) => Some(Ok(line.trim_end().to_owned())),
                    (None, Some(status)) => Some(Err(status)),
                    (None, None) => None,
                }
            },
        );
        match found {
            Ok(Ok(line)) => Ok(line),
            Ok(Err(status)) => bail!("{} ended ({status}):\n{}", self.name, self.output()),
            Err(error) => Err(error.context(self.output())),
        }
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("no process id")?, signal)?;
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end within `limit`.
    pub fn wait(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        wait::until(&what, limit, || self.child.try_wait().ok().flatten())
            .with_context(|| self.output())
    }

    /// Asks it to stop (SIGTERM) and waits.
    ///
    /// # Errors
    /// When it is gone already or does not end.
    pub fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(wait::PATIENCE)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- output of {}:\n{}", self.name, self.output());
        }
    }
}

//! What a command says, line by line, until it has ended: a process that it leaves behind may hold
//! its output open for ever, and is not waited for.

use std::{
    io::{self, BufRead as _, BufReader, Read, Write as _},
    process::{Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::Duration,
};

use anyhow::Context as _;

/// Lines that may wait to be heard.
const MOST_WAITING: usize = 1_024;
/// A command that has ended and said nothing for so long says nothing more.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Where a line was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

impl Stream {
    /// Says a line again, on this program's own.
    ///
    /// # Errors
    /// When its standard output takes nothing; what is said of errors may be lost.
    pub fn pass_on(self, line: &[u8]) -> io::Result<()> {
        let line = [line, b"\n"].concat();
        match self {
            Self::Out => io::stdout().write_all(&line),
            Self::Err => io::stderr().write_all(&line).or(Ok(())),
        }
    }
}

/// Runs a command, and tells `hear` each line without its end; returns whether it succeeded.
///
/// # Errors
/// When it cannot be run, or `hear` fails.
pub fn run(
    command: &mut Command,
    mut hear: impl FnMut(Stream, &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<bool> {
    let name = command.get_program().display().to_string();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {name}"))?;
    let (to, lines) = sync_channel(MOST_WAITING);
    let out = child.stdout.take().context("it is piped")?;
    let errors = child.stderr.take().context("it is piped")?;
    let to_too = to.clone();
    thread::spawn(move || read(out, Stream::Out, &to));
    thread::spawn(move || read(errors, Stream::Err, &to_too));
    listen(&lines, &mut hear, || Ok(child.try_wait()?.is_some()))?;
    Ok(child.wait()?.success())
}

/// Until both streams are closed, or nothing more comes of a command that has ended.
fn listen(
    lines: &Receiver<(Stream, Vec<u8>)>,
    hear: &mut impl FnMut(Stream, &[u8]) -> anyhow::Result<()>,
    mut has_ended: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    loop {
        // Asked before the wait: what it said until then is in the pipe.
        let ended = has_ended()?;
        match lines.recv_timeout(LAST_WORDS) {
            Ok((stream, line)) => hear(stream, &line)?,
            Err(RecvTimeoutError::Timeout) if !ended => {}
            Err(_) => return Ok(()),
        }
    }
}

/// Ends with the stream, or when nobody listens any more.
fn read(from: impl Read, stream: Stream, to: &SyncSender<(Stream, Vec<u8>)>) {
    for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
        if to.send((stream, line)).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(script: &str) -> (bool, Vec<(Stream, String)>) {
        let mut said = Vec::new();
        let ok = run(Command::new("sh").args(["-c", script]), |stream, line| {
            said.push((stream, String::from_utf8(line.to_vec())?));
            Ok(())
        });
        (ok.expect("sh runs"), said)
    }

    #[test]
    fn all_lines_are_heard() {
        let (ok, said) = heard("echo a; echo b; printf c; exit 3");
        let wanted = ["a", "b", "c"].map(|line| (Stream::Out, line.to_owned()));
        assert_eq!((ok, said), (false, wanted.to_vec()));
        let (ok, said) = heard("echo e >&2");
        assert_eq!((ok, said), (true, vec![(Stream::Err, "e".to_owned())]));
        let (_, said) = heard("seq 20000");
        assert_eq!(said.len(), 20_000);
    }

    #[test]
    fn who_was_left_behind_is_not_waited_for() {
        let (ok, said) = heard("sleep 600 & echo $!");
        let pid: i32 = said[0].1.parse().expect("a pid");
        // SAFETY: a signal to a child of a shell that this test started; it cannot have ended by
        // itself, so the pid is still its own.
        let is_there = unsafe { libc::kill(pid, libc::SIGKILL) } == 0;
        assert!(ok && is_there, "it was waited for");
    }
}

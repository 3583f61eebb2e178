//! A process that blocks uninterruptibly when it is told to, without any I/O.

use std::{
    ffi::CString,
    fs,
    io::{self, Read as _, Write as _},
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::{eventually, place::IoGroup};

/// Killed if the test fails before it has ended.
pub struct Sleeper {
    pid: Option<Pid>,
    tell: io::PipeWriter,
    dir: tempfile::TempDir,
}

impl Sleeper {
    /// One in these groups that waits to be told.
    pub fn new(group: &IoGroup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o600.into()).unwrap();
        let fifo = CString::new(fifo.to_str().unwrap()).unwrap();
        let (mut told, tell) = io::pipe().unwrap();
        let mut word = move || told.read_exact(&mut [0]);
        // SAFETY: the child allocates nothing that another thread could have locked for good,
        // which the C library makes sure of, and ends without returning.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "{}", io::Error::last_os_error());
        if pid == 0 {
            let mut entered = group.directories().map(|dir| dir.join("cgroup.procs"));
            let well = entered.all(|file| fs::write(file, "0").is_ok())
                && word().is_ok()
                && start_by(&fifo)
                && word().is_ok();
            // SAFETY: ends this process.
            unsafe { libc::_exit(i32::from(!well)) };
        }
        Self {
            pid: Pid::from_raw(pid),
            tell,
            dir,
        }
    }

    pub fn pid(&self) -> u32 {
        self.pid.unwrap().as_raw_nonzero().get().unsigned_abs()
    }

    /// Blocks it, until [`Self::release`].
    pub fn block(&mut self) {
        self.tell.write_all(b"!").unwrap();
        eventually("blocked", || self.state() == b'D');
    }

    /// Lets it go on to where it waits to be told once more, in a sleep that is no such one.
    pub fn release(&self) {
        fs::write(self.dir.path().join("fifo"), "").unwrap();
        eventually("sleeping", || self.state() == b'S');
    }

    /// Lets it end.
    pub fn finish(mut self) {
        self.tell.write_all(b"!").unwrap();
        let ended = waitpid(self.pid.take(), WaitOptions::empty()).unwrap();
        assert_eq!(ended.unwrap().1.exit_status(), Some(0));
    }

    /// `R`, `S`, `D`, ... of `/proc/PID/stat`.
    fn state(&self) -> u8 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        stat.rsplit_once(") ").unwrap().1.as_bytes()[0]
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        if let Some(pid) = self.pid.take() {
            let _ = kill_process(pid, Signal::KILL);
            // Whoever it started holds it until the other end of the pipe is open.
            let _ = rustix::fs::open(
                self.dir.path().join("fifo"),
                rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NONBLOCK,
                rustix::fs::Mode::empty(),
            );
            let _ = waitpid(Some(pid), WaitOptions::empty());
        }
    }
}

/// Starts a program with its input from there. Whoever starts one is blocked uninterruptibly
/// until it has begun, and it does not begin before somebody opens the pipe at its other end.
fn start_by(fifo: &CString) -> bool {
    let program = c"/bin/sh";
    let arguments = [
        program.as_ptr().cast_mut(),
        c"-c".as_ptr().cast_mut(),
        c":".as_ptr().cast_mut(),
        std::ptr::null_mut(),
    ];
    // SAFETY: all pointers are to C strings that outlive the calls; `actions` is made by the
    // first call before the others use it.
    unsafe {
        let mut actions = std::mem::zeroed();
        let mut child = 0;
        libc::posix_spawn_file_actions_init(&raw mut actions) == 0
            && libc::posix_spawn_file_actions_addopen(
                &raw mut actions,
                0,
                fifo.as_ptr(),
                libc::O_RDONLY,
                0,
            ) == 0
            && libc::posix_spawn(
                &raw mut child,
                program.as_ptr(),
                &raw const actions,
                std::ptr::null(),
                arguments.as_ptr(),
                [std::ptr::null_mut()].as_ptr(),
            ) == 0
            && libc::waitpid(child, std::ptr::null_mut(), 0) == child
    }
}

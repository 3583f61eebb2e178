//! A forked child in a cgroup, which runs a closure and ends without unwinding.

use std::{fs, io};

use super::cgroup::Group;

/// A child that has been let go; killed if the test fails before it has ended.
pub struct Child(i32);

impl Child {
    /// Forks, puts the child into `group` and runs `work` there.
    pub fn start(group: &Group, work: impl FnOnce()) -> Self {
        let mut go = [0; 2];
        // SAFETY: room for two descriptors.
        assert_eq!(unsafe { libc::pipe(go.as_mut_ptr()) }, 0);
        // SAFETY: the child runs `work`, which keeps to what a fork of a process with several
        // threads may do, and ends without returning.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "{}", io::Error::last_os_error());
        if pid == 0 {
            let mut byte = 0_u8;
            // SAFETY: one byte of room; waits until it is in the cgroup.
            unsafe { libc::read(go[0], (&raw mut byte).cast(), 1) };
            work();
            // SAFETY: ends this process.
            unsafe { libc::_exit(0) };
        }
        let child = Self(pid);
        fs::write(group.path.join("cgroup.procs"), pid.to_string()).unwrap();
        // SAFETY: one byte; both descriptors are this function's.
        unsafe {
            libc::write(go[1], [1_u8].as_ptr().cast(), 1);
            libc::close(go[0]);
            libc::close(go[1]);
        }
        child
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.unsigned_abs()
    }

    /// Waits for its end and returns the raw status.
    pub fn wait(self) -> i32 {
        let mut status = 0;
        // SAFETY: a child of this process that nobody else waits for.
        let pid = unsafe { libc::waitpid(self.0, &raw mut status, 0) };
        assert_eq!(pid, self.0, "{}", io::Error::last_os_error());
        std::mem::forget(self);
        status
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: a child of this process that nobody has waited for.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, std::ptr::null_mut(), 0);
        }
    }
}

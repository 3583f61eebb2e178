//! A seccomp filter that refuses one system call, `personality`, and calls that meet it.
//! Everything here may run in a forked child.

use std::{mem, ptr};

const SYS_REFUSED: i64 = libc::SYS_personality;

fn program(action: u32) -> [libc::sock_filter; 4] {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let row = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    [
        row(LOAD, 0, 0, 0), // seccomp_data.nr
        row(IF_EQUAL, 0, 1, SYS_REFUSED as u32),
        row(RETURN, 0, 0, action),
        row(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

/// Puts this process under the filter; returns what `seccomp` does.
fn seccomp(action: u32, flags: u64) -> i64 {
    let mut rows = program(action);
    let filter = libc::sock_fprog {
        len: rows.len() as u16,
        filter: rows.as_mut_ptr(),
    };
    // SAFETY: plain numbers, and a filter that outlives the call.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const filter,
        )
    }
}

/// Refuses `personality` with `action` from now on.
pub fn install(action: u32) {
    if seccomp(action, 0) != 0 {
        die();
    }
}

/// Runs `work` in a child whose calls this process decides on, refusing `n` of them.
pub fn supervised(n: u64, work: fn()) {
    let listener = seccomp(
        libc::SECCOMP_RET_USER_NOTIF,
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
    );
    if listener < 0 {
        die();
    }
    let child = fork(work);
    for _ in 0..n {
        // SAFETY: zeroed is what the kernel wants, both structures are plain numbers, and
        // the requests take exactly them.
        unsafe {
            let mut request: libc::seccomp_notif = mem::zeroed();
            let receive = libc::_IOWR::<libc::seccomp_notif>(u32::from(b'!'), 0);
            if libc::ioctl(listener as i32, receive, &raw mut request) != 0 {
                die();
            }
            let mut answer: libc::seccomp_notif_resp = mem::zeroed();
            answer.id = request.id;
            answer.error = -libc::EPERM;
            let send = libc::_IOWR::<libc::seccomp_notif_resp>(u32::from(b'!'), 1);
            if libc::ioctl(listener as i32, send, &raw mut answer) != 0 {
                die();
            }
        }
    }
    wait(child);
}

/// Meets the filter.
pub fn refused_call() {
    // SAFETY: asks for the present personality; changes nothing.
    unsafe { libc::syscall(SYS_REFUSED, 0xffff_ffff_u64) };
}

/// One call that succeeds and two that fail by themselves.
pub fn allowed_calls() {
    // SAFETY: plain numbers; the descriptor does not exist.
    unsafe {
        libc::syscall(libc::SYS_getppid);
        libc::syscall(libc::SYS_close, -1);
        libc::syscall(libc::SYS_read, -1, 0, 0);
    }
}

/// Survives this signal.
pub fn catch(signal: i32) {
    extern "C" fn handler(_: i32) {}
    // SAFETY: a handler that does nothing.
    unsafe { libc::signal(signal, handler as *const () as usize) };
}

/// Sends this process SIGALRM again and again.
pub fn alarm_every_ms(ms: i64) {
    let every = libc::timeval {
        tv_sec: 0,
        tv_usec: ms * 1_000,
    };
    let timer = libc::itimerval {
        it_interval: every,
        it_value: every,
    };
    // SAFETY: a timer that outlives the call.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, ptr::null_mut()) };
}

/// Sleeps, however often it is interrupted.
pub fn sleep_ms(ms: u64) {
    std::thread::sleep(std::time::Duration::from_millis(ms));
}

/// A child that runs `work` and ends.
pub fn fork(work: fn()) -> i32 {
    // SAFETY: the child runs `work` and ends without returning.
    unsafe {
        let pid = libc::fork();
        if pid == 0 {
            work();
            libc::_exit(0);
        }
        pid
    }
}

/// Waits for it, however often it is interrupted.
pub fn wait(pid: i32) {
    // SAFETY: a child of this process.
    unsafe { while libc::waitpid(pid, ptr::null_mut(), 0) != pid {} }
}

/// Becomes another program.
pub fn exec_true() {
    let arguments = [c"true".as_ptr(), ptr::null()];
    // SAFETY: texts that end, in a list that ends.
    unsafe {
        libc::execv(c"/bin/true".as_ptr(), arguments.as_ptr());
        libc::execv(c"/bin/busybox".as_ptr(), arguments.as_ptr());
    }
}

fn die() -> ! {
    // SAFETY: ends this process.
    unsafe { libc::_exit(1) }
}

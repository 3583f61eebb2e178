//! Names of system calls by number.

use agent_common::event::wait::{COMPAT, NO_CALL};
use syscalls::Sysno;

/// The name of a system call as the kernel side numbers it, e.g. `openat`; `syscall_N` for
/// one that is younger than the table, `unknown` where the kernel side could not tell.
#[must_use]
pub fn name(call: u64) -> String {
    if call == NO_CALL {
        return "unknown".to_owned();
    }
    let number = (call & !COMPAT) as usize;
    let known = if call & COMPAT != 0 {
        syscalls::x86::Sysno::new(number).map(|call| call.name())
    } else {
        Sysno::new(number).map(|call| call.name())
    };
    known.map_or_else(|| format!("syscall_{number}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_kind_of_program() {
        assert_eq!(name(libc::SYS_openat as u64), "openat");
        assert_eq!(name(1 | COMPAT), "exit", "a 32-bit program's");
        assert_eq!(name(99_999), "syscall_99999");
    }
}

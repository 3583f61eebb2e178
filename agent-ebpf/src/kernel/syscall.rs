//! The system call that the running thread is in, from the registers it saved on entry.

use agent_common::event::wait::{COMPAT, NO_CALL};
use aya_ebpf::{
    Global,
    helpers::{bpf_get_current_task, bpf_get_current_task_btf, bpf_task_pt_regs},
};

use super::{Memory, Probed, field, has};

/// `thread_info.status`: in a 32-bit system call (x86, `TS_COMPAT`).
const TS_COMPAT: u32 = 2;

/// The kernel has `bpf_task_pt_regs` (5.15).
#[unsafe(no_mangle)]
static HAS_TASK_PT_REGS: Global<u32> = Global::new(0);

/// `THREAD_SIZE` of x86-64 before 5.15, without KASAN. Where it is another one, the registers
/// found do not look like a program's, and no system call is told.
const STACK_BYTES: u64 = 16 * 1024;
/// The lowest bits of `cs` while a program runs, not the kernel.
const USER_MODE: u64 = 3;

/// What a thread saved when it entered the kernel.
#[derive(Clone, Copy)]
pub struct Registers(*const u8);

impl Registers {
    /// Those of the running thread; null where they cannot be found.
    #[inline(always)]
    pub fn of_current() -> Self {
        if HAS_TASK_PT_REGS.load() != 0 {
            // SAFETY: the first helper returns the running task as the second one wants it;
            // what that returns is read with `Probed` only.
            return Self(unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) as *const u8 });
        }
        if !has(&field::TASK_STACK) || !has(&field::PT_REGS_SS) || !has(&field::PT_REGS_CS) {
            return Self(core::ptr::null());
        }
        // SAFETY: `Probed` copes with any address.
        unsafe {
            let stack = Probed::pointer(bpf_get_current_task() as *const u8, &field::TASK_STACK);
            let bytes = u64::from(field::PT_REGS_SS.load()) + 8;
            let registers = stack.wrapping_add((STACK_BYTES - bytes) as usize);
            let is_program = Probed::read::<u64>(registers, &field::PT_REGS_CS) & 3 == USER_MODE;
            Self(if is_program {
                registers
            } else {
                core::ptr::null()
            })
        }
    }

    /// Those at an address that the kernel gave.
    #[inline(always)]
    pub fn at(address: *const u8) -> Self {
        Self(address)
    }

    /// The number of the system call that the running thread is in; [`NO_CALL`] for a fault
    /// or an interrupt.
    #[inline(always)]
    pub fn call(self) -> u64 {
        if self.0.is_null() {
            return NO_CALL;
        }
        // SAFETY: `Probed` copes with any address.
        unsafe {
            if has(&field::PT_REGS_SYSCALLNO) {
                let number = Probed::read::<u32>(self.0, &field::PT_REGS_SYSCALLNO) as i32;
                return if number < 0 { NO_CALL } else { number as u64 };
            }
            // A fault leaves its error code where a system call leaves its number; but only
            // the instruction SYSCALL leaves the return address in a second register.
            if Probed::read::<u64>(self.0, &field::PT_REGS_CX)
                != Probed::read::<u64>(self.0, &field::PT_REGS_IP)
                && !in_compat_call()
            {
                return NO_CALL;
            }
        }
        self.number()
    }

    /// The number of the system call, where it is known that there is one.
    #[inline(always)]
    pub fn number(self) -> u64 {
        if self.0.is_null() {
            return NO_CALL;
        }
        // SAFETY: `Probed` copes with any address.
        unsafe {
            if has(&field::PT_REGS_SYSCALLNO) {
                return u64::from(Probed::read::<u32>(self.0, &field::PT_REGS_SYSCALLNO));
            }
            let number = Probed::read::<u64>(self.0, &field::PT_REGS_ORIG_AX) & 0xffff_ffff;
            if in_compat_call() {
                number | COMPAT
            } else {
                number
            }
        }
    }

    /// The first argument of the system call.
    #[inline(always)]
    pub fn first_argument(self) -> u64 {
        // SAFETY: `Probed` copes with any address.
        unsafe {
            if has(&field::PT_REGS_DI) {
                Probed::read(self.0, &field::PT_REGS_DI)
            } else {
                Probed::read(self.0, &field::PT_REGS_ORIG_X0)
            }
        }
    }
}

#[inline(always)]
fn in_compat_call() -> bool {
    // SAFETY: returns the running task, which `Probed` reads.
    unsafe {
        has(&field::TASK_THREAD_STATUS)
            && has(&field::PT_REGS_ORIG_AX)
            && Probed::read::<u32>(
                bpf_get_current_task() as *const u8,
                &field::TASK_THREAD_STATUS,
            ) & TS_COMPAT
                != 0
    }
}

//! Atomic addition: `core::sync::atomic` has no read-modify-write for a target without
//! compare-and-swap.

use core::arch::asm;

/// `*to += value`, atomically.
///
/// # Safety
///
/// `to` points to a writable, aligned u64.
#[inline(always)]
pub unsafe fn add(to: *mut u64, value: u64) {
    // SAFETY: by the caller's promise.
    unsafe {
        asm!("lock *(u64 *)({to} + 0) += {value}", to = in(reg) to, value = in(reg) value);
    }
}

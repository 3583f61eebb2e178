//! Indices that the verifier believes. The compiler drops a check of bounds that it can prove
//! superfluous, and the verifiers of older kernels (seen on 6.1) cannot follow the proof.

use core::arch::asm;

/// `index` if it is below `length`, by a comparison that stays in the program.
#[inline(always)]
pub fn below(index: usize, length: usize) -> Option<usize> {
    let mut index = index;
    // SAFETY: does nothing; to the compiler the register has any value after it.
    unsafe {
        asm!("/* {index} */", index = inout(reg) index, options(nomem, nostack, preserves_flags));
    }
    (index < length).then_some(index)
}

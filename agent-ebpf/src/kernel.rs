//! Kernel structures by the offsets that the loader found in BTF. Nothing else in this crate
//! knows a layout.

pub mod block;
pub mod net;
pub mod sched;
pub mod syscall;
pub mod worker;

use core::ffi::c_void;

use aya_ebpf::{Global, helpers::bpf_probe_read_kernel};

macro_rules! constants {
    ($($name:ident: $structure:literal $path:literal $size:literal $need:ident, $what:literal;)+) => {
        /// The offsets, one constant per row of `kernel_fields`.
        pub mod field {
            use aya_ebpf::Global;
            $(
                #[doc = concat!($structure, ".", $path, ": ", $what)]
                #[unsafe(no_mangle)]
                pub static $name: Global<u32> = Global::new(agent_common::kernel_fields::ABSENT);
            )+
        }
    };
}

agent_common::for_each_kernel_field!(constants);

macro_rules! arguments {
    ($($name:ident: $tracepoint:literal $index:literal $structure:literal, $what:literal;)+) => {
        /// Which tracepoint arguments the running kernel has, one constant per row of
        /// `kernel_fields`.
        pub mod argument {
            use aya_ebpf::Global;
            $(
                #[doc = concat!($tracepoint, "[", $index, "]: ", $structure, " ", $what)]
                #[unsafe(no_mangle)]
                pub static $name: Global<u32> = Global::new(0);
            )+
        }
    };
}

agent_common::for_each_kernel_argument!(arguments);

/// Whether the running kernel has the member.
#[inline(always)]
pub fn has(field: &Global<u32>) -> bool {
    field.load() != agent_common::kernel_fields::ABSENT
}

/// The second argument of a tracepoint, where the first one may be meant as well: in a
/// function of its own, as the compiler would compute one place from the two, which kernels
/// before 5.12 refuse, and none allows where a prototype is too short.
///
/// # Safety
///
/// `context` is a tracepoint's, of a prototype with two arguments at least.
#[inline(never)]
pub unsafe fn second_argument(context: *mut c_void) -> *const u8 {
    // SAFETY: by the caller's promise.
    unsafe { context.cast::<*const u8>().add(1).read_volatile() }
}

/// An argument of a kernel function as a number: as it is, the verifier knows its type, and
/// allows no arithmetic with it. 0 where that is not readable.
///
/// # Safety
///
/// `context` is a function entry's, of a prototype with more than `index` arguments.
#[inline(always)]
pub unsafe fn argument_as_number(context: *mut c_void, index: usize) -> u64 {
    // SAFETY: by the caller's promise; the helper copes with any address.
    unsafe { bpf_probe_read_kernel(context.cast::<u64>().add(index)) }.unwrap_or(0)
}

/// How kernel memory is read, so that one program body serves both kinds of hook.
pub trait Memory: Copy {
    /// The value at `base + offset`; 0 where that is not readable.
    ///
    /// # Safety
    ///
    /// `base` points to a kernel object which has a `T` at the field's offset.
    unsafe fn read<T: Copy + Default>(base: *const u8, field: &Global<u32>) -> T;

    /// The pointer at `base + offset`; null where that is not readable.
    ///
    /// # Safety
    ///
    /// As for [`Memory::read`], with a pointer there.
    unsafe fn pointer(base: *const u8, field: &Global<u32>) -> *const u8;
}

/// The bit at `base` plus an offset in bits; false where that is not readable.
///
/// # Safety
///
/// `base` points to a kernel object which has the bit-field.
#[inline(always)]
pub unsafe fn bit(base: *const u8, field: &Global<u32>) -> bool {
    let at = field.load();
    let byte = base.wrapping_add(at as usize / 8);
    // SAFETY: the helper copes with any address.
    let byte: u8 = unsafe { bpf_probe_read_kernel(byte) }.unwrap_or(0);
    byte >> (at % 8) & 1 != 0
}

/// Plain loads, which the verifier checks against BTF: for arguments of `tp_btf` programs
/// and what they point to.
#[derive(Clone, Copy)]
pub struct Typed;

/// Loads by helper, for pointers of which the verifier knows no type.
#[derive(Clone, Copy)]
pub struct Probed;

impl Memory for Typed {
    #[inline(always)]
    unsafe fn read<T: Copy + Default>(base: *const u8, field: &Global<u32>) -> T {
        // SAFETY: by the caller's promise; the verifier refuses an offset at which the type
        // has no such member, and the kernel makes a faulting load yield 0.
        unsafe { core::ptr::read_volatile(base.add(field.load() as usize).cast::<T>()) }
    }

    #[inline(always)]
    unsafe fn pointer(base: *const u8, field: &Global<u32>) -> *const u8 {
        // SAFETY: as in `read`. Read as a pointer, so that the verifier keeps its type.
        unsafe { core::ptr::read_volatile(base.add(field.load() as usize).cast::<*const u8>()) }
    }
}

impl Memory for Probed {
    #[inline(always)]
    unsafe fn read<T: Copy + Default>(base: *const u8, field: &Global<u32>) -> T {
        let address = base.wrapping_add(field.load() as usize).cast::<T>();
        // SAFETY: the helper copes with any address.
        unsafe { bpf_probe_read_kernel(address) }.unwrap_or_default()
    }

    #[inline(always)]
    unsafe fn pointer(base: *const u8, field: &Global<u32>) -> *const u8 {
        // SAFETY: as in `read`.
        unsafe { Self::read::<usize>(base, field) as *const u8 }
    }
}

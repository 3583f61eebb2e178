//! What a thread that waits for a disk or for memory does there, by the functions on its kernel
//! stack: no flag of it tells a page that is read back from the swap space from one of a file, and
//! neither from reclaim.

use core::ffi::c_void;

use aya_ebpf::{Global, helpers::bpf_get_stack, macros::map, maps::PerCpuArray};

/// What is looked for is 12 functions away from `schedule()`, or 25 where the thread waits in the
/// block layer.
const FRAMES: usize = 32;
const FRAME_BYTES: usize = size_of::<u64>();

/// Too large for a program's own stack.
#[map]
static KERNEL_STACK: PerCpuArray<[u64; FRAMES]> = PerCpuArray::with_max_entries(1, 0);

/// What the innermost function says that is known.
#[derive(Clone, Copy)]
pub enum Doing {
    /// It frees memory.
    Reclaim,
    /// It has a page read from the swap space.
    SwapIn,
    /// It has a page made available that it touched, of a file.
    Fault,
    /// None of these.
    Other,
    /// Not known: the functions are not, or there are too many of them.
    Unknown,
}

macro_rules! functions {
    ($($begin:ident $end:ident;)+) => {
        $(
            /// First address of the function; 0 where not known. Written by user space.
            #[unsafe(no_mangle)]
            static $begin: Global<u64> = Global::new(0);
            /// One past its last; likewise.
            #[unsafe(no_mangle)]
            static $end: Global<u64> = Global::new(0);
        )+
    };
}

functions! {
    // `try_to_free_pages`, `try_to_free_mem_cgroup_pages`
    FN_FREE_PAGES FN_FREE_PAGES_END;
    FN_FREE_CGROUP_PAGES FN_FREE_CGROUP_PAGES_END;
    // `do_swap_page`, `shmem_swapin_folio` or `shmem_swapin_page`
    FN_SWAP_IN FN_SWAP_IN_END;
    FN_SHMEM_SWAP_IN FN_SHMEM_SWAP_IN_END;
    // `handle_mm_fault`
    FN_FAULT FN_FAULT_END;
}

/// Whether a return address is one of the function's.
#[inline(always)]
fn is_in(address: u64, begin: &Global<u64>, end: &Global<u64>) -> bool {
    // The call may be its last instruction; it is never its first.
    address > begin.load() && address <= end.load()
}

/// What the running thread does, as it is switched out.
#[inline(never)]
pub fn doing(context: *mut c_void) -> Doing {
    let Some(stack) = KERNEL_STACK.get_ptr_mut(0) else {
        return Doing::Unknown;
    };
    if FN_FAULT.load() == 0 {
        return Doing::Unknown;
    }
    let bytes = (FRAMES * FRAME_BYTES) as u32;
    // SAFETY: the context is the tracepoint's, and there is so much room.
    let bytes = unsafe { bpf_get_stack(context, stack.cast(), bytes, 0) };
    if bytes <= 0 {
        return Doing::Unknown;
    }
    for frame in 0..FRAMES {
        if (frame * FRAME_BYTES) as i64 >= bytes {
            return Doing::Other;
        }
        // SAFETY: a frame of the map's value.
        let address = unsafe { stack.cast::<u64>().add(frame).read_volatile() };
        if is_in(address, &FN_FREE_PAGES, &FN_FREE_PAGES_END)
            || is_in(address, &FN_FREE_CGROUP_PAGES, &FN_FREE_CGROUP_PAGES_END)
        {
            return Doing::Reclaim;
        }
        if is_in(address, &FN_SWAP_IN, &FN_SWAP_IN_END)
            || is_in(address, &FN_SHMEM_SWAP_IN, &FN_SHMEM_SWAP_IN_END)
        {
            return Doing::SwapIn;
        }
        if is_in(address, &FN_FAULT, &FN_FAULT_END) {
            return Doing::Fault;
        }
    }
    Doing::Unknown
}

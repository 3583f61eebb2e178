//! How the C library hands memory out.

/// The block size from which on a block is a mapping of its own, which goes back when it is freed.
const MMAP_THRESHOLD_BYTES: libc::c_int = 1 << 20;
/// What may lie free at the end of the heap.
const TRIM_THRESHOLD_BYTES: libc::c_int = 4 << 20;

/// Keeps the C library from raising its thresholds by itself: it does so, up to 32 MiB, after the
/// first large block was freed, and then large blocks (a table that grew, a batch) come from
/// the heap and leave holes in it. Call it before there are threads.
///
/// Nothing is done where the C library is not glibc: mallopt(3).
pub fn set_up() {
    #[cfg(target_env = "gnu")]
    for (parameter, bytes) in [
        (libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES),
        (libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES),
    ] {
        // SAFETY: takes two numbers, and is called before there are other threads. One that is
        // refused changes nothing.
        let _ = unsafe { libc::mallopt(parameter, bytes) };
    }
}

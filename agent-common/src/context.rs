//! Where a process keeps the pointer to each thread's context: what user space finds out once,
//! and the kernel side follows at every switch.

/// How the thread's own memory is reached from its thread pointer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContextPlace {
    /// From the thread pointer, or, with `module`, from the start of the module's block.
    pub offset: i64,
    /// Number of the module in the thread's vector of blocks; 0: the offset is from the thread
    /// pointer itself.
    pub module: u32,
    /// Bytes of one entry of that vector: 16 in glibc, 8 in musl.
    pub entry_bytes: u32,
}

impl ContextPlace {
    /// Nothing of the process is read: another agent says what its threads work on, in the map
    /// [`TRACES_MAP`].
    pub const IN_THE_MAP: Self = Self {
        offset: 0,
        module: u32::MAX,
        entry_bytes: 0,
    };
}

/// Name of the map in which OpenTelemetry's eBPF instrumentation says which trace each thread works
/// on; its key is what `bpf_get_current_pid_tgid` returns, its value [`TraceContext`].
pub const TRACES_MAP: &str = "traces_ctx_v1";

/// 16 bytes of trace id, then 8 of span id, as they are written out.
pub type TraceContext = [u64; 3];

/// Most modules that a vector of blocks is believed to have.
pub const MAX_MODULES: u32 = 4096;

const _: () = assert!(size_of::<ContextPlace>() == 16 && align_of::<ContextPlace>() == 8);

#[cfg(feature = "user")]
// SAFETY: `repr(C)` of integers without padding (asserted above): any bytes are a valid value.
unsafe impl aya::Pod for ContextPlace {}

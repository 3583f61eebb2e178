//! Programs that do nothing, at the hooks of the agent's sensors: what a hook costs whatever runs
//! there. Loaded by the system call itself, so that nothing of the agent is in them.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use anyhow::Context as _;

/// `enum bpf_cmd`: `BPF_PROG_LOAD`.
const PROG_LOAD: libc::c_long = 5;
/// `enum bpf_cmd`: `BPF_RAW_TRACEPOINT_OPEN`.
const RAW_TRACEPOINT_OPEN: libc::c_long = 17;
/// `enum bpf_prog_type`: `BPF_PROG_TYPE_RAW_TRACEPOINT`.
const RAW_TRACEPOINT: u32 = 17;

/// Two instructions: `r0 = 0`, `exit`.
static NOTHING: [u64; 2] = [0xb7, 0x95];

/// The part of `union bpf_attr` that loads a program.
#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log: [u32; 2],
    log_buffer: u64,
}

/// The part of it that puts one on a tracepoint.
#[repr(C)]
struct Open {
    name: u64,
    program: u32,
    _pad: u32,
}

/// Attached until dropped.
pub struct Floor(#[expect(dead_code, reason = "held open")] Vec<OwnedFd>);

impl Floor {
    /// One program on each of these tracepoints; as many as it is named times.
    ///
    /// # Errors
    /// When the kernel refuses one.
    pub fn attach(tracepoints: &[String]) -> anyhow::Result<Self> {
        let mut open = Vec::new();
        for name in tracepoints {
            let program = load().context("an empty program")?;
            let link = on(&program, name).with_context(|| name.clone())?;
            open.extend([program, link]);
        }
        Ok(Self(open))
    }
}

fn load() -> io::Result<OwnedFd> {
    let attr = Load {
        kind: RAW_TRACEPOINT,
        instructions: NOTHING.len() as u32,
        code: NOTHING.as_ptr().addr() as u64,
        license: c"GPL".as_ptr().addr() as u64,
        log: [0; 2],
        log_buffer: 0,
    };
    bpf(PROG_LOAD, &attr)
}

fn on(program: &OwnedFd, tracepoint: &str) -> io::Result<OwnedFd> {
    let name = CString::new(tracepoint)?;
    let attr = Open {
        name: name.as_ptr().addr() as u64,
        program: program.as_raw_fd().cast_unsigned(),
        _pad: 0,
    };
    bpf(RAW_TRACEPOINT_OPEN, &attr)
}

/// A command that answers with a new descriptor.
fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<OwnedFd> {
    // SAFETY: `attr` is the part of the union that the command reads, of this size; what it points
    // to lives until the call is over.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attr),
            size_of::<T>(),
        )
    };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it for this caller.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

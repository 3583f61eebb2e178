//! The programs, one module per sensor.

mod block;
mod context;
mod cpu;
mod kvm;
mod memory;
mod net;
mod process;
mod seccomp;
mod tcp;
mod wait;

/// Does nothing: what a program on this hook costs at least, for the benchmark.
#[aya_ebpf::macros::btf_tracepoint(function = "sched_switch")]
pub fn floor_switch(_: aya_ebpf::programs::BtfTracePointContext) -> u32 {
    0
}

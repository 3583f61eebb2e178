//! The contract between the eBPF programs and the daemon: event layouts, map values, knobs
//! and the table of kernel fields. Depends on nothing but `core` (and aya's `Pod` for user
//! space), does no I/O.
#![no_std]

pub mod consumption;
pub mod context;
pub mod cpu;
pub mod device;
pub mod event;
pub mod histogram;
pub mod kernel_fields;
pub mod series;

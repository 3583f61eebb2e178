//! Facts about this host: the only module that reads `/proc`, `/sys` and cgroupfs.

pub mod btf;
pub mod capabilities;
pub mod cgroup;
pub mod conntrack;
pub mod devices;
pub mod engine_files;
pub mod functions;
pub mod identify;
pub mod kmsg;
pub mod kubelet_logs;
pub mod listening;
pub mod naming;
pub mod peer;
pub mod platform;
pub mod proc;
pub mod roots;
pub mod thread_context;

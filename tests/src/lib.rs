//! What the end-to-end tests, the demo and the benchmark share: guards for processes,
//! cgroups and namespaces that are gone when their owner is gone, however it went, and
//! small clients for the agent and its real peers.

pub mod agent;
pub mod artifact;
pub mod browser;
pub mod cgroup;
pub mod cluster;
pub mod debian;
pub mod guardian;
pub mod http;
pub mod jaeger;
pub mod netns;
pub mod otlp;
pub mod peers;
pub mod process;
pub mod prometheus;
pub mod service;
pub mod wait;

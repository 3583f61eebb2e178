//! Real connections, namespaces, containers and pid reuse; needs root, bash, iproute2,
//! iptables, util-linux, runc and a static busybox. Everything made is taken away again, on
//! failure too.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics has failed, helpers included"
)]

#[path = "identity_peer/lab.rs"]
mod lab;

#[path = "identity_peer/cgroup_namespace.rs"]
mod cgroup_namespace;
#[path = "identity_peer/join.rs"]
mod join;
#[path = "identity_peer/peer.rs"]
mod peer;
#[path = "identity_peer/runc.rs"]
mod runc;
#[path = "identity_peer/socket.rs"]
mod socket;

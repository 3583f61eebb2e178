//! The forwarder against servers on real sockets: what is accepted arrives, whatever state
//! downstream is in, and what cannot arrive is said.

#[path = "forward_real/agent.rs"]
mod agent;
#[path = "forward_real/answers.rs"]
mod answers;
#[path = "forward_real/delivery.rs"]
mod delivery;
#[path = "forward_real/downstream.rs"]
mod downstream;
#[path = "forward_real/outage.rs"]
mod outage;
#[path = "forward_real/stop.rs"]
mod stop;
#[path = "forward_real/tls.rs"]
mod tls;

/// Both ways of sending.
const PROTOCOLS: [&str; 2] = ["grpc", "http/protobuf"];

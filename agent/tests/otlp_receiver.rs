//! The receiver against real senders, and against what real senders must never send.

#[path = "otlp_receiver/harness.rs"]
mod harness;

#[path = "otlp_receiver/bad_input.rs"]
mod bad_input;
#[path = "otlp_receiver/senders.rs"]
mod senders;
#[path = "otlp_receiver/stopping.rs"]
mod stopping;

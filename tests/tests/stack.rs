//! Real runtimes, one at a time, each busy under a CPU quota: `stack PID` says what the
//! process runs inside, and the throttled time in `/metrics` carries the same layer. `inside`
//! asks the same of a service with a real SDK, and of its spans in a real Jaeger.
//!
//! A runtime that this machine cannot run says why in a line that begins with "not run:".

#[path = "stack/case.rs"]
mod case;
#[path = "stack/containers.rs"]
mod containers;
#[path = "stack/hostile.rs"]
mod hostile;
#[path = "stack/inside.rs"]
mod inside;
#[path = "stack/programs.rs"]
mod programs;
#[path = "stack/relay.rs"]
mod relay;
#[path = "stack/spans.rs"]
mod spans;

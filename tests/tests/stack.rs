//! Real runtimes, one at a time, each busy under a CPU quota: `stack PID` says what the
//! process runs inside, and the throttled time in `/metrics` carries the same layer.
//!
//! A runtime that this machine cannot run says why in a line that begins with "not run:".

#[path = "stack/case.rs"]
mod case;
#[path = "stack/containers.rs"]
mod containers;
#[path = "stack/hostile.rs"]
mod hostile;
#[path = "stack/programs.rs"]
mod programs;

//! The daemon behind `isostack-agent`, as a library so that each stage can be tested alone.
//!
//! Data flows one way (ARCHITECTURE.md has the picture): kernel events come from `sensor`
//! into `pipeline`; spans come from `otlp` through `join` into `pipeline`; what it judged
//! goes through `otlp::enrich` to `forward`, and `export` shows it.

mod address;
pub mod allocator;
pub mod classify;
pub mod cli;
pub mod command;
pub mod config;
pub mod doctor;
pub mod event;
pub mod export;
pub mod forward;
pub mod host;
pub mod join;
pub mod knowledge;
pub mod load;
pub mod logs;
pub mod metrics;
pub mod names;
pub mod otlp;
pub mod pipeline;
pub mod process;
pub mod recording;
pub mod run;
pub mod sensor;
pub mod span;
pub mod stack;
mod state_file;
pub mod telemetry;
pub mod time;
pub mod trace;
pub mod verdict;
pub mod vocabulary;
pub mod workload;

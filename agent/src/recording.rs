//! A run written down: everything that enters the pipeline, in order, with the time at which it
//! entered, and what came out. Of the same input come the same answers, so a recording can be
//! judged again: without root, without kernel events, on any machine.
//!
//! The format is lines of JSON, one [`Entry`] each, compressed by gzip (the replay takes them
//! uncompressed too, so that `zcat`, `jq` and `diff` are tools for it). The first line is the
//! [`Header`]; its version is raised by every change that an older reader would misunderstand.
//! The compressor is flushed about once a second: what a killed agent leaves can be replayed up
//! to the last whole line.

pub mod entry;
pub mod keep;
pub mod read;
pub mod recorder;
pub mod replay;
pub mod write;

#[cfg(test)]
mod tests;

pub use entry::{Entry, Header};

/// What the first line of every recording says that it is.
pub const FORMAT: &str = "isostack-recording";
/// The version of the format that this agent writes, and the newest that it reads.
pub const VERSION: u32 = 1;
/// Longest line, in bytes: the largest request that is accepted (20 MiB) in base64, and room.
pub const MAX_LINE_BYTES: usize = 32 << 20;
/// Longest line that is no batch of spans.
pub const MAX_SMALL_LINE_BYTES: usize = 1 << 20;
/// Slots of identities: more than a request may have resources.
pub const MAX_IDENTITIES: u32 = 1 << 18;
/// Events in one line.
pub const EVENTS_PER_LINE: usize = 256;

//! What log lines say about the isolation layers: the table that the build makes out of
//! `log_rules.toml`, whose head describes each field.

use crate::vocabulary::{Cause, Layer};

/// One message that is known.
#[derive(Debug)]
pub struct LogRule {
    /// Its stable name.
    pub id: &'static str,
    /// The layer that the message is about.
    pub layer: Layer,
    /// Text, in lower case, of which some is in every line that matches.
    pub literals: &'static [&'static str],
    /// The regular expression; see [`crate::classify::pattern`].
    pub pattern: &'static str,
    /// What has happened, one sentence.
    pub meaning: &'static str,
    /// What to do, one sentence.
    pub remedy: &'static str,
    /// How sure it is that a line which matches means this, 0..1.
    pub confidence: f64,
    /// The cause of a slow span that such a line may support.
    pub cause: Option<Cause>,
    /// Where the wording is known from.
    pub source: &'static str,
    /// A line that matches.
    pub line: &'static str,
    /// A line that looks alike and does not match.
    pub near_miss: &'static str,
}

/// Every message that is known.
pub const LOG_RULES: &[LogRule] = include!(concat!(env!("OUT_DIR"), "/log_rules.rs"));

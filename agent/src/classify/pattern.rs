//! How a rule's pattern is read. Shared with the build script, which must refuse exactly
//! what would not work later.

use regex::bytes::{Regex, RegexBuilder};

/// A pattern over bytes: ASCII case is ignored, `.` is any byte but a line feed, and classes
/// such as `\w` are ASCII, so that a line needs no valid encoding.
///
/// # Errors
/// When the syntax is wrong or the automaton would become too large.
pub fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern)
        .unicode(false)
        .case_insensitive(true)
        .size_limit(1 << 20)
        .dfa_size_limit(1 << 20)
        .build()
}

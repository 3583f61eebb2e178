//! Log lines -> the isolation layer that they speak of, what they mean, what to do.
//!
//! All literals of all rules are one automaton that runs over whole blocks; only a line in
//! which it finds one is looked at by the regular expressions of those rules.

pub mod pattern;
pub mod report;
pub mod stream;
pub mod tail;

use std::sync::{LazyLock, OnceLock};

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind, MatchKind};
use regex::bytes::Regex;

use crate::{
    knowledge::log_rules::{LOG_RULES, LogRule},
    vocabulary::Layer,
};

/// A longer line is looked at in windows of this size, each by itself.
pub const WINDOW_BYTES: usize = 16 * 1024;
/// What two neighbouring windows share, so that no message is cut by their border.
pub const OVERLAP_BYTES: usize = 4 * 1024;

/// A line that says something.
#[derive(Clone, Copy, Debug)]
pub struct Hit {
    /// What it says.
    pub rule: &'static LogRule,
    /// Its place in [`LOG_RULES`].
    pub index: usize,
    /// First byte of the match in the line.
    pub start: usize,
    /// First byte after it.
    pub end: usize,
}

impl Hit {
    /// Surer, or as sure and further on in the line: in a chain of errors the reason comes
    /// last. The build script decides in the same way which rule a line belongs to.
    fn beats(&self, other: Self) -> bool {
        self.rule
            .confidence
            .total_cmp(&other.rule.confidence)
            .then(self.start.cmp(&other.start))
            .then(other.index.cmp(&self.index))
            .is_gt()
    }
}

/// The automaton and the expressions, built once.
#[derive(Debug)]
pub struct Classifier {
    literals: AhoCorasick,
    /// Rules by literal.
    rules: Vec<Vec<usize>>,
    /// Built when first needed: most never are.
    expressions: Vec<OnceLock<Regex>>,
}

/// Which rules to look at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Only<'a> {
    /// Of these layers; all if empty.
    pub layers: &'a [Layer],
}

impl Only<'_> {
    fn takes(&self, rule: &LogRule) -> bool {
        self.layers.is_empty() || self.layers.contains(&rule.layer)
    }
}

impl Classifier {
    /// The one of this process.
    #[must_use]
    pub fn get() -> &'static Self {
        static SHARED: LazyLock<Classifier> = LazyLock::new(Classifier::build);
        &SHARED
    }

    fn build() -> Self {
        let (mut literals, mut rules): (Vec<&str>, Vec<Vec<usize>>) = Default::default();
        for (index, rule) in LOG_RULES.iter().enumerate() {
            for literal in rule.literals {
                match literals.iter().position(|known| known == literal) {
                    Some(known) => rules[known].push(index),
                    None => {
                        literals.push(literal);
                        rules.push(vec![index]);
                    }
                }
            }
        }
        Self {
            literals: AhoCorasickBuilder::new()
                .ascii_case_insensitive(true)
                .match_kind(MatchKind::Standard)
                .kind(Some(AhoCorasickKind::DFA))
                .build(&literals)
                .expect("a few hundred short literals are within the automaton's limits"),
            rules,
            expressions: LOG_RULES.iter().map(|_| OnceLock::new()).collect(),
        }
    }

    /// Where in `block`, from `from` on, the next literal of any rule begins and ends.
    fn next_literal(&self, block: &[u8], from: usize) -> Option<(usize, usize)> {
        let found = self
            .literals
            .find(aho_corasick::Input::new(block).range(from..))?;
        Some((found.start(), found.end()))
    }

    /// What one line, without its end, says.
    #[must_use]
    pub fn classify(&self, line: &[u8], only: Only<'_>) -> Option<Hit> {
        let mut from = 0;
        loop {
            let to = line.len().min(from + WINDOW_BYTES);
            if let Some(hit) = self.classify_window(&line[from..to], only) {
                let (start, end) = (hit.start + from, hit.end + from);
                return Some(Hit { start, end, ..hit });
            }
            if to == line.len() {
                return None;
            }
            from = to - OVERLAP_BYTES;
        }
    }

    fn classify_window(&self, window: &[u8], only: Only<'_>) -> Option<Hit> {
        let mut looked_at = [0_u64; LOG_RULES.len().div_ceil(64)];
        let mut best: Option<Hit> = None;
        for found in self.literals.find_overlapping_iter(window) {
            for &index in &self.rules[found.pattern().as_usize()] {
                let (word, bit) = (index / 64, 1_u64 << (index % 64));
                let rule = &LOG_RULES[index];
                if looked_at[word] & bit != 0 || !only.takes(rule) {
                    continue;
                }
                looked_at[word] |= bit;
                let Some(place) = self.expression(index).find(window) else {
                    continue;
                };
                let hit = Hit {
                    rule,
                    index,
                    start: place.start(),
                    end: place.end(),
                };
                if best.is_none_or(|other| hit.beats(other)) {
                    best = Some(hit);
                }
            }
        }
        best
    }

    /// What a named group of the rule's pattern holds in a line that it matched.
    #[must_use]
    pub fn group<'l>(&self, hit: Hit, line: &'l [u8], name: &str) -> Option<&'l [u8]> {
        let expression = self.expression(hit.index);
        let known = expression
            .capture_names()
            .flatten()
            .any(|word| word == name);
        if !known {
            return None;
        }
        let window = &line[hit.start..hit.end];
        Some(expression.captures(window)?.name(name)?.as_bytes())
    }

    fn expression(&self, index: usize) -> &Regex {
        self.expressions[index].get_or_init(|| {
            pattern::compile(LOG_RULES[index].pattern)
                .expect("the build compiled the same pattern in the same way")
        })
    }
}

#[cfg(test)]
mod tests;

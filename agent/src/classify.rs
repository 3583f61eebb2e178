//! Log lines -> the isolation layer that they speak of, what they mean, what to do.
//!
//! All literals of all rules are one automaton that runs over whole blocks, in several places
//! at once ([`scan`]); only a line in which it finds one is looked at by the regular expressions of those rules.

pub mod pattern;
pub mod report;
mod scan;
pub mod stream;
pub mod tail;

use std::{
    ops::Range,
    sync::{LazyLock, OnceLock},
};

use aho_corasick::{Input, automaton::Automaton as _, dfa::DFA};
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
    /// Where in the line its expression was tried: all of it, or a window of a long one.
    from: usize,
    to: usize,
}

/// The automaton and the expressions, built once.
#[derive(Debug)]
pub struct Classifier {
    literals: DFA,
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
            literals: DFA::builder()
                .ascii_case_insensitive(true)
                // What begins a literal is in nearly every line: to look for that first only costs.
                .prefilter(false)
                .build(&literals)
                .expect("a few hundred short literals are within the automaton's limits"),
            rules,
            expressions: LOG_RULES.iter().map(|_| OnceLock::new()).collect(),
        }
    }

    /// What one line, without its end, says.
    #[must_use]
    pub fn classify(&self, line: &[u8], only: Only<'_>) -> Option<Hit> {
        self.classify_from(line, 0, only)
    }

    /// The same where it is known that no literal ends before `clear` bytes of the line.
    fn classify_from(&self, line: &[u8], clear: usize, only: Only<'_>) -> Option<Hit> {
        let mut from = 0;
        loop {
            let to = line.len().min(from + WINDOW_BYTES);
            let clear = clear.clamp(from, to) - from;
            if let Some(index) = self.classify_window(&line[from..to], clear, only) {
                let rule = &LOG_RULES[index];
                return Some(Hit {
                    rule,
                    index,
                    from,
                    to,
                });
            }
            if to == line.len() {
                return None;
            }
            from = to - OVERLAP_BYTES;
        }
    }

    /// The rule that speaks for a part of a line.
    fn classify_window(&self, window: &[u8], clear: usize, only: Only<'_>) -> Option<usize> {
        let mut looked_at = [0_u64; LOG_RULES.len().div_ceil(64)];
        let mut best: Option<usize> = None;
        let from = clear.saturating_sub(self.literals.max_pattern_len());
        let input = Input::new(window).range(from..);
        let found = self.literals.try_find_overlapping_iter(input);
        let found = found.expect("the automaton knows all matches, and is not anchored");
        for found in found {
            for &index in &self.rules[found.pattern().as_usize()] {
                let (word, bit) = (index / 64, 1_u64 << (index % 64));
                let rule = &LOG_RULES[index];
                if looked_at[word] & bit != 0 || !only.takes(rule) {
                    continue;
                }
                looked_at[word] |= bit;
                // An expression costs more than all before it: none that cannot win is tried.
                let surer = |other: usize| LOG_RULES[other].confidence > rule.confidence;
                if best.is_some_and(surer) || !self.expression(index).is_match(window) {
                    continue;
                }
                if best.is_none_or(|other| self.beats(index, other, window)) {
                    best = Some(index);
                }
            }
        }
        best
    }

    /// Of two rules that match the surer one wins, or of two as sure that which matches
    /// further on: in a chain of errors the reason comes last. The build script decides in
    /// the same way which rule a line belongs to.
    fn beats(&self, index: usize, other: usize, window: &[u8]) -> bool {
        let start = |index| self.expression(index).find(window).map(|m| m.start());
        let (rule, known) = (&LOG_RULES[index], &LOG_RULES[other]);
        let order = rule.confidence.total_cmp(&known.confidence);
        order
            .then_with(|| start(index).cmp(&start(other)))
            .then(other.cmp(&index))
            .is_gt()
    }

    /// Where in the line is what the rule is about.
    #[must_use]
    pub fn place(&self, hit: Hit, line: &[u8]) -> Range<usize> {
        let found = self.expression(hit.index).find(&line[hit.from..hit.to]);
        found.map_or(hit.from..hit.to, |place| {
            hit.from + place.start()..hit.from + place.end()
        })
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
        let window = &line[hit.from..hit.to];
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

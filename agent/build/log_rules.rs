//! `src/knowledge/log_rules.toml` -> a table of `LogRule`. A rule that is wrong, doubled or
//! that another one always hides is an error of the build, with the rule's name.

use std::{collections::HashSet, error::Error, fmt::Write as _, fs, path::Path};

use regex::bytes::Regex;
use serde::Deserialize;

use crate::{
    pattern::compile,
    vocabulary::{Cause, Layer},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    rule: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    id: String,
    layer: Layer,
    literals: Vec<String>,
    pattern: String,
    meaning: String,
    remedy: String,
    confidence: f64,
    cause: Option<Cause>,
    source: String,
    line: String,
    near_miss: String,
}

/// Writes the table to `target`; gives what is wrong with the rules.
///
/// # Errors
/// When the file cannot be read, is not of this shape, or the table cannot be written.
pub fn generate(source: &Path, target: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let text = fs::read_to_string(source)?;
    let rules = toml::from_str::<Document>(&text)
        .map_err(|error| format!("{}: {error}", source.display()))?
        .rule;
    let complaints = check(&rules);
    fs::write(target, table(&rules)?)?;
    Ok(complaints)
}

fn check(rules: &[Rule]) -> Vec<String> {
    let mut complaints = Vec::new();
    let (mut ids, mut patterns, mut lines) = (HashSet::new(), HashSet::new(), HashSet::new());
    let mut compiled = Vec::new();
    for rule in rules {
        let mut complain = |what: String| complaints.push(format!("log rule {}: {what}", rule.id));
        if rule.id.is_empty()
            || !rule
                .id
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        {
            complain("its id is not lower-case words joined by `_`".into());
        }
        if !ids.insert(&rule.id) {
            complain("there is another rule of this id".into());
        }
        if !patterns.insert(&rule.pattern) || !lines.insert(&rule.line) {
            complain("there is another rule of this pattern or line".into());
        }
        if !(0.0..=1.0).contains(&rule.confidence) || rule.confidence == 0.0 {
            complain("its confidence does not lie above 0 and up to 1".into());
        }
        let texts = [
            &rule.meaning,
            &rule.remedy,
            &rule.source,
            &rule.line,
            &rule.near_miss,
        ];
        if texts
            .iter()
            .any(|text| text.trim().is_empty() || text.contains('\n'))
        {
            complain("one of its texts is empty or of several lines".into());
        }
        for literal in &rule.literals {
            let plain = literal.is_ascii()
                && !literal
                    .bytes()
                    .any(|b| b.is_ascii_uppercase() || b == b'\n');
            if literal.len() < 4 || !plain {
                complain(format!(
                    "its literal {literal:?} is not lower-case ASCII of 4 bytes or more"
                ));
            }
        }
        let expression = match compile(&rule.pattern) {
            Ok(expression) => expression,
            Err(error) => {
                complain(error.to_string());
                continue;
            }
        };
        if !matches(rule, &expression, &rule.line) {
            complain("its own line does not match, or has none of its literals".into());
        }
        if matches(rule, &expression, &rule.near_miss) {
            complain("its near miss matches".into());
        }
        compiled.push((rule, expression));
    }
    for (index, (rule, _)) in compiled.iter().enumerate() {
        if let Some(winner) = winner(&compiled, &rule.line)
            && winner != index
        {
            let other = &compiled[winner].0.id;
            complaints.push(format!(
                "log rule {}: {other} hides it on its own line",
                rule.id
            ));
        }
    }
    complaints
}

fn matches(rule: &Rule, expression: &Regex, line: &str) -> bool {
    let lower = line.to_ascii_lowercase();
    rule.literals
        .iter()
        .any(|literal| lower.contains(literal.as_str()))
        && expression.is_match(line.as_bytes())
}

/// The rule that `classify` would name: of those that match the surest, then the one whose
/// match begins last.
fn winner(rules: &[(&Rule, Regex)], line: &str) -> Option<usize> {
    let candidates = rules
        .iter()
        .enumerate()
        .filter(|(_, (rule, expression))| matches(rule, expression, line));
    candidates
        .filter_map(|(index, (rule, expression))| {
            Some((
                rule.confidence,
                expression.find(line.as_bytes())?.start(),
                index,
            ))
        })
        .max_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).then(b.2.cmp(&a.2)))
        .map(|(_, _, index)| index)
}

fn table(rules: &[Rule]) -> Result<String, std::fmt::Error> {
    let mut out = String::from("&[\n");
    for rule in rules {
        let cause = rule
            .cause
            .map_or("None".to_owned(), |cause| format!("Some(Cause::{cause:?})"));
        writeln!(
            out,
            "LogRule {{ id: {:?}, layer: Layer::{:?}, literals: &{:?}, pattern: {:?}, meaning: {:?}, \
             remedy: {:?}, confidence: {:?}, cause: {cause}, source: {:?}, line: {:?}, near_miss: {:?} }},",
            rule.id,
            rule.layer,
            rule.literals,
            rule.pattern,
            rule.meaning,
            rule.remedy,
            rule.confidence,
            rule.source,
            rule.line,
            rule.near_miss,
        )?;
    }
    out.push_str("]\n");
    Ok(out)
}

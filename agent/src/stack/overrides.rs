//! A person's word against what is inferred: a TOML file of rules that map cgroup paths and
//! processes to layers. Read and checked whole before anything starts.

#[cfg(test)]
mod tests;

use std::{fs::File, io::Read as _, path::Path, str::FromStr, sync::Arc};

use globset::{Glob, GlobBuilder, GlobMatcher};
use serde::Deserialize;

use super::{Stack, StackEntry, process::ProcessFacts};
use crate::vocabulary::Layer;

/// Rules of one file at most.
const MAX_RULES: usize = 256;
/// Layers of one rule at most.
const MAX_LAYERS: usize = 16;
/// Bytes of the file at most.
const MAX_BYTES: u64 = 1 << 20;

/// The rules, in the file's order: the first that fits counts.
#[derive(Clone, Debug, Default)]
pub struct Overrides(Arc<[Rule]>);

#[derive(Debug)]
struct Rule {
    cgroup: Option<GlobMatcher>,
    exe: Option<GlobMatcher>,
    comm: Option<GlobMatcher>,
    host: bool,
    keep: bool,
    layers: Vec<(Layer, String)>,
    /// What the evidence begins with.
    source: String,
}

/// Why a file of rules is refused.
#[derive(Debug, thiserror::Error)]
pub enum OverrideError {
    /// The file cannot be read.
    #[error("the stack override {path} cannot be read ({source}): check --stack-override")]
    Unreadable {
        /// Its path.
        path: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// It is larger than any such file.
    #[error("the stack override {path} is larger than 1 MiB: is it the right file?")]
    TooLarge {
        /// Its path.
        path: String,
    },
    /// It is not TOML of the right form.
    #[error("the stack override {path} is not valid: {message}")]
    Invalid {
        /// Its path.
        path: String,
        /// What and where.
        message: String,
    },
    /// A rule cannot be meant so.
    #[error("rule {number} of the stack override {path}: {reason}")]
    Rule {
        /// Its path.
        path: String,
        /// From 1.
        number: usize,
        /// Why, and what to do.
        reason: String,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    rule: Vec<Written>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    cgroup: Option<String>,
    exe: Option<String>,
    comm: Option<String>,
    #[serde(default)]
    host: bool,
    #[serde(default)]
    keep: bool,
    layers: Vec<String>,
    #[serde(default)]
    reason: String,
}

impl Overrides {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// It cannot be read, or a rule in it cannot be meant so.
    pub fn read(path: &Path) -> Result<Self, OverrideError> {
        let shown = path.display().to_string();
        let unreadable = |source| OverrideError::Unreadable {
            path: path.display().to_string(),
            source,
        };
        let mut text = String::new();
        let file = File::open(path).map_err(unreadable)?;
        file.take(MAX_BYTES + 1)
            .read_to_string(&mut text)
            .map_err(unreadable)?;
        if text.len() as u64 > MAX_BYTES {
            return Err(OverrideError::TooLarge { path: shown });
        }
        Self::parse(&text, &shown)
    }

    /// The same from its text; `path` is for the messages and the evidence.
    ///
    /// # Errors
    /// A rule in it cannot be meant so.
    pub fn parse(text: &str, path: &str) -> Result<Self, OverrideError> {
        let document: Document = toml::from_str(text).map_err(|error| OverrideError::Invalid {
            path: path.to_owned(),
            message: error.to_string(),
        })?;
        let refuse = |number, reason| OverrideError::Rule {
            path: path.to_owned(),
            number,
            reason,
        };
        if document.rule.len() > MAX_RULES {
            let reason = format!("at most {MAX_RULES} rules: use patterns");
            return Err(refuse(MAX_RULES + 1, reason));
        }
        let mut rules = Vec::new();
        for (index, written) in document.rule.into_iter().enumerate() {
            let number = index + 1;
            rules.push(Rule::check(written, number, path).map_err(|r| refuse(number, r))?);
        }
        Ok(Self(rules.into()))
    }

    /// Whether there is no rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What stands above the host's layers: `found`, or what the first rule that fits says.
    #[must_use]
    pub fn process(&self, facts: &ProcessFacts, found: Stack) -> Stack {
        match self.0.iter().find(|rule| rule.fits(facts)) {
            Some(rule) => rule.apply(found),
            None => found,
        }
    }

    /// The host's layers: `found`, or what the first rule for the host says.
    #[must_use]
    pub fn host(&self, found: Stack) -> Stack {
        match self.0.iter().find(|rule| rule.host) {
            Some(rule) => rule.apply(found),
            None => found,
        }
    }
}

impl Rule {
    fn check(written: Written, number: usize, path: &str) -> Result<Self, String> {
        let patterns = [&written.cgroup, &written.exe, &written.comm];
        let any = patterns.iter().any(|p| p.is_some());
        if any == written.host {
            return Err(
                "give cgroup, exe or comm patterns for processes, or host = true for the host"
                    .to_owned(),
            );
        }
        if written.layers.len() > MAX_LAYERS {
            return Err(format!("at most {MAX_LAYERS} layers"));
        }
        if written.layers.is_empty() && written.keep {
            return Err("keep = true without layers changes nothing".to_owned());
        }
        let layers = written
            .layers
            .iter()
            .map(|text| layer(text))
            .collect::<Result<Vec<_>, _>>()?;
        let mut source = format!("rule {number} of {path}");
        if !written.reason.is_empty() {
            source.push_str(": ");
            source.push_str(&written.reason);
        }
        Ok(Self {
            cgroup: pattern("cgroup", written.cgroup)?,
            exe: pattern("exe", written.exe)?,
            comm: pattern("comm", written.comm)?,
            host: written.host,
            keep: written.keep,
            layers,
            source,
        })
    }

    fn fits(&self, facts: &ProcessFacts) -> bool {
        let fits = |pattern: &Option<GlobMatcher>, text: &str| {
            pattern.as_ref().is_none_or(|p| p.is_match(text))
        };
        !self.host
            && fits(&self.cgroup, &facts.cgroup_path)
            && fits(&self.exe, &facts.exe)
            && fits(&self.comm, &facts.comm)
    }

    fn apply(&self, found: Stack) -> Stack {
        let instead = match found.0.is_empty() {
            true => "nothing".to_owned(),
            false => found.to_string(),
        };
        let evidence = match self.keep {
            true => self.source.clone(),
            false => format!("{}; found without it: {instead}", self.source),
        };
        let entries = self.layers.iter().map(|(layer, technology)| StackEntry {
            layer: *layer,
            technology: technology.clone(),
            evidence: evidence.clone(),
        });
        let kept = if self.keep { found.0 } else { Vec::new() };
        Stack(entries.chain(kept).collect())
    }
}

/// `L-4:my-sandbox`.
fn layer(text: &str) -> Result<(Layer, String), String> {
    let wrong = || format!("{text:?} is no layer: write it as \"L-3:runc\", with L-0 to L-4");
    let (layer, technology) = text.split_once(':').ok_or_else(wrong)?;
    let layer = Layer::ALL
        .iter()
        .find(|l| l.as_str() == layer)
        .ok_or_else(wrong)?;
    let good =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    if technology.is_empty() || technology.len() > 64 || !technology.chars().all(good) {
        return Err(format!(
            "the technology in {text:?} must be lower-case letters, digits, - _ . (at most 64)"
        ));
    }
    Ok((*layer, technology.to_owned()))
}

/// `*` and `?` stop at `/`, `**` does not.
fn pattern(key: &str, text: Option<String>) -> Result<Option<GlobMatcher>, String> {
    let Some(text) = text else { return Ok(None) };
    if text.is_empty() {
        return Err(format!("{key} is empty: it would fit nothing"));
    }
    if key != "comm" && !text.starts_with(['/', '*']) {
        return Err(format!("{key} = {text:?} must begin with / or *: paths do"));
    }
    let glob: Result<Glob, _> = if key == "comm" {
        Glob::from_str(&text)
    } else {
        GlobBuilder::new(&text).literal_separator(true).build()
    };
    match glob {
        Ok(glob) => Ok(Some(glob.compile_matcher())),
        Err(error) => Err(format!("{key} is no pattern: {error}")),
    }
}

//! The agent's attributes on spans that passed it (`otlp::enrich` writes them). Anybody can
//! write such attributes: words are taken only from the closed lists.

use std::collections::BTreeMap;

use crate::{
    trace::{Answer, Said, Stretch},
    vocabulary::{Cause, Fault},
};

/// Numbers of evidence kept of one span.
const MAX_EVIDENCE: usize = 32;
/// Longest name of a number of evidence, in bytes: ours are below 40.
const MAX_NAME: usize = 64;
/// Longest text, in bytes: a sentence,
const MAX_SENTENCE: usize = 1_024;
/// and a name or a list of layers.
const MAX_WORDS: usize = 256;
/// Longest split that can be meant, in milliseconds: a year.
const MAX_MS: f64 = 366.0 * 86_400_000.0;

/// A value of the kinds that matter.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    Number(f64),
    Bool(bool),
    Other,
}

impl Value {
    fn text(self) -> String {
        self.text_to(MAX_WORDS)
    }

    fn text_to(self, bytes: usize) -> String {
        match self {
            Self::Text(mut text) => {
                text.truncate(text.floor_char_boundary(bytes));
                text.shrink_to_fit();
                text
            }
            _ => String::new(),
        }
    }

    /// Some stores keep every value as text.
    fn number(&self) -> Option<f64> {
        let number = match self {
            Self::Number(number) => *number,
            Self::Text(text) => text.parse().ok()?,
            _ => return None,
        };
        number.is_finite().then_some(number)
    }

    fn is_true(&self) -> bool {
        *self == Self::Bool(true) || matches!(self, Self::Text(text) if text == "true")
    }
}

/// The agent's attributes of one span.
#[derive(Debug, Default)]
pub(super) struct Ours {
    pub node: String,
    any: bool,
    synthetic: bool,
    fault: Option<Fault>,
    cause: Option<Cause>,
    share: f64,
    culprit: String,
    incident: String,
    summary: String,
    remedy: String,
    evidence: BTreeMap<String, f64>,
    said: Said,
}

impl Ours {
    /// Takes an attribute if it is one of ours.
    pub fn take(&mut self, key: &str, value: Value) {
        let Some(name) = key.strip_prefix("isostack.") else {
            return;
        };
        self.any = true;
        match name {
            "synthetic" => self.synthetic = value.is_true(),
            "node" => self.node = value.text(),
            "layer" => self.said.layer = value.text(),
            "stack" => self.said.stack = value.text(),
            "confidence" => self.said.confidence = value.text(),
            "fault" => self.fault = word(Fault::ALL, Fault::as_str, &value.text()),
            "cause" => self.cause = word(Cause::ALL, Cause::as_str, &value.text()),
            "share" => self.share = value.number().unwrap_or_default().clamp(0.0, 1.0),
            "culprit" => self.culprit = value.text(),
            "incident" => self.incident = value.text(),
            "summary" => self.summary = value.text_to(MAX_SENTENCE),
            "remedy" => self.remedy = value.text_to(MAX_SENTENCE),
            _ => self.number(name, &value),
        }
    }

    fn number(&mut self, name: &str, value: &Value) {
        let Some(number) = value.number() else { return };
        if let Some(name) = name.strip_prefix("evidence.") {
            let is_ours = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            let is_name = name.len() <= MAX_NAME && name.bytes().all(is_ours);
            if is_name && self.evidence.len() < MAX_EVIDENCE {
                self.evidence.insert(name.to_owned(), number);
            }
        } else if let Some(name) = name
            .strip_prefix("split.")
            .and_then(|n| n.strip_suffix("_ms"))
            && let Some(cause) = word(Cause::ALL, Cause::as_str, name)
            && cause != Cause::Downstream
            && (0.0..MAX_MS).contains(&number)
        {
            self.said.split.insert(cause, (number * 1e6).round() as u64);
        }
    }

    /// What they say about a span of these times: a stretch, or something about a hop.
    pub fn finish(self, start: u64, end: u64) -> (Option<Stretch>, Option<Box<Said>>) {
        if self.synthetic {
            let stretch = Stretch {
                fault: self.fault.unwrap_or(Fault::App),
                cause: self.cause.unwrap_or(Cause::Unexplained),
                start_unix_ns: start,
                end_unix_ns: end,
            };
            return (Some(stretch), None);
        }
        if !self.any {
            return (None, None);
        }
        let mut said = self.said;
        if let (Some(fault), Some(cause)) = (self.fault, self.cause) {
            said.verdict = Some(Answer {
                fault,
                cause,
                share: self.share,
                culprit: self.culprit,
                incident: self.incident,
                summary: self.summary,
                remedy: self.remedy,
                evidence: self.evidence,
            });
        }
        (None, Some(Box::new(said)))
    }
}

fn word<T: Copy>(all: &[T], spelt: fn(T) -> &'static str, text: &str) -> Option<T> {
    all.iter().copied().find(|word| spelt(*word) == text)
}

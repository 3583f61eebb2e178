//! Sentences with places for what is known of a case: `Raise {setting} above {limit}.`

use serde::{Deserialize, Serialize};

/// What a sentence can be filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Who suffers.
    Workload,
    /// The setting that limits, by the name under which a person changes it.
    Setting,
    /// Its present value, with the unit.
    Limit,
    /// The disk or network device.
    Device,
    /// The kernel's reason for a drop, or a virtual machine's for an exit.
    Reason,
    /// The system call.
    Syscall,
}

impl Slot {
    /// Every slot.
    pub const ALL: [Self; 6] = [
        Self::Workload,
        Self::Setting,
        Self::Limit,
        Self::Device,
        Self::Reason,
        Self::Syscall,
    ];

    /// Its word in the data.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Workload => "workload",
            Self::Setting => "setting",
            Self::Limit => "limit",
            Self::Device => "device",
            Self::Reason => "reason",
            Self::Syscall => "syscall",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Words(String),
    Slot(Slot),
}

/// One sentence, parsed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sentence(Vec<Part>);

impl Sentence {
    /// Whether it can be said without knowing anything.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        !self.0.iter().any(|part| matches!(part, Part::Slot(_)))
    }

    /// The sentence with its slots filled; `None` when something is not known.
    #[must_use]
    pub fn fill(&self, mut value_of: impl FnMut(Slot) -> Option<String>) -> Option<String> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Words(words) => text.push_str(words),
                Part::Slot(slot) => text.push_str(&value_of(*slot)?),
            }
        }
        Some(text)
    }
}

impl TryFrom<String> for Sentence {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if !text.ends_with('.') || text.trim_end_matches('.').contains(". ") {
            return Err(format!("{text:?} is not one sentence with a full stop"));
        }
        let mut parts = Vec::new();
        let mut rest = &*text;
        while let Some((words, tail)) = rest.split_once('{') {
            let (word, tail) = tail
                .split_once('}')
                .ok_or_else(|| format!("{text:?} opens a slot and does not close it"))?;
            let slot = Slot::ALL.into_iter().find(|slot| slot.as_str() == word);
            let slot = slot.ok_or_else(|| {
                let known = Slot::ALL.map(Slot::as_str).join(", ");
                format!("{text:?}: there is no slot {word:?}, only {known}")
            })?;
            parts.push(Part::Words(words.to_owned()));
            parts.push(Part::Slot(slot));
            rest = tail;
        }
        if rest.contains('}') {
            return Err(format!("{text:?} closes a slot that it did not open"));
        }
        parts.push(Part::Words(rest.to_owned()));
        Ok(Self(parts))
    }
}

impl From<Sentence> for String {
    fn from(sentence: Sentence) -> Self {
        let part = |part| match part {
            Part::Words(words) => words,
            Part::Slot(slot) => format!("{{{}}}", slot.as_str()),
        };
        sentence.0.into_iter().map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentence(text: &str) -> Result<Sentence, String> {
        Sentence::try_from(text.to_owned())
    }

    #[test]
    fn a_sentence_is_said_only_if_all_of_it_is_known() {
        let raise = sentence("Raise {setting} above {limit}.").unwrap();
        let limit_only = |slot| (slot == Slot::Limit).then(|| "2 CPUs".to_owned());
        assert_eq!(raise.fill(limit_only), None);
        let filled = raise.fill(|slot| Some(slot.as_str().to_uppercase()));
        assert_eq!(filled.as_deref(), Some("Raise SETTING above LIMIT."));
        assert!(!raise.is_plain());
        assert_eq!(String::from(raise), "Raise {setting} above {limit}.");
        let plain = sentence("Do it.").unwrap();
        assert!(plain.is_plain());
        assert_eq!(plain.fill(|_| None).as_deref(), Some("Do it."));
    }

    #[test]
    fn a_value_that_looks_like_a_slot_stays_a_value() {
        let about = sentence("Look at {workload}.").unwrap();
        let filled = about.fill(|_| Some("{limit}".to_owned()));
        assert_eq!(filled.as_deref(), Some("Look at {limit}."));
    }

    #[test]
    fn what_is_no_sentence_is_refused() {
        for text in [
            "no stop",
            "Two. Sentences.",
            "Raise {nothing}.",
            "Raise {limit.",
            "Raise limit}.",
            "",
        ] {
            assert!(sentence(text).is_err(), "{text}");
        }
    }
}

//! From what a person typed to what is known under that name.

use super::{
    Subject, data,
    data::{CauseKnowledge, Concept, Place, Technology, Term},
};

/// Something that has a name.
#[derive(Clone, Copy, Debug)]
pub enum Entry {
    /// A layer or another place of a fault.
    Place(&'static Place),
    /// A technology.
    Technology(&'static Technology),
    /// A wider concept.
    Concept(&'static Concept),
    /// A word of jargon.
    Term(&'static Term),
    /// A cause.
    Cause(&'static CauseKnowledge),
}

impl Entry {
    /// What kind of thing it is, for a sentence.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Place(_) => "place",
            Self::Technology(_) => "technology",
            Self::Concept(_) => "concept",
            Self::Term(_) => "term",
            Self::Cause(_) => "cause",
        }
    }

    /// Every name it goes by, the first one its own.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        fn all<'a>(first: &[&'a str], more: &'a [String]) -> Vec<&'a str> {
            first
                .iter()
                .copied()
                .chain(more.iter().map(|m| &**m))
                .collect()
        }
        match self {
            Self::Place(p) => all(&[p.id.as_str(), &p.title, &p.short], &[]),
            Self::Technology(t) => all(&[&t.id, &t.name], &t.also),
            Self::Concept(c) => {
                let mut names = all(&[&c.id, &c.name], &c.also);
                names.extend(c.members.iter().map(|m| &**m));
                names
            }
            Self::Term(t) => all(&[&t.word], &t.also),
            Self::Cause(c) => vec![c.id.as_str()],
        }
    }

    /// What it is compared as; none for terms, causes and places that are no layers.
    #[must_use]
    pub fn subject(self) -> Option<Subject> {
        match self {
            Self::Place(p) => p.id.layer().map(|_| Subject::Layer(p)),
            Self::Technology(t) => Some(Subject::Technology(t)),
            Self::Concept(c) => Some(Subject::Concept(c)),
            Self::Term(_) | Self::Cause(_) => None,
        }
    }
}

/// A name that nothing is known under, or nothing of the wanted sort.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing at all.
    #[error("nothing is known under {name:?}; the nearest names are {}", .nearest.join(", "))]
    Unknown {
        /// As it was typed.
        name: String,
        /// The three nearest, the nearest first.
        nearest: Vec<String>,
    },
    /// It cannot be compared.
    #[error("{name:?} is a {kind}: layers, technologies and wider concepts can be compared")]
    NotCompared {
        /// As it was typed.
        name: String,
        /// What it is.
        kind: &'static str,
    },
}

/// Everything with a name.
pub fn entries() -> impl Iterator<Item = Entry> {
    let data = data();
    let places = data.layers.places.iter().map(Entry::Place);
    places
        .chain(data.technologies.technologies.iter().map(Entry::Technology))
        .chain(data.layers.concepts.iter().map(Entry::Concept))
        .chain(data.technologies.terms.iter().map(Entry::Term))
        .chain(data.causes.causes.iter().map(Entry::Cause))
}

/// Everything known under a name; more than one when a word means several things. Case,
/// spaces, `-` and `_` do not matter, nor a plural's `s`, and a layer may be typed `L3`.
///
/// # Errors
/// With the nearest names.
pub fn find(name: &str) -> Result<Vec<Entry>, NameError> {
    let wanted = plain(name);
    let found: Vec<_> = entries()
        .filter(|entry| {
            entry
                .names()
                .into_iter()
                .any(|known| plain(known) == wanted)
        })
        .collect();
    if found.is_empty() {
        return Err(NameError::Unknown {
            name: name.chars().take(80).collect(),
            nearest: nearest(&wanted),
        });
    }
    Ok(found)
}

/// What is compared under a name.
///
/// # Errors
/// When nothing is known under it, or it cannot be compared.
pub fn find_subject(name: &str) -> Result<Subject, NameError> {
    let found = find(name)?;
    let kind = found.first().map_or("word", |entry| entry.kind());
    let subject = found.into_iter().find_map(Entry::subject);
    subject.ok_or_else(|| NameError::NotCompared {
        name: name.to_owned(),
        kind,
    })
}

/// Longest name that is looked for, in characters.
const MAX_NAME_CHARS: usize = 80;

fn plain(name: &str) -> String {
    let letters = name
        .chars()
        .take(MAX_NAME_CHARS)
        .filter(|c| !matches!(c, ' ' | '-' | '_'))
        .flat_map(char::to_lowercase);
    let mut plain: String = letters.collect();
    if plain.len() > 3 && plain.ends_with('s') {
        plain.pop();
    }
    plain
}

fn nearest(wanted: &str) -> Vec<String> {
    let mut by_likeness: Vec<(f64, &str)> = entries()
        .filter_map(|entry| {
            let names = entry.names();
            let likeness = names
                .iter()
                .map(|name| strsim::jaro_winkler(wanted, &plain(name)))
                .max_by(f64::total_cmp)?;
            Some((likeness, *names.first()?))
        })
        .collect();
    by_likeness.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut nearest: Vec<String> = Vec::new();
    for (_, name) in by_likeness {
        if nearest.len() < 3 && !nearest.iter().any(|n| n.eq_ignore_ascii_case(name)) {
            nearest.push(name.to_owned());
        }
    }
    nearest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(name: &str) -> Vec<&'static str> {
        find(name).unwrap().iter().map(|e| e.names()[0]).collect()
    }

    #[test]
    fn one_thing_has_many_names() {
        for name in ["L-3", "l3", "L_3", "containers", "container", "Containers"] {
            assert_eq!(ids(name), ["L-3"], "{name}");
        }
        for name in ["gvisor", "gVisor", "runsc"] {
            assert_eq!(ids(name), ["gvisor"], "{name}");
        }
        assert_eq!(ids("service mesh"), ["service-mesh"]);
        assert_eq!(ids("istio"), ["service-mesh"]);
        assert_eq!(ids("CPU-throttle"), ["cpu_throttle"]);
        assert_eq!(
            ids("conntrack"),
            ["conntrack", "conntrack"],
            "term and cause"
        );
        assert_eq!(ids("host"), ["host"]);
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest() {
        let nearest = |name| match find(name).unwrap_err() {
            NameError::Unknown { nearest, .. } => nearest,
            other => panic!("{other}"),
        };
        for (wrong, right) in [
            ("gvsior", "gvisor"),
            ("firecraker", "firecracker"),
            ("containrs", "L-3"),
            ("L-7", "L-4"),
            ("servicemsh", "service-mesh"),
            ("cpu_trottle", "cpu_throttle"),
        ] {
            assert!(
                nearest(wrong).contains(&right.to_owned()),
                "{wrong}: {:?}",
                nearest(wrong)
            );
        }
        assert_eq!(nearest("").len(), 3);
        assert_eq!(nearest(&"x".repeat(100_000)).len(), 3);
    }

    #[test]
    fn jargon_is_not_compared() {
        assert_eq!(find_subject("kata").unwrap().id(), "kata");
        let error = find_subject("veth").unwrap_err().to_string();
        assert!(error.contains("is a term"), "{error}");
        assert!(find_subject("app").is_err(), "no layer");
    }
}

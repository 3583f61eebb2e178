//! What is known of the isolation layers: one set of typed data, from which the command line,
//! the remedies of verdicts, the help of the web page and `docs/layers.md` are derived.
//!
//! **Invariant:** no fact about a layer, technology or cause is typed anywhere else.

pub mod check;
pub mod compare;
pub mod data;
pub mod document;
pub mod figure;
pub mod find;
pub mod log_rules;
pub mod page;
pub mod remedy;
pub mod select;
pub mod sentence;
pub mod show;

use std::sync::LazyLock;

use self::data::{CauseKnowledge, Cited, Concept, Data, Dimension, Place, Technology};
use crate::{
    pipeline::fault::possible_faults,
    vocabulary::{Cause, Fault},
};

static DATA: LazyLock<Data> =
    LazyLock::new(|| Data::read().expect("the build read the same files"));

/// The data. Read once, in a few milliseconds, when it is first asked for.
#[must_use]
pub fn data() -> &'static Data {
    &DATA
}

/// What is known of a place.
#[must_use]
pub fn place(id: Fault) -> &'static Place {
    let place = DATA.layers.places.iter().find(|place| place.id == id);
    place.expect("the build checked that every place is there")
}

/// What is known of a cause.
#[must_use]
pub fn cause(id: Cause) -> &'static CauseKnowledge {
    let cause = DATA.causes.causes.iter().find(|cause| cause.id == id);
    cause.expect("the build checked that every cause is there")
}

/// The layers, innermost first.
pub fn layers() -> impl Iterator<Item = &'static Place> {
    DATA.layers.places.iter().filter(|p| p.id.layer().is_some())
}

/// The causes whose fault can be in a place.
pub fn causes_in(place: Fault) -> impl Iterator<Item = &'static CauseKnowledge> {
    DATA.causes
        .causes
        .iter()
        .filter(move |cause| possible_faults(cause.id).contains(&place))
}

/// What can be compared.
#[derive(Clone, Copy, Debug)]
pub enum Subject {
    /// A layer.
    Layer(&'static Place),
    /// A technology.
    Technology(&'static Technology),
    /// A wider concept.
    Concept(&'static Concept),
}

impl Subject {
    /// Its short word.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Self::Layer(place) => place.id.as_str(),
            Self::Technology(technology) => &technology.id,
            Self::Concept(concept) => &concept.id,
        }
    }

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Layer(place) => &place.title,
            Self::Technology(technology) => &technology.name,
            Self::Concept(concept) => &concept.name,
        }
    }

    /// What is stated of it in one dimension, by every source. What is stated in some unit of
    /// what a technology is a part of, or else of its layer, holds for it until something is
    /// stated of the technology itself.
    #[must_use]
    pub fn figures(self, dimension: &Dimension) -> Vec<Cited> {
        let mut figures = stated(self.id(), dimension);
        if let Self::Technology(technology) = self {
            let layer = Some(technology.layer.as_str());
            for wider in technology.part_of.as_deref().into_iter().chain(layer) {
                let units: Vec<_> = figures.iter().map(|f| f.range.map(|r| r.unit)).collect();
                let more = stated(wider, dimension).into_iter();
                figures.extend(more.filter(|f| !units.contains(&f.range.map(|r| r.unit))));
            }
        }
        figures
    }
}

/// What the sources state of one subject in one dimension.
fn stated(of: &str, dimension: &Dimension) -> Vec<Cited> {
    let sets = DATA.layers.figures.iter().filter(|set| set.of == of);
    sets.filter_map(|set| {
        let text = set.values.get(&dimension.id)?;
        let range = dimension.kind.read(text);
        Some(Cited {
            text: text.clone(),
            range: range.expect("the build read every figure"),
            of: of.to_owned(),
            source: set.source.clone(),
        })
    })
    .collect()
}

/// A dimension by its id.
fn dimension(id: &str) -> &'static Dimension {
    let dimension = DATA.layers.dimensions.iter().find(|d| d.id == id);
    dimension.expect("the build checked references to dimensions")
}

#[cfg(test)]
mod tests;

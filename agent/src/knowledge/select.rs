//! `layers select`: needs in, a ranked answer out. Rules and figures are data; here is only
//! how they are weighed.
//!
//! A candidate is a layer or a combination of the data. Each need is served by it fully,
//! partly or not at all. Candidates are compared class by class in the order of the data; of
//! equals, the one of fewer layers comes first, then the one that the rules name first, then
//! the default. Combinations are shown only where they serve more than every single layer.

mod answer;
mod request;

pub use self::{
    answer::{Answer, Rank},
    request::{Asked, Request, RequestError, values},
};
use super::{
    Subject, data,
    data::{Cited, Combines},
    place,
};
use crate::vocabulary::{Fault, Layer};

/// How well a need is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Served {
    /// Not.
    No,
    /// In part of the cases, or by something beside it.
    Partly,
    /// Yes.
    Fully,
}

/// A layer, or layers that are used together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The layers, outermost first.
    pub layers: Vec<Fault>,
}

impl Candidate {
    /// Every single layer that some rule chooses.
    fn singles() -> Vec<Self> {
        let rules = &data().selection.rules;
        let chosen = |fault: &&Fault| rules.iter().any(|rule| rule.choose.contains(fault));
        let layers = Fault::ALL.iter().filter(chosen);
        layers
            .map(|layer| Self {
                layers: vec![*layer],
            })
            .collect()
    }

    /// Every combination.
    fn combinations() -> Vec<Self> {
        let combinations = data().selection.combinations.iter();
        combinations
            .map(|c| Self {
                layers: c.layers.clone(),
            })
            .collect()
    }

    /// How well it serves a need.
    #[must_use]
    pub fn serves(&self, asked: &Asked) -> Served {
        let each = self.costly(asked).map(|layer| asked.served_by(layer));
        match asked.need.combines {
            Combines::Any => each.max(),
            Combines::All => each.min(),
        }
        .unwrap_or(Served::No)
    }

    /// Its layers; in a combination without hardware assist where each one's cost counts, as
    /// that layer carries the others and costs nothing of its own.
    fn costly(&self, asked: &Asked) -> impl Iterator<Item = Fault> {
        let carried = self.layers.len() > 1 && asked.need.combines == Combines::All;
        let carries = move |layer: &Fault| carried && layer.layer() == Some(Layer::HardwareAssist);
        self.layers
            .iter()
            .copied()
            .filter(move |layer| !carries(layer))
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> String {
        let ids: Vec<_> = self.layers.iter().map(|l| l.as_str()).collect();
        ids.join(" + ")
    }

    /// The sum of what it serves in each class, weightiest class first.
    fn weight(&self, request: &Request) -> Vec<u32> {
        let classes = data().selection.classes.iter();
        classes
            .map(|class| {
                let of_class = request.asked.iter().filter(|a| a.need.class == *class);
                of_class.map(|asked| self.serves(asked) as u32).sum()
            })
            .collect()
    }

    /// How far back the rules name it, for equals.
    fn place_in_rules(&self, request: &Request) -> usize {
        let places = request.asked.iter().filter_map(|asked| {
            let choose = &asked.rule()?.choose;
            let first = choose.iter().position(|layer| self.layers.contains(layer));
            Some(first.unwrap_or(choose.len()))
        });
        places.sum()
    }
}

/// The candidates that serve any need, the best first; the default when nothing is needed.
#[must_use]
pub fn select(request: Request) -> Answer {
    let default = data().selection.default;
    if request.asked.is_empty() {
        let only = Candidate {
            layers: vec![default],
        };
        return Answer::new(request, vec![only]);
    }
    let mut candidates = Candidate::singles();
    let best = candidates.iter().map(|c| c.weight(&request)).max();
    let everything = |c: &Candidate| request.asked.iter().all(|a| c.serves(a) > Served::No);
    let suffices = candidates.iter().any(everything);
    let better = |c: &Candidate| Some(c.weight(&request)) > best || (!suffices && everything(c));
    candidates.extend(Candidate::combinations().into_iter().filter(better));
    candidates.retain(|c| request.asked.iter().any(|a| c.serves(a) > Served::No));
    // What serves no more than a part of it is only more to run.
    let weights: Vec<_> = candidates
        .iter()
        .map(|c| (c.clone(), c.weight(&request)))
        .collect();
    candidates.retain(|c| {
        !weights.iter().any(|(other, weight)| {
            other.layers.len() < c.layers.len()
                && other.layers.iter().all(|layer| c.layers.contains(layer))
                && *weight >= c.weight(&request)
                && (everything(other) || !everything(c))
        })
    });
    candidates.sort_by_key(|c| {
        (
            std::cmp::Reverse(c.weight(&request)),
            c.layers.len(),
            c.place_in_rules(&request),
            !c.layers.contains(&default),
        )
    });
    Answer::new(request, candidates)
}

/// Needs that nothing serves together, one sentence each.
fn exclusions(request: &Request) -> Vec<String> {
    let mut everything = Candidate::singles();
    everything.extend(Candidate::combinations());
    let serves_all =
        |c: &Candidate, needs: &[&Asked]| needs.iter().all(|asked| c.serves(asked) > Served::No);
    let possible = |needs: &[&Asked]| everything.iter().any(|c| serves_all(c, needs));
    let mut found = Vec::new();
    for asked in &request.asked {
        if !possible(&[asked]) {
            found.push(format!("Nothing serves {asked}: {}.", asked.figures()));
        }
    }
    for (i, one) in request.asked.iter().enumerate() {
        for other in &request.asked[i + 1..] {
            if possible(&[one]) && possible(&[other]) && !possible(&[one, other]) {
                found.push(format!(
                    "{one} and {other} exclude each other: the first is served by {}, the second \
                     by {}, and no combination serves both{}.",
                    one.servers(),
                    other.servers(),
                    why_not(&everything, one, other)
                ));
            }
        }
    }
    let all: Vec<_> = request.asked.iter().collect();
    if found.is_empty() && !all.is_empty() && !possible(&all) {
        found.push(
            "No layer and no combination serves all of these needs, though any two of them can \
             be had together."
                .to_owned(),
        );
    }
    found
}

/// Why the combination of two needs' layers does not serve both.
fn why_not(everything: &[Candidate], one: &Asked, other: &Asked) -> String {
    let together = everything.iter().find(|c| {
        let has = |asked: &Asked| c.layers.iter().any(|l| asked.served_by(*l) > Served::No);
        c.layers.len() > 1 && has(one) && has(other)
    });
    let Some(together) = together else {
        return String::new();
    };
    let missed = [one, other]
        .into_iter()
        .find(|asked| together.serves(asked) == Served::No);
    missed.map_or_else(String::new, |asked| {
        let culprit = together
            .costly(asked)
            .find(|layer| asked.served_by(*layer) == Served::No);
        culprit.map_or_else(String::new, |layer| {
            format!(" (in {} {})", together.name(), asked.verdict_on(layer))
        })
    })
}

/// The layer's figure for a limited dimension, as its first source has it.
fn figure(layer: Fault, dimension: &str) -> Option<Cited> {
    let figures = Subject::Layer(place(layer)).figures(super::dimension(dimension));
    figures.into_iter().find(|figure| figure.range.is_some())
}

#[cfg(test)]
mod tests;

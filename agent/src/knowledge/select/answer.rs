//! The ranked answer, for machines and for people.

use serde::Serialize;

use super::{Asked, Candidate, Request, Served, exclusions};
use crate::{
    knowledge::{
        Subject,
        compare::{Comparison, Contradiction},
        data,
        data::{Combination, Rule},
        document::Document,
        place,
    },
    vocabulary::Fault,
};

/// What to use.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    /// What was needed, as `need value`, the weightiest first.
    pub needs: Vec<String>,
    /// Choices, the best first.
    pub ranks: Vec<Rank>,
    /// Needs that cannot be had together.
    pub exclusions: Vec<String>,
    /// Where sources contradict each other about what was needed.
    pub contradictions: Vec<Contradiction>,
}

/// One choice.
#[derive(Clone, Debug, Serialize)]
pub struct Rank {
    /// 1 is the best.
    pub rank: usize,
    /// The layers, outermost first.
    pub layers: Vec<Fault>,
    /// What it is.
    pub name: String,
    /// Products that fit.
    pub with: Vec<String>,
    /// Layers that stand beside it.
    pub beside: Vec<Fault>,
    /// The need by which it has this rank.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub need: Option<String>,
    /// The rule that decided.
    pub decided_by: String,
    /// Needs that it serves.
    pub serves: Vec<String>,
    /// Needs that it serves in part of the cases.
    pub serves_partly: Vec<String>,
    /// Needs that it does not serve.
    pub leaves_out: Vec<String>,
    /// What one pays for it.
    pub trade_off: String,
    /// Members of it for which a limit was stated.
    pub members: Vec<String>,
}

impl Answer {
    pub(super) fn new(request: Request, candidates: Vec<Candidate>) -> Self {
        let ranks: Vec<_> = candidates
            .iter()
            .enumerate()
            .map(|(i, candidate)| {
                let rival = candidates
                    .get(i + 1)
                    .or_else(|| candidates.get(i.checked_sub(1)?));
                Rank::new(i + 1, candidate, rival, &request)
            })
            .collect();
        Self {
            exclusions: exclusions(&request),
            contradictions: contradictions(&request, &candidates),
            needs: request.asked.iter().map(ToString::to_string).collect(),
            ranks,
        }
    }

    /// For a person.
    #[must_use]
    pub fn document(&self) -> Document {
        let mut document = Document::default();
        document.text(match self.needs.is_empty() {
            true => "Nothing in particular is needed.".to_owned(),
            false => format!("Needed, the weightiest first: {}.", self.needs.join(", ")),
        });
        document.table(
            ["rank", "choice", "decided by", "not served", "trade-off"],
            self.ranks.iter().map(|rank| {
                let with = match rank.with.is_empty() {
                    true => String::new(),
                    false => format!("\nwith {}", rank.with.join(", ")),
                };
                let beside = match rank.beside.is_empty() {
                    true => String::new(),
                    false => format!("\nbeside it {}", words(&rank.beside).join(", ")),
                };
                let partly = rank
                    .serves_partly
                    .iter()
                    .map(|need| format!("{need} (in part)"));
                let missed: Vec<_> = rank.leaves_out.iter().cloned().chain(partly).collect();
                vec![
                    rank.rank.to_string(),
                    format!(
                        "{} {}{with}{beside}",
                        words(&rank.layers).join(" + "),
                        rank.name
                    ),
                    rank.decided_by.clone(),
                    if missed.is_empty() {
                        "-".to_owned()
                    } else {
                        missed.join(", ")
                    },
                    rank.trade_off.clone(),
                ]
            }),
        );
        if let Some(best) = self.ranks.first() {
            document.list("Members of the first choice:", &best.members);
        }
        document.list("Needs that cannot be had together:", &self.exclusions);
        document.list(
            "Sources contradict each other:",
            self.contradictions.iter().map(|c| c.says.clone()),
        );
        document
    }
}

fn words(layers: &[Fault]) -> Vec<&'static str> {
    layers.iter().map(|layer| layer.as_str()).collect()
}

impl Rank {
    fn new(
        rank: usize,
        candidate: &Candidate,
        rival: Option<&Candidate>,
        request: &Request,
    ) -> Self {
        let that_are = |degree: Served| -> Vec<String> {
            let asked = request
                .asked
                .iter()
                .filter(|a| candidate.serves(a) == degree);
            asked.map(ToString::to_string).collect()
        };
        let single = match &*candidate.layers {
            [one] => Some(*one),
            _ => None,
        };
        let combination = combination(candidate);
        let deciding = deciding(candidate, rival, request);
        let chosen_by = || {
            let rules = request.asked.iter().filter_map(|asked| asked.rule());
            rules.filter(|rule| rule.choose.iter().any(|l| candidate.layers.contains(l)))
        };
        let mut beside: Vec<_> = chosen_by().flat_map(|rule| rule.beside.clone()).collect();
        beside.retain(|layer| !candidate.layers.contains(layer));
        Self {
            rank,
            name: match (single, combination) {
                (Some(layer), _) => place(layer).title.clone(),
                (None, Some(combination)) => combination.is.clone(),
                (None, None) => String::new(),
            },
            with: chosen_by().flat_map(|rule| rule.with.clone()).collect(),
            beside,
            need: deciding.map(ToString::to_string),
            decided_by: match deciding {
                None => data().selection.default_because.clone(),
                Some(asked) => because(asked, candidate),
            },
            serves: that_are(Served::Fully),
            serves_partly: that_are(Served::Partly),
            leaves_out: that_are(Served::No),
            trade_off: match (single, combination) {
                (Some(layer), _) => place(layer).tradeoff.clone(),
                (None, Some(combination)) => combination.costs.clone(),
                (None, None) => String::new(),
            },
            members: candidate
                .layers
                .iter()
                .flat_map(|layer| request.asked.iter().flat_map(|a| a.members(*layer)))
                .collect(),
            layers: candidate.layers.clone(),
        }
    }
}

/// The weightiest need that this one serves better than its rival, or else serves at all.
fn deciding<'a>(
    candidate: &Candidate,
    rival: Option<&Candidate>,
    request: &'a Request,
) -> Option<&'a Asked> {
    let better =
        |asked: &&Asked| rival.is_some_and(|rival| candidate.serves(asked) > rival.serves(asked));
    let at_all = |asked: &&Asked| candidate.serves(asked) > Served::No;
    let mut asked = request.asked.iter();
    asked.clone().find(better).or_else(|| asked.find(at_all))
}

/// The rule of a need that chooses this candidate, or its figure.
fn because(asked: &Asked, candidate: &Candidate) -> String {
    let chosen = |rule: &&Rule| {
        let mut layers = rule.choose.iter().chain(&rule.beside);
        layers.any(|layer| candidate.layers.contains(layer))
    };
    let figures = || {
        let figures = candidate.layers.iter().map(|l| asked.verdict_on(*l));
        figures.collect::<Vec<_>>().join(", ")
    };
    let rule = asked.rule().filter(chosen);
    match (rule, candidate.serves(asked)) {
        // A rule is for all limits up to its own: this one may be far below it.
        (Some(rule), Served::Partly | Served::No) if asked.need.limits.is_some() => {
            format!(
                "{asked}: {} But {}, which may be more.",
                rule.because,
                figures()
            )
        }
        (Some(rule), _) => format!("{asked}: {}", rule.because),
        (None, Served::Partly) => format!("{asked}: {}, which may be more.", figures()),
        (None, _) => format!("{asked}: {}.", figures()),
    }
}

fn combination(candidate: &Candidate) -> Option<&'static Combination> {
    let combinations = &data().selection.combinations;
    combinations.iter().find(|c| c.layers == candidate.layers)
}

/// What sources say differently of the layers in a dimension that a need is named after.
fn contradictions(request: &Request, candidates: &[Candidate]) -> Vec<Contradiction> {
    let mut layers: Vec<_> = candidates.iter().flat_map(|c| c.layers.clone()).collect();
    layers.sort();
    layers.dedup();
    let subjects: Vec<_> = layers
        .into_iter()
        .map(|l| Subject::Layer(place(l)))
        .collect();
    let mut all = Comparison::of(&subjects).contradictions;
    all.retain(|c| {
        request
            .asked
            .iter()
            .any(|asked| asked.need.id == c.dimension)
    });
    all
}

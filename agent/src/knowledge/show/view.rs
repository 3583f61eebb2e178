//! What is known of one thing, gathered from every part of the data.

use serde::Serialize;

use crate::{
    knowledge::{
        Subject, causes_in, data,
        data::{CauseKnowledge, Cited, Concept, NetworkSlice, Place, Symptom, Technology, Term},
        log_rules::{LOG_RULES, LogRule},
    },
    pipeline::fault::possible_faults,
    vocabulary::{Cause, Fault},
};

/// A figure with its dimension.
#[derive(Clone, Debug, Serialize)]
pub struct FigureView {
    /// The dimension's id.
    pub dimension: &'static str,
    /// Its title.
    pub title: &'static str,
    /// The figure.
    #[serde(flatten)]
    pub figure: Cited,
}

fn figures(of: Subject) -> Vec<FigureView> {
    let dimensions = data().layers.dimensions.iter();
    dimensions
        .flat_map(|dimension| {
            of.figures(dimension).into_iter().map(|figure| FigureView {
                dimension: &dimension.id,
                title: &dimension.title,
                figure,
            })
        })
        .collect()
}

/// A log line that points somewhere.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LogLine {
    /// Name of the rule that knows it.
    pub rule: &'static str,
    /// How such a line looks.
    pub line: &'static str,
    /// What has happened.
    pub meaning: &'static str,
}

fn log_lines(speak: impl Fn(&LogRule) -> bool) -> Vec<LogLine> {
    let rules = LOG_RULES.iter().filter(|rule| speak(rule));
    rules
        .map(|rule| LogLine {
            rule: rule.id,
            line: rule.line,
            meaning: rule.meaning,
        })
        .collect()
}

/// A layer or another place of a fault.
#[derive(Clone, Debug, Serialize)]
pub struct PlaceView {
    /// The entry.
    #[serde(flatten)]
    pub place: &'static Place,
    /// Technologies of the layer.
    pub members: Vec<&'static Technology>,
    /// Its jargon.
    pub jargon: Vec<&'static Term>,
    /// Its slice of the network.
    pub network: Option<&'static NetworkSlice>,
    /// What is stated of it.
    pub figures: Vec<FigureView>,
    /// Causes whose fault can be here.
    pub causes: Vec<Cause>,
    /// Metrics that show them.
    pub metrics: Vec<&'static str>,
    /// Symptoms that lead here.
    pub symptoms: Vec<&'static Symptom>,
    /// Log lines that point to it.
    pub log_lines: Vec<LogLine>,
}

impl PlaceView {
    /// Gathers it.
    #[must_use]
    pub fn new(place: &'static Place) -> Self {
        let data = data();
        let id = place.id;
        let mut metrics: Vec<&str> = causes_in(id)
            .flat_map(|cause| cause.metrics.iter().map(|m| &**m))
            .collect();
        metrics.sort_unstable();
        metrics.dedup();
        let technologies = data.technologies.technologies.iter();
        Self {
            place,
            members: technologies.filter(|t| t.layer == id).collect(),
            jargon: data
                .technologies
                .terms
                .iter()
                .filter(|t| t.place == id)
                .collect(),
            network: data.layers.slices.iter().find(|s| s.place == id),
            figures: match id.layer() {
                Some(_) => figures(Subject::Layer(place)),
                None => Vec::new(),
            },
            causes: causes_in(id).map(|cause| cause.id).collect(),
            metrics,
            symptoms: data
                .localisation
                .symptoms
                .iter()
                .filter(|s| s.faults.contains(&id))
                .collect(),
            log_lines: log_lines(|rule| id.layer() == Some(rule.layer)),
        }
    }

    /// Names of at most six members that are no part of another.
    #[must_use]
    pub fn main_members(&self) -> Vec<&'static str> {
        let whole = self.members.iter().filter(|t| t.part_of.is_none());
        whole.map(|t| t.name.as_str()).take(6).collect()
    }
}

/// A technology.
#[derive(Clone, Debug, Serialize)]
pub struct TechnologyView {
    /// The entry.
    #[serde(flatten)]
    pub technology: &'static Technology,
    /// What is stated of it, or of what it belongs to.
    pub figures: Vec<FigureView>,
}

impl TechnologyView {
    /// Gathers it.
    #[must_use]
    pub fn new(technology: &'static Technology) -> Self {
        Self {
            technology,
            figures: figures(Subject::Technology(technology)),
        }
    }
}

/// A wider concept.
#[derive(Clone, Debug, Serialize)]
pub struct ConceptView {
    /// The entry.
    #[serde(flatten)]
    pub concept: &'static Concept,
    /// What is stated of it.
    pub figures: Vec<FigureView>,
}

impl ConceptView {
    /// Gathers it.
    #[must_use]
    pub fn new(concept: &'static Concept) -> Self {
        Self {
            concept,
            figures: figures(Subject::Concept(concept)),
        }
    }
}

/// A cause.
#[derive(Clone, Debug, Serialize)]
pub struct CauseView {
    /// The entry.
    #[serde(flatten)]
    pub cause: &'static CauseKnowledge,
    /// Where its fault can be.
    pub faults: Vec<Fault>,
    /// Log lines that support it.
    pub log_lines: Vec<LogLine>,
}

impl CauseView {
    /// Gathers it.
    #[must_use]
    pub fn new(cause: &'static CauseKnowledge) -> Self {
        Self {
            cause,
            faults: possible_faults(cause.id),
            log_lines: log_lines(|rule| rule.cause == Some(cause.id)),
        }
    }
}

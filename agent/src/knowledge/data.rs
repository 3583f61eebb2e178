//! The knowledge as typed data: the shapes of the TOML files beside this one.
//!
//! `build.rs` compiles this module, [`super::figure`], [`super::sentence`] and
//! [`super::check`] too, and refuses to build the agent around data that they refuse.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    figure::{Kind, Range},
    sentence::Sentence,
};
use crate::vocabulary::{Cause, Fault};

/// The files, with the names that errors show.
const FILES: [(&str, &str); 5] = [
    ("layers.toml", include_str!("layers.toml")),
    ("technologies.toml", include_str!("technologies.toml")),
    ("causes.toml", include_str!("causes.toml")),
    ("selection.toml", include_str!("selection.toml")),
    ("localisation.toml", include_str!("localisation.toml")),
];

/// All of it.
#[derive(Clone, Debug)]
pub struct Data {
    /// Layers, places, concepts, figures.
    pub layers: Layers,
    /// Technologies and jargon.
    pub technologies: Technologies,
    /// Causes and remedies.
    pub causes: Causes,
    /// Needs, rules, combinations.
    pub selection: Selection,
    /// Questions, symptoms, incidents, thresholds.
    pub localisation: Localisation,
}

impl Data {
    /// Reads the files.
    ///
    /// # Errors
    /// The file, the line, and what is wrong there.
    pub fn read() -> Result<Self, String> {
        let [layers, technologies, causes, selection, localisation] = FILES;
        Ok(Self {
            layers: read(layers)?,
            technologies: read(technologies)?,
            causes: read(causes)?,
            selection: read(selection)?,
            localisation: read(localisation)?,
        })
    }
}

fn read<T: DeserializeOwned>((name, text): (&str, &str)) -> Result<T, String> {
    toml::from_str(text).map_err(|error| format!("{name}: {error}"))
}

/// `layers.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Layers {
    /// Where figures are from.
    #[serde(rename = "source")]
    pub sources: Vec<Source>,
    /// What is compared.
    #[serde(rename = "dimension")]
    pub dimensions: Vec<Dimension>,
    /// Layers, innermost first, and other places of a fault.
    #[serde(rename = "place")]
    pub places: Vec<Place>,
    /// Each layer's part of the network.
    #[serde(rename = "slice")]
    pub slices: Vec<NetworkSlice>,
    /// What is compared with layers and is none.
    #[serde(rename = "concept")]
    pub concepts: Vec<Concept>,
    /// The figures.
    pub figures: Vec<Figures>,
}

/// Where figures are from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Short word.
    pub id: String,
    /// What it is.
    pub title: String,
    /// How far it holds.
    pub note: String,
}

/// What is compared.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dimension {
    /// Short word.
    pub id: String,
    /// What it is called.
    pub title: String,
    /// What its figures are.
    pub kind: Kind,
    /// Which figure is better; none for words.
    pub better: Option<Better>,
    /// What it says.
    pub means: String,
}

/// Which figure is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// The larger.
    More,
    /// The smaller.
    Less,
}

/// A layer, or another place that a fault can be in.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Its word in verdicts.
    pub id: Fault,
    /// What it is called.
    pub title: String,
    /// The same in one word or two.
    pub short: String,
    /// What keeps inside and outside apart.
    pub boundary: String,
    /// What it is.
    pub about: String,
    /// How it fails.
    pub fails: Vec<String>,
    /// What to do about that.
    pub actions: Vec<String>,
    /// What one pays for choosing it; layers only.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tradeoff: String,
}

/// A layer's part of the network.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSlice {
    /// The layer.
    pub place: Fault,
    /// Devices through which a flow leaves.
    pub devices: Vec<String>,
    /// What goes wrong there.
    pub faults: String,
}

/// Something that is compared with layers and is none.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Concept {
    /// Short word.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// Other names.
    #[serde(default)]
    pub also: Vec<String>,
    /// Products.
    pub members: Vec<String>,
    /// What it is.
    pub about: String,
}

/// Figures of one subject from one source.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figures {
    /// A layer, a technology or a concept.
    pub of: String,
    /// A [`Source`].
    pub source: String,
    /// By dimension.
    pub values: BTreeMap<String, String>,
}

/// `technologies.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Technologies {
    /// Members of layers.
    #[serde(rename = "technology")]
    pub technologies: Vec<Technology>,
    /// Jargon.
    #[serde(rename = "term")]
    pub terms: Vec<Term>,
}

/// A member of a layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Technology {
    /// Its word in stacks.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// Other names.
    #[serde(default)]
    pub also: Vec<String>,
    /// The layer it belongs to.
    pub layer: Fault,
    /// The technology it is a kind of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_of: Option<String>,
    /// What it is.
    pub about: String,
}

/// A word of jargon.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Term {
    /// The word.
    pub word: String,
    /// Other forms.
    #[serde(default)]
    pub also: Vec<String>,
    /// The layer in which one meets it.
    pub place: Fault,
    /// What it means.
    pub means: String,
}

/// `causes.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Causes {
    /// The causes, in the order of the vocabulary.
    #[serde(rename = "cause")]
    pub causes: Vec<CauseKnowledge>,
}

/// What is known of a cause.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CauseKnowledge {
    /// Its word.
    pub id: Cause,
    /// The sensor that sees it; none for what spans alone tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sensor: Option<String>,
    /// What it means.
    pub means: String,
    /// Metrics that show it, as Prometheus names them.
    pub metrics: Vec<String>,
    /// What to do, the most particular first.
    pub remedies: Vec<Remedy>,
}

/// What to do about a cause.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remedy {
    /// Only for faults in these places; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub at: Vec<Fault>,
    /// The sentence.
    pub say: Sentence,
}

/// `selection.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// Classes of needs, the weightiest first.
    pub classes: Vec<String>,
    /// The layer for who needs nothing in particular.
    pub default: Fault,
    /// Why.
    pub default_because: String,
    /// What can be needed.
    #[serde(rename = "need")]
    pub needs: Vec<Need>,
    /// What serves it.
    #[serde(rename = "rule")]
    pub rules: Vec<Rule>,
    /// Layers that are used together.
    #[serde(rename = "combination")]
    pub combinations: Vec<Combination>,
}

/// Something that can be needed: a flag of `layers select`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Need {
    /// The flag's name.
    pub id: String,
    /// Its class.
    pub class: String,
    /// How layers that are combined serve it.
    pub combines: Combines,
    /// The dimension that it limits; none for a need of words.
    #[serde(default)]
    pub limits: Option<String>,
    /// The flag's help.
    pub help: String,
}

/// How layers that are combined serve a need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Combines {
    /// If one of them does.
    Any,
    /// If all of them do.
    All,
}

/// Which layers serve a need.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The need.
    pub need: String,
    /// The word it is for; absent for a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The least limit it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The largest limit it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_to: Option<String>,
    /// The layers, best first.
    pub choose: Vec<Fault>,
    /// Layers that stand beside them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<Fault>,
    /// Products that fit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub with: Vec<String>,
    /// Why.
    pub because: String,
}

/// Layers that are used together.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Combination {
    /// The layers, outermost first.
    pub layers: Vec<Fault>,
    /// What it is.
    pub is: String,
    /// What one gets.
    pub gives: String,
    /// What one pays.
    pub costs: String,
}

/// `localisation.toml`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Localisation {
    /// The two axes.
    pub axes: Axes,
    /// What to ask about a slow request, in this order.
    #[serde(rename = "question")]
    pub questions: Vec<Question>,
    /// What to ask about a slow network, in this order.
    #[serde(rename = "network_question")]
    pub network_questions: Vec<Question>,
    /// What symptoms mean.
    #[serde(rename = "symptom")]
    pub symptoms: Vec<Symptom>,
    /// Incidents that have to be localised.
    #[serde(rename = "incident")]
    pub incidents: Vec<Incident>,
    /// When to ring.
    #[serde(rename = "threshold")]
    pub thresholds: Vec<Threshold>,
    /// What has to be visible on a node.
    #[serde(rename = "criterion")]
    pub criteria: Vec<Criterion>,
}

/// The two axes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Axes {
    /// Spans.
    pub horizontal: String,
    /// Layers.
    pub vertical: String,
    /// Where they cross.
    pub crossing: String,
    /// What joins them, the strongest first.
    pub joined_by: Vec<String>,
    /// And when.
    pub joined_in: String,
}

/// One step of a localisation.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// `hop` or a place; absent for the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// The question.
    pub asks: String,
    /// Causes that answer it with yes.
    #[serde(default)]
    pub causes: Vec<Cause>,
}

/// What a symptom means.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Symptom {
    /// Short word.
    pub id: String,
    /// What a person sees.
    pub seen: String,
    /// What spans say.
    pub span: String,
    /// What the kernel says.
    pub kernel: String,
    /// Where the fault is.
    pub faults: Vec<Fault>,
    /// Causes of which one is named.
    pub causes: Vec<Cause>,
    /// The mechanism.
    pub mechanism: String,
    /// What to do.
    pub action: String,
}

/// An incident that has to be localised.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Incident {
    /// Short word.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// What happens.
    pub story: String,
    /// Who did it.
    pub culprit: String,
    /// What has to be found.
    pub findings: Vec<Finding>,
}

/// What has to be found in an incident.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// Where.
    pub fault: Fault,
    /// What.
    pub cause: Cause,
    /// By which evidence.
    pub shows: String,
}

/// When to ring.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Threshold {
    /// The condition.
    pub when: String,
    /// The alert of `deploy/prometheus/alerts.yml` that rings then.
    pub alert: String,
    /// How urgent, or who.
    pub severity: String,
    /// Causes that it tells of.
    #[serde(default)]
    pub causes: Vec<Cause>,
}

/// What has to be visible on a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Criterion {
    /// The sentence.
    pub says: String,
}

/// A figure with its origin.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cited {
    /// As it is written.
    pub text: String,
    /// What it says; none for words.
    #[serde(flatten)]
    pub range: Option<Range>,
    /// The subject that it was stated of.
    pub of: String,
    /// The [`Source`].
    pub source: String,
}

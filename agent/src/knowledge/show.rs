//! `layers` and `layers show`: all that is known under a name.

mod view;

use serde::Serialize;

pub use self::view::{CauseView, ConceptView, FigureView, LogLine, PlaceView, TechnologyView};
use super::{Subject, causes_in, data, data::Term, document::Document, find::Entry, layers};
use crate::vocabulary::Fault;

/// Everything, for `layers --output json` and for the web page.
#[derive(Clone, Debug, Serialize)]
pub struct Overview {
    /// The layers, innermost first.
    pub layers: Vec<PlaceView>,
    /// Places of a fault that are no layer.
    pub places: Vec<PlaceView>,
    /// The causes.
    pub causes: Vec<CauseView>,
    /// Wider concepts.
    pub concepts: Vec<ConceptView>,
}

impl Overview {
    /// Makes it.
    #[must_use]
    pub fn new() -> Self {
        let data = data();
        let (layers, places) = data
            .layers
            .places
            .iter()
            .map(PlaceView::new)
            .partition(|view| view.place.id.layer().is_some());
        Self {
            layers,
            places,
            causes: data.causes.causes.iter().map(CauseView::new).collect(),
            concepts: data.layers.concepts.iter().map(ConceptView::new).collect(),
        }
    }

    /// The table of the layers.
    #[must_use]
    pub fn document() -> Document {
        let mut document = Document::default();
        let columns = ["cold_start", "memory", "cpu", "isolation"].map(super::dimension);
        let head = [
            "layer",
            "what",
            "boundary",
            "members",
            "start",
            "memory",
            "CPU",
            "isolation",
        ];
        document.table(
            head,
            layers().map(|place| {
                let view = PlaceView::new(place);
                let mut row = vec![
                    place.id.to_string(),
                    place.short.clone(),
                    place.boundary.clone(),
                    view.main_members().join(", "),
                ];
                row.extend(columns.iter().map(|dimension| {
                    let figures = Subject::Layer(place).figures(dimension);
                    let first = figures.first().map_or("-", |f| &f.text);
                    match dimension.id.as_str() {
                        "isolation" => format!("{first} of 5"),
                        _ => first.to_owned(),
                    }
                }));
                row
            }),
        );
        let figures_from = &data().layers.sources[0];
        document.text(format!(
            "Figures are from {}. {}",
            figures_from.title, figures_from.note
        ));
        document
    }
}

impl Default for Overview {
    fn default() -> Self {
        Self::new()
    }
}

/// What is known under one name.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EntryView {
    /// A layer or another place.
    Place(PlaceView),
    /// A technology.
    Technology(TechnologyView),
    /// A wider concept.
    Concept(ConceptView),
    /// A word of jargon.
    Term(&'static Term),
    /// A cause.
    Cause(CauseView),
}

impl From<Entry> for EntryView {
    fn from(entry: Entry) -> Self {
        match entry {
            Entry::Place(place) => Self::Place(PlaceView::new(place)),
            Entry::Technology(technology) => Self::Technology(TechnologyView::new(technology)),
            Entry::Concept(concept) => Self::Concept(ConceptView::new(concept)),
            Entry::Term(term) => Self::Term(term),
            Entry::Cause(cause) => Self::Cause(CauseView::new(cause)),
        }
    }
}

impl EntryView {
    /// For a person.
    #[must_use]
    pub fn document(&self) -> Document {
        match self {
            Self::Place(view) => place(view),
            Self::Technology(view) => technology(view),
            Self::Concept(view) => concept(view),
            Self::Term(term) => {
                let mut document = Document::default();
                document.heading(2, format!("{}: a word of {}", term.word, named(term.place)));
                document.text(&term.means);
                document
            }
            Self::Cause(view) => cause(view),
        }
    }
}

/// `L-3 containers`; the id alone where it says everything.
fn named(fault: Fault) -> String {
    let place = super::place(fault);
    match fault.layer() {
        Some(layer) => format!("{layer} {}", place.title),
        None => place.title.clone(),
    }
}

fn place(view: &PlaceView) -> Document {
    let place = view.place;
    let mut document = Document::default();
    document.heading(
        2,
        match place.id.layer() {
            Some(_) => named(place.id),
            None => format!("{}: {}", place.id, place.title),
        },
    );
    document.text(&place.about);
    document.fields([
        ("boundary", place.boundary.clone()),
        (
            "members",
            view.members
                .iter()
                .map(|t| t.name.as_str())
                .collect::<Vec<_>>()
                .join(", "),
        ),
        (
            "network",
            view.network.map_or_else(String::new, |slice| {
                format!("{}: {}", slice.devices.join(", "), slice.faults)
            }),
        ),
        ("trade-off", place.tradeoff.clone()),
        ("metrics", view.metrics.join(", ")),
    ]);
    document.append(figures("What it costs:", &view.figures));
    document.list("How it fails:", &place.fails);
    document.list("What to do:", &place.actions);
    document.list(
        "Causes of ours that belong to it:",
        causes_in(place.id).map(|cause| {
            format!(
                "{}{}: {}",
                cause.id,
                sensor(cause.sensor.as_deref()),
                cause.means
            )
        }),
    );
    document.list(
        "Symptoms that lead here:",
        view.symptoms
            .iter()
            .map(|s| format!("{}: {} ({}); {}", s.seen, s.kernel, s.mechanism, s.action)),
    );
    document.list(
        "Jargon:",
        view.jargon
            .iter()
            .map(|t| format!("{}: {}", t.word, t.means)),
    );
    lines(
        "Log lines that point to it:",
        &view.log_lines,
        &mut document,
    );
    document
}

/// Which sensor sees it; `doctor` says whether that one can run here.
fn sensor(name: Option<&str>) -> String {
    name.map_or_else(String::new, |name| format!(" (sensor {name})"))
}

fn figures(title: &str, figures: &[FigureView]) -> Document {
    let mut document = Document::default();
    if !figures.is_empty() {
        document.text(title);
        document.table(
            ["dimension", "figure", "stated of", "from"],
            figures.iter().map(|f| {
                vec![
                    f.title.to_owned(),
                    f.figure.text.clone(),
                    f.figure.of.clone(),
                    f.figure.source.clone(),
                ]
            }),
        );
    }
    document
}

fn technology(view: &TechnologyView) -> Document {
    let technology = view.technology;
    let mut document = Document::default();
    document.heading(
        2,
        format!("{}: {}", technology.name, named(technology.layer)),
    );
    document.text(&technology.about);
    document.fields([
        (
            "in stacks",
            format!("{}:{}", technology.layer, technology.id),
        ),
        ("also", technology.also.join(", ")),
        ("part of", technology.part_of.clone().unwrap_or_default()),
        ("boundary", super::place(technology.layer).boundary.clone()),
    ]);
    document.append(figures("Figures:", &view.figures));
    document.text(format!(
        "How {} fails and what to do: isostack-agent layers show {}",
        technology.layer, technology.layer
    ));
    document
}

fn concept(view: &ConceptView) -> Document {
    let concept = view.concept;
    let mut document = Document::default();
    document.heading(2, format!("{}: a wider concept", concept.name));
    document.text(&concept.about);
    document.fields([("members", concept.members.join(", "))]);
    document.append(figures("Figures:", &view.figures));
    document
}

fn cause(view: &CauseView) -> Document {
    let cause = view.cause;
    let mut document = Document::default();
    document.heading(
        3,
        format!("{}: a cause{}", cause.id, sensor(cause.sensor.as_deref())),
    );
    document.text(&cause.means);
    document.fields([
        (
            "fault in",
            view.faults
                .iter()
                .map(|f| f.as_str())
                .collect::<Vec<_>>()
                .join(", "),
        ),
        ("metrics", cause.metrics.join(", ")),
    ]);
    document.list(
        "What to do (the first that is for the place and of which all is known):",
        cause.remedies.iter().map(|r| {
            let at: Vec<_> = r.at.iter().map(|f| f.as_str()).collect();
            let said = String::from(r.say.clone());
            if at.is_empty() {
                said
            } else {
                format!("in {}: {said}", at.join(", "))
            }
        }),
    );
    lines("Log lines that support it:", &view.log_lines, &mut document);
    document
}

fn lines(about: &str, lines: &[LogLine], document: &mut Document) {
    document.list(
        about,
        lines
            .iter()
            .map(|l| format!("{}: {}. E.g. {}", l.rule, l.meaning, l.line)),
    );
}

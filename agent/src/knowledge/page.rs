//! `docs/layers.md`: all of the knowledge on one page.

use super::{
    Subject,
    compare::Comparison,
    data,
    data::Question,
    document::Document,
    layers,
    show::{EntryView, Overview, PlaceView},
};
use crate::vocabulary::{Cause, Fault};

/// The page, as Markdown.
#[must_use]
pub fn page() -> String {
    let data = data();
    let mut page = Document::default();
    page.heading(1, "The isolation layers");
    page.text(
        "Generated from agent/src/knowledge/*.toml; to change it, change those and run \
         UPDATE_DOCS=1 cargo test -p isostack-agent --test knowledge_docs. The same is on the \
         command line: isostack-agent layers.",
    );
    page.append(Overview::document());
    for place in &data.layers.places {
        let view = PlaceView::new(place);
        let members = view.members.clone();
        page.append(EntryView::Place(view).document());
        page.table(
            ["in stacks", "name", "also", "what it is"],
            members.iter().map(|t| {
                vec![
                    t.id.clone(),
                    t.name.clone(),
                    t.also.join(", "),
                    t.about.clone(),
                ]
            }),
        );
    }
    page.heading(2, "Figures");
    let dimensions = data.layers.dimensions.iter();
    page.list(
        "What is compared:",
        dimensions.map(|d| format!("{}: {}", d.title, d.means)),
    );
    page.append(Comparison::of(&layers().map(Subject::Layer).collect::<Vec<_>>()).document());
    page.heading(2, "Wider concepts");
    let concepts = data.layers.concepts.iter();
    page.list(
        "",
        concepts
            .clone()
            .map(|c| format!("{} ({}): {}", c.name, c.members.join(", "), c.about)),
    );
    page.append(Comparison::of(&concepts.map(Subject::Concept).collect::<Vec<_>>()).document());
    selection(&mut page);
    localisation(&mut page);
    page.heading(2, "Causes and remedies");
    for cause in &data.causes.causes {
        page.append(EntryView::from(super::find::Entry::Cause(cause)).document());
    }
    page.markdown()
}

fn selection(page: &mut Document) {
    let selection = &data().selection;
    page.heading(2, "How to choose");
    page.text(format!(
        "Needs are weighed in this order: {}. {}: {}",
        selection.classes.join(", "),
        selection.default,
        selection.default_because
    ));
    page.table(
        ["need", "value", "choose", "with", "because"],
        selection.rules.iter().map(|rule| {
            let value = match (&rule.value, &rule.from, &rule.up_to) {
                (Some(value), ..) => value.clone(),
                (None, Some(from), Some(to)) => format!("{from} to {to}"),
                (None, from, to) => {
                    let from = from.iter().map(|from| format!("from {from}"));
                    let to = to.iter().map(|to| format!("up to {to}"));
                    from.chain(to).collect()
                }
            };
            let mut choose = words(&rule.choose).join(", ");
            if !rule.beside.is_empty() {
                choose += &format!(", beside it {}", words(&rule.beside).join(", "));
            }
            vec![
                rule.need.clone(),
                value,
                choose,
                rule.with.join(", "),
                rule.because.clone(),
            ]
        }),
    );
    page.table(
        ["combination", "is", "gives", "costs"],
        selection.combinations.iter().map(|c| {
            vec![
                words(&c.layers).join(" + "),
                c.is.clone(),
                c.gives.clone(),
                c.costs.clone(),
            ]
        }),
    );
}

fn localisation(page: &mut Document) {
    let model = &data().localisation;
    let axes = &model.axes;
    page.heading(2, "How a slow request is localised");
    page.list("", [&axes.horizontal, &axes.vertical, &axes.crossing]);
    page.text(format!(
        "Joined by {}. {}",
        axes.joined_by.join(", "),
        axes.joined_in
    ));
    let asks = |q: &Question| {
        let of =
            q.of.as_ref()
                .map_or_else(String::new, |of| format!("{of}: "));
        format!("{of}{}", q.asks)
    };
    page.list(
        "Questions, in this order:",
        model.questions.iter().map(asks),
    );
    page.list("For the network:", model.network_questions.iter().map(asks));
    page.table(
        [
            "symptom",
            "spans say",
            "the kernel says",
            "fault",
            "causes",
            "what to do",
        ],
        model.symptoms.iter().map(|s| {
            vec![
                s.seen.clone(),
                s.span.clone(),
                s.kernel.clone(),
                format!("{} {}", words(&s.faults).join(" or "), s.mechanism),
                causes(&s.causes),
                s.action.clone(),
            ]
        }),
    );
    for incident in &model.incidents {
        page.heading(3, format!("Reference incident: {}", incident.name));
        page.text(&incident.story);
        page.text(format!("Culprit: {}.", incident.culprit));
        page.list(
            "What has to be found:",
            incident
                .findings
                .iter()
                .map(|f| format!("{} {}: {}", f.fault, f.cause, f.shows)),
        );
    }
    page.heading(2, "When to ring, what to see");
    page.table(
        ["when", "severity", "causes"],
        model
            .thresholds
            .iter()
            .map(|t| vec![t.when.clone(), t.severity.clone(), causes(&t.causes)]),
    );
    page.list(
        "A node shows:",
        model.criteria.iter().map(|c| c.says.clone()),
    );
}

fn words(faults: &[Fault]) -> Vec<&'static str> {
    faults.iter().map(|fault| fault.as_str()).collect()
}

fn causes(causes: &[Cause]) -> String {
    causes
        .iter()
        .map(|c| c.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}

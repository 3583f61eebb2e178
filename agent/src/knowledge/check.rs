//! What the types cannot say: names are unique, references lead somewhere, figures can be
//! read, rules can apply. The build fails on any mistake.

use std::collections::BTreeSet;

use super::{
    data::{Data, Need, Rule},
    figure::Kind,
};
use crate::vocabulary::{Cause, Fault};

/// Every mistake, one sentence each.
#[must_use]
pub fn mistakes(data: &Data) -> Vec<String> {
    let mut found = Mistakes::default();
    names(data, &mut found);
    places(data, &mut found);
    figures(data, &mut found);
    causes(data, &mut found);
    rules(data, &mut found);
    localisation(data, &mut found);
    found.0
}

#[derive(Default)]
struct Mistakes(Vec<String>);

impl Mistakes {
    fn check(&mut self, good: bool, sentence: impl FnOnce() -> String) {
        if !good {
            self.0.push(sentence());
        }
    }

    /// No word twice, no empty one; case does not tell them apart.
    fn unique<'a>(&mut self, what: &str, words: impl IntoIterator<Item = &'a str>) {
        let mut seen = BTreeSet::new();
        for word in words {
            self.check(!word.trim().is_empty(), || format!("a {what} is empty"));
            self.check(seen.insert(word.to_lowercase()), || {
                format!("{what} {word:?} is there twice")
            });
        }
    }

    fn layer(&mut self, of: &str, place: Fault) {
        self.check(place.layer().is_some(), || {
            format!("{of}: {place} is no layer")
        });
    }
}

fn names(data: &Data, found: &mut Mistakes) {
    let (layers, technologies) = (&data.layers, &data.technologies);
    found.unique("source", layers.sources.iter().map(|s| &*s.id));
    found.unique("dimension", layers.dimensions.iter().map(|d| &*d.id));
    found.unique(
        "dimension title",
        layers.dimensions.iter().map(|d| &*d.title),
    );
    let compared = layers
        .places
        .iter()
        .flat_map(|p| [p.id.as_str(), &p.title, &p.short])
        // "network" is both the word and the short name of a place.
        .filter(|name| Fault::ALL.iter().all(|fault| fault.as_str() != *name))
        .chain(technologies.technologies.iter().flat_map(|t| {
            let name = (!t.name.eq_ignore_ascii_case(&t.id)).then_some(&*t.name);
            [&*t.id].into_iter().chain(name).chain(words(&t.also))
        }))
        .chain(layers.concepts.iter().flat_map(|c| {
            [&*c.id, &*c.name]
                .into_iter()
                .chain(words(&c.also))
                .chain(words(&c.members))
        }));
    found.unique("name", compared);
    found.unique(
        "term",
        technologies
            .terms
            .iter()
            .flat_map(|t| [&*t.word].into_iter().chain(words(&t.also))),
    );
}

fn words(list: &[String]) -> impl Iterator<Item = &str> {
    list.iter().map(|word| &**word)
}

fn places(data: &Data, found: &mut Mistakes) {
    let layers = &data.layers;
    found.unique("place", layers.places.iter().map(|p| p.id.as_str()));
    for fault in Fault::ALL {
        found.check(layers.places.iter().any(|p| p.id == *fault), || {
            format!("the place {fault} is missing")
        });
    }
    for place in &layers.places {
        let (id, is_layer) = (place.id, place.id.layer().is_some());
        found.check(place.tradeoff.is_empty() != is_layer, || {
            format!("{id}: layers, and only layers, have a trade-off")
        });
        found.check(!place.fails.is_empty() && !place.actions.is_empty(), || {
            format!("{id} does not say how it fails, or what to do")
        });
        let slices = layers.slices.iter().filter(|s| s.place == id).count();
        found.check(slices == usize::from(is_layer), || {
            format!("{id}: layers, and only layers, have one slice of the network")
        });
    }
    let technologies = &data.technologies.technologies;
    for technology in technologies {
        found.layer(&technology.id, technology.layer);
        if let Some(whole) = &technology.part_of {
            let known = technologies
                .iter()
                .any(|t| t.id == *whole && t.layer == technology.layer && t.part_of.is_none());
            found.check(known, || {
                format!("{}: there is no {whole} in its layer", technology.id)
            });
        }
    }
    for term in &data.technologies.terms {
        found.layer(&term.word, term.place);
    }
}

fn figures(data: &Data, found: &mut Mistakes) {
    let layers = &data.layers;
    found.unique(
        "set of figures",
        layers
            .figures
            .iter()
            .map(|f| format!("{} from {}", f.of, f.source))
            .collect::<Vec<_>>()
            .iter()
            .map(|s| &**s),
    );
    for set in &layers.figures {
        let subject = layers
            .places
            .iter()
            .any(|p| p.id.layer().is_some() && p.id.as_str() == set.of)
            || data
                .technologies
                .technologies
                .iter()
                .any(|t| t.id == set.of)
            || layers.concepts.iter().any(|c| c.id == set.of);
        found.check(subject, || {
            format!("figures of {:?}: no layer, technology or concept", set.of)
        });
        found.check(layers.sources.iter().any(|s| s.id == set.source), || {
            format!("figures of {}: unknown source {:?}", set.of, set.source)
        });
        for (dimension, text) in &set.values {
            match layers.dimensions.iter().find(|d| d.id == *dimension) {
                None => found.0.push(format!(
                    "figures of {}: unknown dimension {dimension:?}",
                    set.of
                )),
                Some(known) => {
                    if let Err(wrong) = known.kind.read(text) {
                        found.0.push(format!("{dimension} of {}: {wrong}", set.of));
                    }
                }
            }
        }
    }
    for source in &layers.sources {
        found.check(layers.figures.iter().any(|f| f.source == source.id), || {
            format!("no figure is from source {:?}", source.id)
        });
    }
    for dimension in &layers.dimensions {
        let used = layers
            .figures
            .iter()
            .any(|f| f.values.contains_key(&dimension.id));
        found.check(used, || {
            format!("dimension {:?} has no figure", dimension.id)
        });
        found.check(
            dimension.better.is_none() == (dimension.kind == Kind::Text),
            || format!("{:?}: figures have a better end, words none", dimension.id),
        );
    }
}

fn causes(data: &Data, found: &mut Mistakes) {
    let causes = &data.causes.causes;
    found.unique("cause", causes.iter().map(|c| c.id.as_str()));
    for cause in Cause::ALL {
        found.check(causes.iter().any(|c| c.id == *cause), || {
            format!("the cause {cause} is missing")
        });
    }
    for cause in causes {
        let id = cause.id;
        found.unique("metric of one cause", cause.metrics.iter().map(|m| &**m));
        for metric in &cause.metrics {
            found.check(metric.starts_with("isostack_"), || {
                format!("{id}: {metric} is no metric of this agent")
            });
        }
        let always = |r: &super::data::Remedy| r.at.is_empty() && r.say.is_plain();
        let first = cause.remedies.iter().position(always);
        found.check(first.is_some(), || {
            format!("{id}: no remedy can be said when nothing is known")
        });
        found.check(
            first.is_none_or(|at| at + 1 == cause.remedies.len()),
            || format!("{id}: remedies after one that always fits are never used"),
        );
    }
}

fn rules(data: &Data, found: &mut Mistakes) {
    let selection = &data.selection;
    found.unique("class", selection.classes.iter().map(|c| &**c));
    found.unique("need", selection.needs.iter().map(|n| &*n.id));
    found.layer("the default", selection.default);
    for class in &selection.classes {
        found.check(selection.needs.iter().any(|n| n.class == *class), || {
            format!("no need is of class {class:?}")
        });
    }
    for need in &selection.needs {
        found.check(selection.classes.contains(&need.class), || {
            format!("need {}: unknown class {:?}", need.id, need.class)
        });
        let mine: Vec<_> = selection
            .rules
            .iter()
            .filter(|r| r.need == need.id)
            .collect();
        found.check(!mine.is_empty(), || format!("need {} has no rule", need.id));
        match limit_kind(data, need) {
            Ok(None) => {
                let values: Vec<_> = mine.iter().filter_map(|r| r.value.as_deref()).collect();
                found.check(values.len() == mine.len(), || {
                    format!("need {}: a rule has no value", need.id)
                });
                found.unique(&format!("value of {}", need.id), values);
            }
            Ok(Some(kind)) => limits(need, kind, &mine, found),
            Err(wrong) => found.0.push(wrong),
        }
    }
    for rule in &selection.rules {
        let name = format!("rule {:?}", rule.because);
        found.check(selection.needs.iter().any(|n| n.id == rule.need), || {
            format!("{name} is never used: there is no need {:?}", rule.need)
        });
        found.check(!rule.choose.is_empty(), || {
            format!("{name} chooses nothing")
        });
        let layers = || rule.choose.iter().chain(&rule.beside);
        layers().for_each(|place| found.layer(&name, *place));
        found.unique("layer of one rule", layers().map(|l| l.as_str()));
    }
    let mut known = BTreeSet::new();
    for combination in &selection.combinations {
        let name = combination.is.as_str();
        combination
            .layers
            .iter()
            .for_each(|l| found.layer(name, *l));
        found.unique(name, combination.layers.iter().map(|l| l.as_str()));
        found.check(combination.layers.len() > 1, || {
            format!("{name}: one layer is no combination")
        });
        found.check(known.insert(combination.layers.clone()), || {
            format!("{name}: these layers are combined twice")
        });
    }
}

/// The kind of figure that a need limits; `None` for a need of words.
fn limit_kind(data: &Data, need: &Need) -> Result<Option<Kind>, String> {
    let Some(limited) = &need.limits else {
        return Ok(None);
    };
    let dimensions = &data.layers.dimensions;
    match dimensions.iter().find(|d| d.id == *limited) {
        Some(d) if matches!(d.kind, Kind::Duration | Kind::Memory | Kind::Percent) => {
            Ok(Some(d.kind))
        }
        Some(_) => Err(format!("need {}: {limited:?} has no limits", need.id)),
        None => Err(format!("need {}: unknown dimension {limited:?}", need.id)),
    }
}

/// Every rule for a limit covers a stretch that no other covers.
fn limits(need: &Need, kind: Kind, rules: &[&Rule], found: &mut Mistakes) {
    let mut stretches = Vec::new();
    for rule in rules {
        let end = |end: &Option<String>, without| {
            end.as_deref()
                .map_or(Ok(without), |text| kind.read_limit(text))
        };
        match (end(&rule.from, 0.0), end(&rule.up_to, f64::INFINITY)) {
            (Ok(from), Ok(to)) if from < to && rule.value.is_none() => stretches.push((from, to)),
            (Err(wrong), _) | (_, Err(wrong)) => found.0.push(format!("{}: {wrong}", need.id)),
            _ => found.0.push(format!("{}: a rule is for no limit", need.id)),
        }
    }
    stretches.sort_by(|a, b| a.0.total_cmp(&b.0));
    for pair in stretches.windows(2) {
        found.check(pair[0].1 <= pair[1].0, || {
            format!("{}: two rules are for the same limit", need.id)
        });
    }
}

fn localisation(data: &Data, found: &mut Mistakes) {
    let model = &data.localisation;
    found.unique("symptom", model.symptoms.iter().map(|s| &*s.id));
    found.unique("incident", model.incidents.iter().map(|i| &*i.id));
    found.unique("threshold", model.thresholds.iter().map(|t| &*t.when));
    for question in &model.questions {
        let of = question.of.as_deref().unwrap_or("nothing");
        let known = of == "hop" || Fault::ALL.iter().any(|f| f.as_str() == of);
        found.check(known, || {
            format!("a question is of {of:?}, which is no place")
        });
    }
    for symptom in &model.symptoms {
        found.check(
            !symptom.faults.is_empty() && !symptom.causes.is_empty(),
            || format!("symptom {:?} leads nowhere", symptom.id),
        );
    }
    for incident in &model.incidents {
        found.check(!incident.findings.is_empty(), || {
            format!("incident {:?} has nothing to find", incident.id)
        });
    }
}

#[cfg(test)]
mod tests;

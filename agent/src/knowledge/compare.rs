//! `layers compare`: dimension by dimension, differences first, each figure with its source,
//! and where sources contradict each other.

use serde::Serialize;

use super::{
    Subject, data,
    data::{Better, Cited, Dimension, Source},
    document::Document,
    figure::Kind,
    stated,
};

/// What is compared, and how it compares.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// What is compared.
    pub subjects: Vec<Compared>,
    /// The dimensions in which something is stated of any subject; those that differ first.
    pub dimensions: Vec<Row>,
    /// Where sources contradict each other.
    pub contradictions: Vec<Contradiction>,
    /// The sources of all figures.
    pub sources: Vec<&'static Source>,
}

/// One of the subjects.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// Its short word.
    pub id: &'static str,
    /// What it is called.
    pub name: &'static str,
}

/// One dimension.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its id.
    pub dimension: &'static str,
    /// Its title.
    pub title: &'static str,
    /// Which figure is better.
    pub better: Option<Better>,
    /// Whether the subjects differ in it.
    pub differs: bool,
    /// For each subject what is stated of it.
    pub figures: Vec<Vec<Cited>>,
}

/// Where sources contradict each other.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Contradiction {
    /// The dimension.
    pub dimension: &'static str,
    /// The sentence.
    pub says: String,
}

impl Comparison {
    /// Compares.
    #[must_use]
    pub fn of(subjects: &[Subject]) -> Self {
        let mut rows = Vec::new();
        let mut contradictions = Vec::new();
        for dimension in &data().layers.dimensions {
            let figures: Vec<_> = subjects.iter().map(|s| s.figures(dimension)).collect();
            if figures.iter().all(Vec::is_empty) {
                continue;
            }
            for subject in subjects {
                contradictions.extend(beyond_its_layer(*subject, dimension));
            }
            contradictions.extend(other_order(subjects, &figures, dimension));
            let texts = |f: &Vec<Cited>| f.iter().map(|c| c.text.clone()).collect::<Vec<_>>();
            rows.push(Row {
                dimension: &dimension.id,
                title: &dimension.title,
                better: dimension.better,
                differs: figures.iter().any(|f| texts(f) != texts(&figures[0])),
                figures,
            });
        }
        rows.sort_by_key(|row| !row.differs);
        let mut unique: Vec<Contradiction> = Vec::new();
        for contradiction in contradictions {
            if !unique.contains(&contradiction) {
                unique.push(contradiction);
            }
        }
        let used = |source: &&Source| {
            rows.iter()
                .flat_map(|row| row.figures.iter().flatten())
                .any(|figure| figure.source == source.id)
        };
        Self {
            subjects: subjects
                .iter()
                .map(|s| Compared {
                    id: s.id(),
                    name: s.name(),
                })
                .collect(),
            contradictions: unique,
            sources: data().layers.sources.iter().filter(used).collect(),
            dimensions: rows,
        }
    }

    /// For a person.
    #[must_use]
    pub fn document(&self) -> Document {
        let mut document = Document::default();
        let (differ, same): (Vec<_>, Vec<_>) = self.dimensions.iter().partition(|r| r.differs);
        let head: Vec<_> = ["dimension"]
            .into_iter()
            .chain(self.subjects.iter().map(|s| s.id))
            .chain(["better"])
            .collect();
        for (title, rows) in [("Differences", differ), ("The same", same)] {
            if !rows.is_empty() {
                document.heading(3, title);
                document.table(head.clone(), rows.into_iter().map(|row| self.cells(row)));
            }
        }
        document.list(
            "Contradictions:",
            self.contradictions.iter().map(|c| c.says.clone()),
        );
        document.list(
            "Where the figures are from:",
            self.sources
                .iter()
                .map(|s| format!("[{}] {}: {}. {}", self.mark(&s.id), s.id, s.title, s.note)),
        );
        document
    }

    /// Which of the sources a figure is from, as a mark.
    fn mark(&self, source: &str) -> String {
        let at = self.sources.iter().position(|s| s.id == source);
        at.map_or_else(String::new, |at| (at + 1).to_string())
    }

    fn cells(&self, row: &Row) -> Vec<String> {
        let cell = |(subject, figures): (&Compared, &Vec<Cited>)| {
            let lines: Vec<_> = figures
                .iter()
                .map(|figure| {
                    let mark = self.mark(&figure.source);
                    match figure.of == subject.id {
                        true => format!("{} [{mark}]", figure.text),
                        false => format!("{} [{mark}, of {}]", figure.text, figure.of),
                    }
                })
                .collect();
            match lines.is_empty() {
                true => "-".to_owned(),
                false => lines.join("\n"),
            }
        };
        let better = match row.better {
            Some(Better::More) => "more",
            Some(Better::Less) => "less",
            None => "",
        };
        [row.title.to_owned()]
            .into_iter()
            .chain(self.subjects.iter().zip(&row.figures).map(cell))
            .chain([better.to_owned()])
            .collect()
    }
}

/// Technologies whose own figure is beyond what is stated of their layer: of the subject, or of
/// a member of it.
fn beyond_its_layer(subject: Subject, dimension: &'static Dimension) -> Vec<Contradiction> {
    let members = data()
        .technologies
        .technologies
        .iter()
        .filter(|t| match subject {
            Subject::Layer(place) => t.layer == place.id,
            Subject::Technology(technology) => t.id == technology.id,
            Subject::Concept(_) => false,
        });
    let mut found = Vec::new();
    for technology in members {
        let of_layer = stated(technology.layer.as_str(), dimension);
        let own = stated(&technology.id, dimension);
        for (wide, narrow) in of_layer
            .iter()
            .flat_map(|w| own.iter().map(move |n| (w, n)))
        {
            let (Some(w), Some(n)) = (wide.range, narrow.range) else {
                continue;
            };
            let beyond = n.high.unwrap_or(f64::INFINITY) > w.high.unwrap_or(f64::INFINITY);
            if dimension.kind != Kind::Score && w.unit == n.unit && beyond {
                found.push(Contradiction {
                    dimension: &dimension.id,
                    says: format!(
                        "{}: {} for {} by {}, but {} for {} by {}.",
                        dimension.title,
                        wide.text,
                        wide.of,
                        wide.source,
                        narrow.text,
                        narrow.of,
                        narrow.source
                    ),
                });
            }
        }
    }
    found
}

/// Pairs that one source puts in another order than another.
fn other_order(
    subjects: &[Subject],
    figures: &[Vec<Cited>],
    dimension: &'static Dimension,
) -> Vec<Contradiction> {
    let mut found = Vec::new();
    let pairs = (0..subjects.len()).flat_map(|a| (a + 1..subjects.len()).map(move |b| (a, b)));
    for (a, b) in pairs {
        let mut orders: Vec<(std::cmp::Ordering, String)> = Vec::new();
        for one in &figures[a] {
            for other in figures[b].iter().filter(|f| f.source == one.source) {
                let (Some(x), Some(y)) = (one.range, other.range) else {
                    continue;
                };
                if dimension.kind == Kind::Score && x.unit == y.unit {
                    let order = x.low.total_cmp(&y.low);
                    let word = match order {
                        std::cmp::Ordering::Less => "below",
                        std::cmp::Ordering::Equal => "level with",
                        std::cmp::Ordering::Greater => "above",
                    };
                    let (a, b) = (subjects[a].id(), subjects[b].id());
                    let source = &one.source;
                    let says = format!(
                        "{source} puts {a} {word} {b} ({}; {})",
                        one.text, other.text
                    );
                    orders.push((order, says));
                }
            }
        }
        if orders.windows(2).any(|pair| pair[0].0 != pair[1].0) {
            let sentences: Vec<_> = orders.into_iter().map(|(_, says)| says).collect();
            found.push(Contradiction {
                dimension: &dimension.id,
                says: format!("{}: {}.", dimension.title, sentences.join(", but ")),
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knowledge::find::find_subject;

    fn compare(names: &[&str]) -> Comparison {
        let subjects: Vec<_> = names.iter().map(|n| find_subject(n).unwrap()).collect();
        Comparison::of(&subjects)
    }

    fn says(comparison: &Comparison) -> String {
        let all = comparison.contradictions.iter().map(|c| &*c.says);
        all.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn differences_come_first() {
        let comparison = compare(&["L-0", "L-1"]);
        let differs: Vec<_> = comparison.dimensions.iter().map(|r| r.differs).collect();
        assert!(differs.is_sorted_by(|a, b| a >= b), "{differs:?}");
        let same: Vec<_> = comparison
            .dimensions
            .iter()
            .filter(|r| !r.differs)
            .map(|r| r.dimension)
            .collect();
        assert!(same.contains(&"compliance"), "{same:?}");
        assert!(!same.contains(&"cold_start"), "nothing is stated of L-0");
    }

    #[test]
    fn every_figure_says_where_it_is_from() {
        let text = compare(&["gvisor", "service mesh", "policy-engine"])
            .document()
            .plain(160);
        assert!(text.contains("<10 % [2]"), "{text}");
        assert!(text.contains("2-10 % [3]"), "{text}");
        assert!(text.contains("<10 ms [1, of L-4]"), "{text}");
        assert!(
            text.contains("[3] concept-table: the ISOSTACK comparison of wider concepts"),
            "{text}"
        );
    }

    #[test]
    fn sources_that_rank_differently_are_both_shown() {
        let comparison = compare(&["L-3", "L-4", "L-1"]);
        let said = says(&comparison);
        assert!(
            said.contains("layer-table puts L-3 below L-4 (3; 5), but concept-table puts L-3 above L-4 (rank 2 of 6; rank 3 of 6)"),
            "{said}"
        );
        assert!(said.contains("puts L-4 level with L-1"), "{said}");
        assert!(!said.contains("puts L-3 below L-1"), "they agree: {said}");
    }

    #[test]
    fn what_does_not_hold_for_a_member_is_said() {
        let said = says(&compare(&["L-4", "L-3"]));
        for part in [
            "cold start: <10 ms for L-4 by layer-table, but <125 ms for firecracker by technology-notes",
            "but <1 s for kata",
            "CPU overhead: <1 % for L-4 by layer-table, but <5 % for firecracker by firecracker-specification",
            "memory overhead: 1-5 MB for L-4 by layer-table, but <128 MB for kata",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
        assert!(!said.contains("wasm by"), "{said}");
        assert_eq!(
            says(&compare(&["wasmedge", "runc"]))
                .matches("cold start")
                .count(),
            0
        );
    }
}

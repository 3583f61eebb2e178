//! What is needed, checked against the needs of the data.

use std::fmt;

use super::{Served, figure};
use crate::{
    knowledge::{
        data,
        data::{Need, Rule},
        dimension,
    },
    vocabulary::Fault,
};

/// Needs, in the order of their classes.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Them.
    pub asked: Vec<Asked>,
}

/// A need with its value.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The need.
    pub need: &'static Need,
    /// As it was typed.
    pub value: String,
    /// As a number, for a limit.
    limit: Option<f64>,
}

/// A need that the data does not have, or a value that it does not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No such need.
    #[error("there is no need {0:?}")]
    Need(String),
    /// No such value.
    #[error("{value:?} is no value of {need}: it takes {known}")]
    Value {
        /// The need.
        need: String,
        /// As it was typed.
        value: String,
        /// What it takes.
        known: String,
    },
    /// No limit.
    #[error("{0}")]
    Limit(String),
}

impl Request {
    /// From needs and values as they were typed.
    ///
    /// # Errors
    /// When the data has no such need or value.
    pub fn new<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, RequestError> {
        let mut asked = pairs
            .into_iter()
            .map(|(need, value)| Asked::new(need, value))
            .collect::<Result<Vec<_>, _>>()?;
        let classes = &data().selection.classes;
        asked.sort_by_key(|a| classes.iter().position(|class| *class == a.need.class));
        Ok(Self { asked })
    }
}

impl Asked {
    /// Checks one need.
    ///
    /// # Errors
    /// When the data has no such need or value.
    pub fn new(need: &str, value: &str) -> Result<Self, RequestError> {
        let known = data().selection.needs.iter().find(|n| n.id == need);
        let need = known.ok_or_else(|| RequestError::Need(need.to_owned()))?;
        let mut asked = Self {
            need,
            value: value.trim().to_owned(),
            limit: None,
        };
        match &need.limits {
            Some(limited) => {
                let limit = dimension(limited).kind.read_limit(value);
                asked.limit = Some(limit.map_err(RequestError::Limit)?);
            }
            None if asked.rule().is_none() => {
                let known: Vec<_> = values(&need.id)
                    .filter_map(|r| r.value.as_deref())
                    .collect();
                return Err(RequestError::Value {
                    need: need.id.clone(),
                    value: asked.value,
                    known: known.join(", "),
                });
            }
            None => {}
        }
        Ok(asked)
    }

    /// The rule for this value; none for a limit that no rule is for.
    #[must_use]
    pub fn rule(&self) -> Option<&'static Rule> {
        values(&self.need.id).find(|rule| match self.limit {
            None => rule.value.as_deref() == Some(&*self.value),
            Some(limit) => {
                let end = |end: &Option<String>, without| {
                    let kind = dimension(self.need.limits.as_deref()?).kind;
                    let end = end
                        .as_deref()
                        .map_or(Ok(without), |text| kind.read_limit(text));
                    end.ok()
                };
                end(&rule.from, 0.0).is_some_and(|from| from <= limit)
                    && end(&rule.up_to, f64::INFINITY).is_some_and(|to| limit <= to)
            }
        })
    }

    /// How well one layer serves it: by its figure if it is a limit, else by the rule.
    #[must_use]
    pub fn served_by(&self, layer: Fault) -> Served {
        if let Some((limit, dimension)) = self.limit.zip(self.need.limits.as_deref()) {
            let range = figure(layer, dimension).and_then(|figure| figure.range);
            return match range {
                Some(range) if range.is_within(limit) => Served::Fully,
                Some(range) if range.can_be_below(limit) => Served::Partly,
                _ => Served::No,
            };
        }
        match self.rule() {
            Some(rule) if rule.choose.contains(&layer) => Served::Fully,
            Some(rule) if rule.beside.contains(&layer) => Served::Partly,
            _ => Served::No,
        }
    }

    /// Layers that serve it.
    #[must_use]
    pub fn servers(&self) -> String {
        let layers = Fault::ALL
            .iter()
            .filter(|l| self.served_by(**l) > Served::No);
        let ids: Vec<_> = layers.map(|layer| layer.as_str()).collect();
        ids.join(" or ")
    }

    /// What the layers have in the limited dimension.
    #[must_use]
    pub fn figures(&self) -> String {
        let layers = Fault::ALL.iter().filter(|layer| layer.layer().is_some());
        let stated: Vec<_> = layers
            .filter_map(|layer| {
                let figure = figure(*layer, self.need.limits.as_deref()?)?;
                Some(format!("{layer} has {}", figure.text))
            })
            .collect();
        stated.join(", ")
    }

    /// What a layer is in respect of this need.
    #[must_use]
    pub fn verdict_on(&self, layer: Fault) -> String {
        let stated = self.need.limits.as_deref().and_then(|dimension_id| {
            let figure = figure(layer, dimension_id)?;
            Some(format!(
                "the {} of {layer} is {}",
                dimension(dimension_id).title,
                figure.text
            ))
        });
        stated.unwrap_or_else(|| format!("{layer} is not for {self}"))
    }

    /// Members of a layer for which this limit was stated: those that keep it, those that do
    /// not. Empty without such a statement.
    #[must_use]
    pub fn members(&self, layer: Fault) -> Vec<String> {
        let Some((limit, id)) = self.limit.zip(self.need.limits.as_deref()) else {
            return Vec::new();
        };
        let dimension = dimension(id);
        let technologies = data().technologies.technologies.iter();
        technologies
            .filter(|technology| technology.layer == layer)
            .filter_map(|technology| {
                let figure = crate::knowledge::stated(&technology.id, dimension)
                    .into_iter()
                    .find(|figure| figure.range.is_some())?;
                let keeps = figure.range?.is_within(limit);
                let does = if keeps { "keeps" } else { "may not keep" };
                Some(format!(
                    "{} {does} {self} ({})",
                    technology.name, figure.text
                ))
            })
            .collect()
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.need.id, self.value)
    }
}

/// The rules of a need: one for each value that it takes.
pub fn values(need: &str) -> impl Iterator<Item = &'static Rule> + use<'_> {
    data()
        .selection
        .rules
        .iter()
        .filter(move |rule| rule.need == need)
}

//! What `--sensors` asks for.

use super::SENSORS;

/// Which sensors to start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Selection {
    /// All that can run.
    #[default]
    Auto,
    /// These, each of them mandatory; with `auto`, whatever else can run as well.
    Named {
        /// Names out of [`SENSORS`].
        required: Vec<&'static str>,
        /// `auto` was among them.
        and_auto: bool,
    },
}

/// A word in `--sensors` that names no sensor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no sensor {0:?}; there are auto, {names}", names = names())]
pub struct UnknownSensor(pub String);

impl Selection {
    /// Parses `auto`, `cpu`, `cpu,tcp`, `cpu,auto`.
    ///
    /// # Errors
    ///
    /// On a name that is not in [`SENSORS`].
    pub fn parse(text: &str) -> Result<Self, UnknownSensor> {
        let (mut required, mut and_auto) = (Vec::new(), false);
        for word in text.split(',').map(str::trim) {
            if word == "auto" {
                and_auto = true;
                continue;
            }
            let entry = SENSORS
                .iter()
                .find(|entry| entry.name == word)
                .ok_or_else(|| UnknownSensor(word.to_owned()))?;
            required.push(entry.name);
        }
        Ok(if required.is_empty() {
            Self::Auto
        } else {
            Self::Named { required, and_auto }
        })
    }

    /// Whether to try this one at all.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        match self {
            Self::Auto => true,
            Self::Named { required, and_auto } => *and_auto || required.contains(&name),
        }
    }

    /// Whether the start fails without it.
    #[must_use]
    pub fn requires(&self, name: &str) -> bool {
        matches!(self, Self::Named { required, .. } if required.contains(&name))
    }
}

fn names() -> String {
    SENSORS
        .iter()
        .map(|entry| entry.name)
        .collect::<Vec<_>>()
        .join(", ")
}

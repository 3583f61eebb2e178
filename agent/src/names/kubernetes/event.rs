//! The lines of a watch.

use serde::Deserialize;

use super::client::{Failure, quoted};
use crate::workload::pod::{Metadata, PodObject};

/// What a line says.
#[derive(Debug)]
pub(super) enum WatchEvent {
    /// A pod is new or changed.
    Present(Box<PodObject>),
    /// A pod is gone; its last state.
    Deleted(Box<PodObject>),
    /// Nothing happened up to here.
    Bookmark(String),
}

#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Carrying<T> {
    object: T,
}

#[derive(Deserialize)]
struct Mark {
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    code: u16,
    message: String,
}

impl WatchEvent {
    /// Reads a line; `None` for a kind that is not known.
    pub fn parse(line: &[u8]) -> Result<Option<Self>, Failure> {
        let Kind { kind } = json(line)?;
        Ok(Some(match &*kind {
            "ADDED" | "MODIFIED" => Self::Present(json::<Carrying<_>>(line)?.object),
            "DELETED" => Self::Deleted(json::<Carrying<_>>(line)?.object),
            "BOOKMARK" => {
                let mark: Carrying<Mark> = json(line)?;
                Self::Bookmark(mark.object.metadata.resource_version)
            }
            "ERROR" => {
                let status: Status = json::<Carrying<_>>(line)?.object;
                return Err(match status.code {
                    410 => Failure::Gone,
                    code => Failure::Other(format!(
                        "the watch ended with {code}: {}",
                        quoted(&status.message)
                    )),
                });
            }
            _ => return Ok(None),
        }))
    }

    /// Where a watch may go on after this.
    pub fn version(&self) -> Option<&str> {
        let version = match self {
            Self::Present(object) | Self::Deleted(object) => &object.metadata.resource_version,
            Self::Bookmark(version) => version,
        };
        (!version.is_empty()).then_some(version)
    }
}

fn json<'de, T: Deserialize<'de>>(line: &'de [u8]) -> Result<T, Failure> {
    serde_json::from_slice(line).map_err(|error| {
        // It quotes what it could not take.
        let error = quoted(&error);
        Failure::Other(format!("the watch sent what cannot be read: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_short_and_on_one_line() {
        let nasty = format!("\u{1b}[31m\n\u{202e}{}", "x".repeat(10_000));
        for line in [
            serde_json::json!({ "type": "ERROR", "object": { "code": 500, "message": nasty } }),
            serde_json::json!({ "type": "ADDED", "object": { "metadata": nasty } }),
        ] {
            let Err(Failure::Other(reason)) = WatchEvent::parse(line.to_string().as_bytes()) else {
                panic!("{line} is no failure");
            };
            assert!(reason.contains("u{1b}[31m"), "{reason}");
            assert!(reason.len() < 500, "{}", reason.len());
            assert!(!reason.contains(|c: char| c.is_control() || c == '\u{202e}'));
        }
    }
}

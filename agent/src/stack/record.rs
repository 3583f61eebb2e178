//! Facts written down with the answer that they gave, so that they can be asked again: what
//! `stack PID --facts` prints, and what the tests keep.

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::process::{ProcessFacts, process_stack, process_workload};
use crate::host::platform::HostFacts;

/// Facts about a process and its host, and what was inferred from them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// What it is, in a person's words; empty when just recorded.
    pub about: String,
    /// Where it is from: a real system, or published layouts.
    pub seen: Seen,
    /// The stack in the contract's form.
    pub stack: String,
    /// What a person calls the workload.
    pub workload: String,
    /// Its runtime.
    pub runtime: String,
    /// The host.
    #[serde(default)]
    pub host: HostFacts,
    /// The process.
    #[serde(default)]
    pub process: ProcessFacts,
}

/// Where recorded facts are from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// Recorded by this program on a real system, e.g. `runc 1.1.5 on Linux 6.18`.
    RealSystem(String),
    /// Made after published layouts: documentation or source of the project.
    PublishedLayout(String),
    /// Nobody has said yet.
    #[default]
    Unsaid,
}

impl Record {
    /// Asks the facts, after what names the host or its users is taken out.
    #[must_use]
    pub fn new(host: HostFacts, process: ProcessFacts) -> Self {
        let names = Names::of_this_host();
        let host = names.scrub(&host).unwrap_or(host);
        let process = names.scrub(&process).unwrap_or(process);
        let kernel = rustix::system::uname();
        let mut record = Self {
            seen: Seen::RealSystem(format!("Linux {}", kernel.release().to_string_lossy())),
            host,
            process,
            ..Self::default()
        };
        (record.stack, record.workload, record.runtime) = record.ask();
        record
    }

    /// What the facts give now: the stack, what a person calls the workload, its runtime.
    #[must_use]
    pub fn ask(&self) -> (String, String, String) {
        let workload = process_workload(&self.process, &self.host);
        (
            process_stack(&self.process, &self.host).to_string(),
            workload.display_name(),
            workload.runtime,
        )
    }
}

/// What is taken out of recorded facts.
pub(crate) struct Names {
    host: String,
}

/// Shorter host names than this occur in other words.
const SHORTEST: usize = 3;

/// An argument with one of these in it keeps nothing of what follows.
const SECRETS: &[&str] = &["secret", "password", "passwd", "token", "apikey"];

impl Names {
    fn of_this_host() -> Self {
        let uname = rustix::system::uname();
        Self {
            host: uname.nodename().to_string_lossy().into_owned(),
        }
    }

    /// Of a host of this name.
    pub(crate) fn of(host: &str) -> Self {
        Self {
            host: host.to_owned(),
        }
    }

    /// The same value with other strings.
    pub(crate) fn scrub<T: Serialize + serde::de::DeserializeOwned>(&self, facts: &T) -> Option<T> {
        let mut value = serde_json::to_value(facts).ok()?;
        self.walk(&mut value, "");
        serde_json::from_value(value).ok()
    }

    fn walk(&self, value: &mut Value, key: &str) {
        match value {
            Value::String(text) => *text = self.text(text, key),
            Value::Array(items) => {
                for item in items {
                    self.walk(item, key);
                }
            }
            Value::Object(fields) => {
                for (key, item) in fields {
                    self.walk(item, key);
                }
            }
            _ => {}
        }
    }

    /// A string, under that key.
    pub(crate) fn text(&self, text: &str, key: &str) -> String {
        // Asset tags are numbers of single machines, but for the one that all of Azure has.
        if key == "dmi_asset_tag" && !text.starts_with("7783-7084-3265-9085") {
            return String::new();
        }
        let lower = text.to_ascii_lowercase();
        if key == "cmdline" && SECRETS.iter().any(|word| lower.contains(word)) {
            return "(taken out)".to_owned();
        }
        let mut text = text.to_owned();
        if self.host.len() >= SHORTEST {
            text = text.replace(&self.host, "host");
        }
        home(&text)
    }
}

/// `/home/NAME/...` without the name.
fn home(text: &str) -> String {
    let Some((before, rest)) = text.split_once("/home/") else {
        return text.to_owned();
    };
    let after = rest.find('/').map_or("", |at| &rest[at..]);
    format!("{before}/home/user{after}")
}

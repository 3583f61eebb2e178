//! The documents of `isostack-agent stack`: JSON shapes of the contract, and text tables.

#[cfg(test)]
mod tests;
mod tree;

use std::fmt::Write as _;

use serde::{Serialize, Serializer, ser::SerializeStruct};

use super::StackEntry;
use crate::{process::Identity, vocabulary::Layer, workload::Workload};

/// `stack` and `stack --all`.
#[derive(Clone, Debug, Serialize)]
pub struct HostReport {
    /// The host's layers, innermost first.
    pub host: Vec<StackEntry>,
    /// Every workload, with `--all`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workloads: Option<Vec<ProcessReport>>,
}

/// `stack PID`, and one workload of `stack --all`.
#[derive(Clone, Debug, Serialize)]
pub struct ProcessReport {
    /// The process; for a workload, one that stands for it.
    pub pid: u32,
    /// Its `comm`.
    pub comm: String,
    /// The innermost layer.
    pub layer: Layer,
    /// Its layers, innermost first.
    pub stack: Vec<StackEntry>,
    /// What it belongs to.
    #[serde(serialize_with = "workload")]
    pub workload: Workload,
}

impl From<&Identity> for ProcessReport {
    fn from(identity: &Identity) -> Self {
        Self {
            pid: identity.process.pid,
            comm: identity.comm.clone(),
            layer: identity.stack.layer(),
            stack: identity.stack.0.clone(),
            workload: identity.workload.clone(),
        }
    }
}

/// The contract's fields, in its order.
fn workload<S: Serializer>(workload: &Workload, serializer: S) -> Result<S::Ok, S::Error> {
    let mut out = serializer.serialize_struct("Workload", 8)?;
    out.serialize_field("namespace", &workload.namespace)?;
    out.serialize_field("pod", &workload.pod)?;
    out.serialize_field("pod_uid", &workload.pod_uid)?;
    out.serialize_field("container", &workload.container)?;
    out.serialize_field("container_id", &workload.container_id)?;
    out.serialize_field("unit", &workload.unit)?;
    out.serialize_field("runtime", &workload.runtime)?;
    out.serialize_field("cgroup_id", &workload.cgroup_id)?;
    out.end()
}

impl HostReport {
    /// The text for a terminal.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = entries(&self.host);
        if let Some(workloads) = &self.workloads {
            text.push('\n');
            text.push_str(&tree::tree(workloads, self.host.len()));
        }
        text
    }
}

impl ProcessReport {
    /// The text for a terminal.
    #[must_use]
    pub fn table(&self) -> String {
        format!(
            "{} (pid {}) of {}: layer {}\n{}",
            visible(&self.comm),
            self.pid,
            visible(&self.workload.display_name()),
            self.layer,
            entries(&self.stack)
        )
    }
}

fn entries(stack: &[StackEntry]) -> String {
    let mut text = format!("{:<6} {:<16} EVIDENCE\n", "LAYER", "TECHNOLOGY");
    for entry in stack {
        let _ = writeln!(
            text,
            "{:<6} {:<16} {}",
            entry.layer.as_str(),
            visible(&entry.technology),
            visible(&entry.evidence)
        );
    }
    text
}

/// Text of unknown origin, fit for a terminal: control and direction-changing characters
/// escaped, cut at 200 characters.
#[must_use]
pub fn visible(text: &str) -> String {
    const LIMIT: usize = 200;
    let mut out = String::new();
    for (i, c) in text.chars().enumerate() {
        if i == LIMIT {
            out.push('…');
            break;
        }
        if bends_output(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// A JSON document in which those characters are written by their number: beyond ASCII they
/// can only stand in strings, where that means the same.
#[must_use]
pub fn plain_json(document: &str) -> String {
    let bends = |c: char| !c.is_ascii() && bends_output(c);
    if !document.contains(bends) {
        return document.to_owned();
    }
    let mut out = String::with_capacity(document.len() + 64);
    for c in document.chars() {
        if bends(c) {
            // All of them are in the first plane.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// Whether a character does more than show itself: control characters, those that change
/// the direction of what follows, and those that cannot be seen.
#[must_use]
pub fn bends_output(c: char) -> bool {
    let reorders = matches!(c,
        '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}');
    c.is_control() || reorders
}

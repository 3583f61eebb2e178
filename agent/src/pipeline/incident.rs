//! Verdicts of one story taken together: those of one cause, one fault and one subject that
//! follow each other within [`WINDOW_NS`] are one incident.
//!
//! The *subject* is whom or what the story is about: the culprit; where there is none, whose
//! quota or limit it was, or the disk; what is the victim's own (its code, its locks, a
//! refused system call) is a story of its service, as its own workload runs it. Two services below two quotas are two
//! incidents, two services below one quota are one.
//!
//! An incident's name is made of what it is about and of the start of the first span that
//! told of it: the same input gives the same names, and two agents hardly ever the same one.
//!
//! Bounds: [`MAX_OPEN`] incidents are remembered, the one silent for longest makes room, and
//! would get another name if it went on.

use std::{collections::BTreeMap, hash::Hasher as _};

use super::words::Evidence;
use crate::{
    event::Particulars,
    vocabulary::{Cause, Fault},
    workload::Workload,
};

/// Longest silence within an incident: as long as the timeline's window, as spans may come in
/// any order within that.
pub const WINDOW_NS: u64 = 120_000_000_000;
/// Incidents remembered.
const MAX_OPEN: usize = 256;
/// Bytes of a subject that tell it from others.
const MAX_SUBJECT_BYTES: usize = 512;

/// What makes verdicts belong together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Story {
    cause: Cause,
    fault: Fault,
    subject: String,
}

impl Story {
    /// Of a verdict on a span that this workload sent in the name of `service`, by what is known
    /// of it.
    #[must_use]
    pub fn of(
        cause: Cause,
        fault: Fault,
        evidence: &Evidence,
        (service, workload): (&str, &Workload),
    ) -> Self {
        let about = match &*evidence.culprit.name {
            "" => subject(cause, &evidence.particulars),
            culprit => Some(culprit),
        };
        let mut subject = about.map_or_else(|| own(service, workload), str::to_owned);
        subject.truncate(subject.floor_char_boundary(MAX_SUBJECT_BYTES));
        Self {
            cause,
            fault,
            subject,
        }
    }
}

/// Whom a verdict without culprit is about; `None` where it is the victim's own story.
fn subject(cause: Cause, particulars: &Particulars) -> Option<&str> {
    match (cause, particulars) {
        (_, Particulars::Limiter(limiter)) => Some(&limiter.cgroup_path),
        (_, Particulars::Memory { limit: Some(l), .. }) => Some(&l.cgroup_path),
        (Cause::BlockQueue | Cause::BlockDevice, Particulars::Disk(disk)) => Some(&disk.name),
        (Cause::Runqueue, Particulars::Confined(_)) => None,
        // The host ran short of it: a story of all that live there.
        (Cause::Runqueue | Cause::Steal, _)
        | (Cause::MemoryReclaim | Cause::OomKill, Particulars::Memory { memcg: false, .. }) => {
            Some("")
        }
        _ => None,
    }
}

/// A service as these workloads run it: who sends spans in another's name has incidents of its own.
fn own(service: &str, workload: &Workload) -> String {
    let names = [
        &*workload.namespace,
        &*workload.owner,
        &*workload.container,
        &*workload.unit,
        &*workload.process,
        service,
    ];
    names.join("\u{1f}")
}

/// The incidents that may still go on.
#[derive(Debug, Default)]
pub struct Incidents {
    open: BTreeMap<Story, Open>,
}

#[derive(Debug)]
struct Open {
    name: String,
    start_unix_ns: u64,
    end_unix_ns: u64,
}

impl Incidents {
    /// The name of the incident that a span's verdict belongs to, e.g. `i-9f0c2b7d51e3a846`.
    pub fn note(&mut self, story: Story, start_unix_ns: u64, end_unix_ns: u64) -> String {
        if let Some(open) = self.open.get_mut(&story)
            && start_unix_ns <= open.end_unix_ns.saturating_add(WINDOW_NS)
            && end_unix_ns >= open.start_unix_ns.saturating_sub(WINDOW_NS)
        {
            open.start_unix_ns = open.start_unix_ns.min(start_unix_ns);
            open.end_unix_ns = open.end_unix_ns.max(end_unix_ns);
            return open.name.clone();
        }
        if self.open.len() >= MAX_OPEN && !self.open.contains_key(&story) {
            let oldest = self.open.iter().min_by_key(|(_, open)| open.end_unix_ns);
            if let Some(oldest) = oldest.map(|(story, _)| story.clone()) {
                self.open.remove(&oldest);
            }
        }
        let name = name(&story, start_unix_ns);
        let open = Open {
            name: name.clone(),
            start_unix_ns,
            end_unix_ns,
        };
        self.open.insert(story, open);
        name
    }
}

fn name(story: &Story, start_unix_ns: u64) -> String {
    let mut hasher = fnv::FnvHasher::default();
    for part in [story.cause.as_str(), story.fault.as_str(), &story.subject] {
        hasher.write(part.as_bytes());
        hasher.write_u8(0xff); // in no UTF-8: parts do not run into each other
    }
    hasher.write(&start_unix_ns.to_be_bytes());
    format!("i-{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests;

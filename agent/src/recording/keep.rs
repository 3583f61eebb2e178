//! A recording made small, and fit to be given away: as a report, or as a test that is kept.
//!
//! What is left out: kernel events that no span could be judged by; attributes of spans that the
//! agent does not read; span events, links, status messages. What is replaced: the node's name,
//! users' home directories. Names of services, operations, workloads, devices and cgroups stay,
//! as do addresses, ids and times: a verdict speaks of them.
//!
//! Whether the events left out mattered is not believed but tried: the small recording must give
//! the same splits and verdicts as the whole one, else all events are kept.

use std::{
    collections::{BTreeSet, hash_map::DefaultHasher},
    hash::{Hash as _, Hasher as _},
    io,
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
};
use prost::Message as _;

use super::{
    entry::{EndReason, Entry, judged},
    read::{ReadError, Reader, Step},
    replay::{feed, pipeline, replay},
    write::{Room, Writer, partial},
};
use crate::{
    event::Event,
    pipeline::thread::LOOKS_AROUND_NS,
    process::ProcessKey,
    span::{Joined, SpanBatch},
    stack::record::Names,
    verdict::Judgement,
};

/// Attributes that the agent reads begin with one of these.
const READ_ATTRIBUTES: &[&str] = &[
    "client.",
    "container.id",
    "host.name",
    "isostack.",
    "k8s.",
    "net.",
    "network.",
    "process.pid",
    "server.",
    "service.",
    "telemetry.sdk.language",
    "thread.",
];
/// Events this long before and after a span are kept too: the clocks are compared once a second.
const MARGIN_NS: u64 = 2_000_000_000;
/// Largest recording that is written.
const MAX_BYTES: u64 = 1 << 30;

/// Why a small recording could not be made.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The recording that it is made of.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The file that it is written to.
    #[error("{path} cannot be written: {source}")]
    Write {
        /// As named.
        path: String,
        /// The system's reason.
        source: io::Error,
    },
    /// It is too large all the same.
    #[error("what is to be kept is larger than {} MiB: record for a shorter time", MAX_BYTES >> 20)]
    TooLarge,
}

/// Writes a small recording `to` of the one in `from`, which may be the same file.
///
/// # Errors
/// See [`KeepError`].
pub fn keep(from: &Path, to: &Path, about: Option<&str>) -> Result<(), KeepError> {
    let whole = digest(from)?;
    let wanted = Wanted::of(&mut Reader::open(from)?)?;
    write(from, to, about, Some(&wanted))?;
    let small = partial(to);
    if digest(&small)? != whole {
        write(from, to, about, None)?;
    }
    let named = std::fs::rename(&small, to);
    named.map_err(|source| failed(to, source))
}

fn failed(path: &Path, source: io::Error) -> KeepError {
    KeepError::Write {
        path: path.display().to_string(),
        source,
    }
}

/// What came out, but for names.
fn digest(path: &Path) -> Result<u64, ReadError> {
    let mut hasher = DefaultHasher::new();
    replay(
        &mut Reader::open(path)?,
        &mut |_, judgements: &[Judgement]| {
            for judgement in judgements {
                let verdict = judgement.verdict.as_ref();
                let verdict =
                    verdict.map(|v| (v.fault, v.cause, v.share.to_bits(), v.culprit.is_empty()));
                let split = judgement.split.as_ref();
                let split = split.map(|s| (s.self_time_ns, &s.parts, s.downstream_ns));
                (verdict, split, judgement.joined.confidence).hash(&mut hasher);
            }
        },
    )?;
    Ok(hasher.finish())
}

/// The events that spans can be judged by: of their processes and cgroups, in their time.
struct Wanted {
    processes: BTreeSet<ProcessKey>,
    cgroups: BTreeSet<u64>,
    /// Monotonic, in order, disjoint.
    times: Vec<(u64, u64)>,
}

impl Wanted {
    fn of(reader: &mut Reader) -> Result<Self, ReadError> {
        let (mono, wall) = (reader.header().mono.0, reader.header().wall.0);
        let at = |unix_ns: u64| unix_ns.saturating_sub(wall).saturating_add(mono);
        let (mut processes, mut cgroups) = (BTreeSet::new(), BTreeSet::new());
        let mut times = Vec::new();
        loop {
            match reader.step()? {
                Step::Batch(batch) => {
                    let joined = batch
                        .resources
                        .iter()
                        .filter_map(|r| r.joined.identity.as_ref());
                    for identity in joined {
                        processes.insert(identity.process);
                        cgroups.insert(identity.cgroup_id);
                    }
                    times.extend(batch.spans.iter().map(|span| {
                        let from = at(span.start_unix_ns).saturating_sub(MARGIN_NS);
                        (from, at(span.end_unix_ns).saturating_add(MARGIN_NS))
                    }));
                }
                Step::End | Step::Cut => break,
                _ => {}
            }
        }
        times.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for (from, to) in times {
            match merged.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        Ok(Self {
            processes,
            cgroups,
            times: merged,
        })
    }

    fn wants(&self, event: &Event) -> bool {
        let (start, end, of_spans) = match event {
            Event::Delay(delay) => {
                let of_spans = self.processes.contains(&delay.process)
                    || self.cgroups.contains(&delay.cgroup_id);
                (delay.start.0, delay.end.0, of_spans)
            }
            Event::Turn(turn) => {
                let of_spans = self.processes.contains(&turn.process);
                (turn.read.0, turn.written.0, of_spans)
            }
            Event::Ask(ask) => {
                let of_spans = self.processes.contains(&ask.process);
                (ask.start.0, ask.end.0, of_spans)
            }
            Event::Away(away) => {
                let of_spans = self.processes.contains(&away.process);
                (away.start.0, away.end.0, of_spans)
            }
            Event::Steal(steal) => (steal.start.0, steal.end.0, steal.stolen_ns > 0),
            Event::Consumption(of) => (of.start.0, of.end.0, true),
            Event::Loss(loss) => (loss.start.0, loss.end.0, true),
            Event::Saving(saving) => (saving.start.0, saving.end.0, true),
        };
        // Who worked on a request shows shortly before and after it too.
        let (start, end) = (
            start.saturating_sub(LOOKS_AROUND_NS),
            end.saturating_add(LOOKS_AROUND_NS),
        );
        let next = self.times.partition_point(|(_, to)| *to < start);
        of_spans && self.times.get(next).is_some_and(|(from, _)| *from <= end)
    }
}

/// Writes the recording anew under the preliminary name.
fn write(
    from: &Path,
    to: &Path,
    about: Option<&str>,
    wanted: Option<&Wanted>,
) -> Result<(), KeepError> {
    let mut reader = Reader::open(from)?;
    let names = Names::of(&reader.header().node);
    let mut pipeline = pipeline(reader.header())?;
    let mut header = reader.header().clone();
    header.node = names.text(&header.node, "");
    if let Some(about) = about {
        header.about = about.to_owned();
    }
    let mut out = Out {
        writer: Writer::create_small(to, MAX_BYTES).map_err(|error| failed(to, error))?,
        path: to,
    };
    out.entry(Entry::Recording(Box::new(header)))?;
    loop {
        let mut step = reader.step()?;
        match &mut step {
            Step::Judged(_) => continue,
            Step::End | Step::Cut => break,
            Step::Events(_, events) => {
                events.retain(|event| wanted.is_none_or(|wanted| wanted.wants(event)));
                if events.is_empty() {
                    continue;
                }
                for event in events.iter_mut() {
                    *event = names.scrub(event).unwrap_or_else(|| event.clone());
                }
            }
            Step::Batch(batch) => **batch = scrubbed(batch, &names),
            _ => {}
        }
        out.step(&step)?;
        let mut judged_batches = Vec::new();
        feed(&mut pipeline, step, &mut |batch, judgements| {
            judged_batches.push(judged(&batch, &judgements));
        });
        for judged in judged_batches {
            out.entry(Entry::Judged(judged))?;
        }
    }
    let finished = out.writer.finish_unnamed(EndReason::Stopped);
    finished.map(|_| ()).map_err(|error| failed(to, error))
}

struct Out<'a> {
    writer: Writer,
    path: &'a Path,
}

impl Out<'_> {
    fn entry(&mut self, entry: Entry) -> Result<(), KeepError> {
        let written = self.writer.entry(&entry);
        self.written(written)
    }

    fn step(&mut self, step: &Step) -> Result<(), KeepError> {
        self.entry(match step {
            Step::Batch(batch) => {
                let joined = batch.resources.iter().map(|resource| &resource.joined);
                let written = self.writer.batch(batch.received, joined, &batch.payload);
                return self.written(written);
            }
            Step::Clock(mono, wall) => Entry::Clock {
                mono: *mono,
                wall: *wall,
            },
            Step::Events(now, events) => Entry::Events {
                now: *now,
                events: events.clone(),
            },
            Step::Settle(now) => Entry::Settle { now: *now },
            Step::Flush(now) => Entry::Flush { now: *now },
            Step::Lost(entries) => Entry::Lost { entries: *entries },
            Step::Judged(_) | Step::End | Step::Cut => return Ok(()),
        })
    }

    fn written(&self, written: io::Result<Room>) -> Result<(), KeepError> {
        match written {
            Ok(Room::Written) => Ok(()),
            Ok(Room::Full) => Err(KeepError::TooLarge),
            Err(error) => Err(failed(self.path, error)),
        }
    }
}

/// The batch without what the agent does not read.
fn scrubbed(batch: &SpanBatch, names: &Names) -> SpanBatch {
    let mut request = ExportTraceServiceRequest::decode(batch.payload.clone()).unwrap_or_default();
    for resource in &mut request.resource_spans {
        if let Some(resource) = &mut resource.resource {
            attributes(&mut resource.attributes, names);
        }
        for scope in &mut resource.scope_spans {
            if let Some(scope) = &mut scope.scope {
                scope.attributes.clear();
            }
            for span in &mut scope.spans {
                attributes(&mut span.attributes, names);
                span.name = names.text(&span.name, "");
                span.trace_state.clear();
                span.events.clear();
                span.links.clear();
                if let Some(status) = &mut span.status {
                    status.message.clear();
                }
            }
        }
    }
    let payload = Bytes::from(request.encode_to_vec());
    let Ok(mut smaller) = crate::otlp::view::parse(payload, batch.received) else {
        // What was encoded just now is a request.
        return SpanBatch {
            payload: Bytes::new(),
            received: batch.received,
            resources: Vec::new(),
            spans: Vec::new(),
            permit: None,
        };
    };
    for (smaller, whole) in smaller.resources.iter_mut().zip(&batch.resources) {
        let identity = whole.joined.identity.as_ref();
        smaller.joined = Joined {
            identity: identity.map(|identity| {
                names
                    .scrub(&**identity)
                    .map_or_else(|| Arc::clone(identity), Arc::new)
            }),
            confidence: whole.joined.confidence,
        };
    }
    smaller
}

fn attributes(attributes: &mut Vec<KeyValue>, names: &Names) {
    attributes.retain(|attribute| {
        READ_ATTRIBUTES
            .iter()
            .any(|prefix| attribute.key.starts_with(prefix))
    });
    for attribute in attributes {
        if let Some(Value::StringValue(text)) = attribute
            .value
            .as_mut()
            .and_then(|value| value.value.as_mut())
        {
            *text = names.text(text, "");
        }
    }
}

//! `isostack-agent replay FILE`.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
    process::ExitCode,
};

use serde_json::{Value, json};

use super::{complain, write_out};
use crate::{
    cli::{Output, recording::ReplayArgs},
    export::{
        store::keep as stored,
        view::{clip, verdict_json},
    },
    otlp::enrich::{EnrichOptions, enrich},
    pipeline::words::printable,
    recording::{
        entry::Judged,
        keep::{self, KeepError},
        read::{ReadError, Reader},
        replay::{Difference, Outcome, replay as run_again},
    },
    span::SpanBatch,
    verdict::Judgement,
};

/// Exit code for something else than was recorded.
const DIFFERS: u8 = 1;
/// Exit code for a file that cannot be replayed to its end.
const BROKEN: u8 = 2;

#[derive(Debug, thiserror::Error)]
enum ReplayError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the enriched spans cannot be written: {0}")]
    Otlp(io::Error),
    #[error(transparent)]
    Keep(#[from] KeepError),
}

/// Replays and leaves.
#[must_use]
pub fn replay(args: &ReplayArgs) -> ExitCode {
    let (outcome, verdicts) = match answer(args) {
        Ok(answer) => answer,
        Err(error) => {
            complain(&error);
            return BROKEN.into();
        }
    };
    for note in notes(&outcome, args.check) {
        complain(&note);
    }
    let same = !args.check || (outcome.is_same() && outcome.lost == 0);
    let text = match args.output {
        Output::Json => format!("{:#}", document(&outcome, &verdicts, args.check)),
        Output::Table => table(&outcome, &verdicts),
    };
    write_out(&text, if same { 0 } else { DIFFERS })
}

fn answer(args: &ReplayArgs) -> Result<(Outcome, VecDeque<Value>), ReplayError> {
    let mut reader = Reader::open(&args.file)?;
    let mut otlp = match &args.otlp {
        Some(path) => Some(Otlp::create(path, reader.header())?),
        None => None,
    };
    let mut verdicts = VecDeque::new();
    let mut failed = None;
    let outcome = run_again(&mut reader, &mut |batch, judgements| {
        for row in rows(batch, judgements) {
            if verdicts.len() == args.limit {
                verdicts.pop_back();
            }
            if args.limit > 0 {
                verdicts.push_front(row);
            }
        }
        if let Some(otlp) = &mut otlp
            && let Err(error) = otlp.write(batch, judgements)
        {
            failed.get_or_insert(error);
        }
    })?;
    if let Some(otlp) = otlp {
        failed = failed.or(otlp.finish().err());
    }
    if let Some(error) = failed {
        return Err(ReplayError::Otlp(error));
    }
    if let Some(to) = &args.keep {
        keep::keep(&args.file, to, args.about.as_deref())?;
    }
    Ok((outcome, verdicts))
}

/// The verdicts of a batch as `/api/v1/verdicts` has them.
fn rows<'a>(batch: &'a SpanBatch, judgements: &'a [Judgement]) -> impl Iterator<Item = Value> + 'a {
    let resources = batch.resources.iter();
    resources.flat_map(move |resource| {
        resource.spans.clone().filter_map(move |index| {
            let (span, judgement) = (batch.spans.get(index)?, judgements.get(index)?);
            judgement.verdict.as_ref()?;
            let name = batch.name(span);
            let span = stored(span, clip(&name), &resource.resource, judgement, None);
            verdict_json(&span, None)
        })
    })
}

fn notes(outcome: &Outcome, check: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if !outcome.complete {
        notes.push(
            "the recording has no end (the agent was killed, or the file cut): replayed as far \
             as it goes"
                .to_owned(),
        );
    }
    if outcome.lost > 0 {
        notes.push(format!(
            "the recording is incomplete: its writer lost {} entries, so verdicts may differ",
            outcome.lost
        ));
    }
    if check && outcome.differing > 0 {
        notes.push(format!(
            "{} of {} spans were judged otherwise than recorded",
            outcome.differing, outcome.compared
        ));
        notes.extend(outcome.differences.iter().map(difference));
    }
    if check && outcome.compared < outcome.spans {
        notes.push(format!(
            "of {} of {} spans the recording does not say how they were judged",
            outcome.spans - outcome.compared,
            outcome.spans
        ));
    }
    notes
}

fn difference(difference: &Difference) -> String {
    let id = |judged: &Judged| format!("span {} of trace {}", judged.span_id, judged.trace_id);
    let sides = [&difference.recorded, &difference.replayed];
    let id = sides
        .into_iter()
        .flatten()
        .next()
        .map_or_else(String::new, id);
    let text = |judged: &Option<Judged>| match judged {
        Some(judged) => printable_json(&json!(judged)),
        None => "nothing".to_owned(),
    };
    format!(
        "{}\n  recorded: {}\n  replayed: {}",
        printable(&id),
        text(&difference.recorded),
        text(&difference.replayed)
    )
}

/// JSON escapes most of what bends a terminal's output; the rest is taken out here.
fn printable_json(value: &Value) -> String {
    let text = value.to_string();
    let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(clean).collect()
}

fn document(outcome: &Outcome, verdicts: &VecDeque<Value>, check: bool) -> Value {
    let mut document = json!({
        "verdicts": verdicts,
        "spans": outcome.spans,
        "events": outcome.events,
        "complete": outcome.complete,
        "lost_entries": outcome.lost,
    });
    if check {
        document["compared"] = json!(outcome.compared);
        document["differing"] = json!(outcome.differing);
    }
    document
}

fn table(outcome: &Outcome, verdicts: &VecDeque<Value>) -> String {
    let mut text = format!(
        "{} spans, {} verdicts, {} kernel events\n",
        outcome.spans, outcome.verdicts, outcome.events
    );
    for row in verdicts {
        let word = |name: &str| printable(row[name].as_str().unwrap_or_default());
        let number = |name: &str| row[name].as_f64().unwrap_or_default();
        text += &format!(
            "\n{}  {} {}  {:.1} ms\n  {}\n",
            word("trace_id"),
            word("service"),
            word("operation"),
            number("duration_ms"),
            word("summary")
        );
        let culprit = word("culprit");
        text += &format!(
            "  {} {}, {:.0} % of the self time, join by {}{}\n",
            word("fault"),
            word("cause"),
            100.0 * number("share"),
            word("confidence"),
            if culprit.is_empty() {
                String::new()
            } else {
                format!(", culprit {culprit}")
            }
        );
    }
    text
}

/// The enriched requests, one JSON document a line: what the Collector's file exporter writes.
struct Otlp {
    out: BufWriter<File>,
    options: EnrichOptions,
}

impl Otlp {
    fn create(path: &Path, header: &crate::recording::Header) -> Result<Self, ReplayError> {
        let file = File::create(path).map_err(ReplayError::Otlp)?;
        Ok(Self {
            out: BufWriter::new(file),
            options: EnrichOptions {
                node: header.node.clone(),
                child_spans: header.child_spans,
            },
        })
    }

    fn write(&mut self, batch: &SpanBatch, judgements: &[Judgement]) -> io::Result<()> {
        use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
        use prost::Message as _;
        let message = enrich(batch, judgements, &self.options);
        let request = ExportTraceServiceRequest::decode(message).map_err(io::Error::other)?;
        serde_json::to_writer(&mut self.out, &request)?;
        self.out.write_all(b"\n")
    }

    fn finish(mut self) -> io::Result<()> {
        self.out.flush()
    }
}

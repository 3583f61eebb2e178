//! Judges a recording again, and compares with what came out when it was made.

use std::collections::VecDeque;

use super::{
    entry::{Header, Judged, judged},
    read::{ReadError, Reader, Step},
};
use crate::{
    metrics::AgentMetrics, pipeline::Pipeline, span::SpanBatch, time::WallClock, verdict::Judgement,
};

/// Differences that are told one by one.
const MAX_TOLD: usize = 20;

/// What a replay came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The recording has its last line.
    pub complete: bool,
    /// Entries that the recorder had lost.
    pub lost: u64,
    /// Kernel events.
    pub events: u64,
    /// Spans judged.
    pub spans: u64,
    /// Spans with a verdict.
    pub verdicts: u64,
    /// Spans compared with what was recorded.
    pub compared: u64,
    /// Spans of which something else came out.
    pub differing: u64,
    /// Of those, the first.
    pub differences: Vec<Difference>,
}

/// A span of which something else came out.
#[derive(Clone, Debug)]
pub struct Difference {
    /// What was recorded; none when the span was not there.
    pub recorded: Option<Judged>,
    /// What came out now, likewise.
    pub replayed: Option<Judged>,
}

impl Outcome {
    /// Whether the same came out for every span as was recorded.
    #[must_use]
    pub const fn is_same(&self) -> bool {
        self.differing == 0 && self.compared == self.spans
    }
}

/// Replays what is left of a recording. `out` is given each batch with its judgements.
///
/// # Errors
/// When the recording is broken; what came before was replayed.
pub fn replay(
    reader: &mut Reader,
    out: &mut dyn FnMut(&SpanBatch, &[Judgement]),
) -> Result<Outcome, ReadError> {
    let mut pipeline = pipeline(reader.header())?;
    let mut outcome = Outcome::default();
    // What came out and was not compared yet.
    let mut waiting: VecDeque<Vec<Judged>> = VecDeque::new();
    loop {
        let step = reader.step()?;
        if !matches!(step, Step::Judged(_)) {
            // Of these nothing was recorded.
            waiting.clear();
        }
        match step {
            Step::Judged(recorded) => {
                outcome.compare(recorded, waiting.pop_front().unwrap_or_default());
            }
            Step::Lost(entries) => outcome.lost += entries,
            Step::End => {
                outcome.complete = true;
                return Ok(outcome);
            }
            Step::Cut => return Ok(outcome),
            step => {
                if let Step::Events(_, events) = &step {
                    outcome.events += events.len() as u64;
                }
                feed(&mut pipeline, step, &mut |batch, judgements| {
                    outcome.spans += judgements.len() as u64;
                    let verdicts = judgements.iter().filter(|j| j.verdict.is_some());
                    outcome.verdicts += verdicts.count() as u64;
                    out(&batch, &judgements);
                    waiting.push_back(judged(&batch, &judgements));
                });
            }
        }
    }
}

/// The pipeline as it was when the recording began.
///
/// # Errors
/// When it asks for more memory than an agent takes.
pub(super) fn pipeline(header: &Header) -> Result<Pipeline, ReadError> {
    let config = header.pipeline.config().ok_or(ReadError::Settings)?;
    let clock = WallClock::new(header.mono, header.wall);
    Ok(Pipeline::new(config, clock, AgentMetrics::default()))
}

/// Gives the pipeline what it was given then.
pub(super) fn feed(
    pipeline: &mut Pipeline,
    step: Step,
    out: &mut impl FnMut(SpanBatch, Vec<Judgement>),
) {
    match step {
        Step::Clock(mono, wall) => {
            pipeline.sample_clock(mono, wall);
        }
        Step::Events(now, events) => {
            for event in &events {
                pipeline.on_event(event, now);
            }
        }
        Step::Batch(batch) => pipeline.on_batch(*batch),
        Step::Settle(now) => pipeline.settle(now, out),
        Step::Flush(now) => pipeline.flush(now, out),
        Step::Judged(_) | Step::Lost(_) | Step::End | Step::Cut => {}
    }
}

impl Outcome {
    fn compare(&mut self, recorded: Vec<Judged>, replayed: Vec<Judged>) {
        self.compared += replayed.len() as u64;
        let mut replayed = replayed.into_iter();
        let mut recorded = recorded.into_iter();
        loop {
            let (recorded, replayed) = (recorded.next(), replayed.next());
            if recorded.is_none() && replayed.is_none() {
                return;
            }
            if recorded != replayed {
                self.differing += 1;
                if self.differences.len() < MAX_TOLD {
                    self.differences.push(Difference { recorded, replayed });
                }
            }
        }
    }
}

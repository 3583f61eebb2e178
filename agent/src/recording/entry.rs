//! The lines of a recording.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    event::Event,
    pipeline::{PipelineConfig, timeline::TimelineConfig},
    process::{Identity, ProcessKey},
    span::SpanBatch,
    time::{MonoNs, UnixNs},
    verdict::{CauseInterval, Judgement, Split, Verdict},
    vocabulary::Confidence,
};

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// The first line, and only that.
    Recording(Box<Header>),
    /// A sample of both clocks.
    Clock {
        /// Monotonic.
        mono: MonoNs,
        /// Wall time of the same moment.
        wall: UnixNs,
    },
    /// Kernel events, attributed, in the order in which the pipeline took them.
    Events {
        /// When it took them.
        now: MonoNs,
        /// At most [`super::EVENTS_PER_LINE`].
        events: Vec<Event>,
    },
    /// Who is behind spans; batches refer to it by its slot until the slot is given anew.
    Identity {
        /// Below [`super::MAX_IDENTITIES`].
        slot: u32,
        /// What was known of the process.
        identity: Arc<Identity>,
    },
    /// Spans as they came.
    Batch {
        /// When the request was accepted.
        received: MonoNs,
        /// The join of each `ResourceSpans` of the request, in order.
        joined: Vec<JoinedTo>,
        /// The request message, in base64.
        payload: String,
    },
    /// The batches that were due were judged, and what was too old was forgotten.
    Settle {
        /// The present, for that.
        now: MonoNs,
    },
    /// All batches were judged whether due or not: the agent stopped.
    Flush {
        /// The present, for that.
        now: MonoNs,
    },
    /// What came out for the next batch of those that the last line had judged.
    Judged(Vec<Judged>),
    /// Entries that the recorder did not keep up with; from here on a replay may differ.
    Lost {
        /// How many.
        entries: u64,
    },
    /// The last line.
    End {
        /// Why.
        reason: EndReason,
    },
}

/// Why a recording ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The agent was stopped, or the time was over.
    Stopped,
    /// One more entry would have made the file larger than it may be.
    MaxSize,
}

/// A join of spans to a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinedTo {
    /// Slot of an [`Entry::Identity`]; none for nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<u32>,
    /// How it was found.
    pub confidence: Confidence,
}

/// What the recording is, and what the pipeline was told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// [`super::FORMAT`].
    pub format: String,
    /// [`super::VERSION`] of who wrote it.
    pub version: u32,
    /// Version of the agent that wrote it.
    pub agent: String,
    /// Kernel release.
    pub kernel: String,
    /// Name of the node.
    pub node: String,
    /// What it shows, in a person's words; empty when just recorded.
    #[serde(default)]
    pub about: String,
    /// Monotonic time at which the pipeline started.
    pub mono: MonoNs,
    /// Wall time of the same moment.
    pub wall: UnixNs,
    /// Whether enriched spans have child spans.
    pub child_spans: bool,
    /// What the pipeline was told.
    pub pipeline: Settings,
}

/// [`PipelineConfig`] as it is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// How long a batch waits, in nanoseconds.
    pub settle_ns: u64,
    /// Part of the self time from which a cause is named.
    pub share_threshold: f64,
    /// Times its usual time from which a cause is named.
    pub baseline_factor: f64,
    /// What the timeline keeps, in nanoseconds.
    pub window_ns: u64,
    /// Most intervals kept.
    pub max_intervals: usize,
    /// Most bytes that intervals take.
    pub max_bytes: usize,
    /// Most processes kept.
    pub max_processes: usize,
    /// Children kept.
    pub max_children: usize,
    /// Operations with a baseline.
    pub max_operations: usize,
    /// Batches that may wait at once.
    pub max_settling: usize,
}

/// Times this far from zero are nobody's: 146 years.
const LATEST_NS: u64 = 1 << 62;

impl From<&PipelineConfig> for Settings {
    fn from(config: &PipelineConfig) -> Self {
        let ns = |t: std::time::Duration| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX);
        Self {
            settle_ns: ns(config.settle),
            share_threshold: config.share_threshold,
            baseline_factor: config.baseline_factor,
            window_ns: ns(config.timeline.window),
            max_intervals: config.timeline.max_intervals,
            max_bytes: config.timeline.max_bytes,
            max_processes: config.timeline.max_processes,
            max_children: config.max_children,
            max_operations: config.max_operations,
            max_settling: config.max_settling,
        }
    }
}

impl Settings {
    /// What the pipeline is to be told; none when it would take more memory than an agent ever
    /// takes.
    #[must_use]
    pub fn config(&self) -> Option<PipelineConfig> {
        let most = PipelineConfig::default();
        let fits = self.max_intervals <= 4 * most.timeline.max_intervals
            && self.max_bytes <= 4 * most.timeline.max_bytes
            && self.max_processes <= 4 * most.timeline.max_processes
            && self.max_children <= 4 * most.max_children
            && self.max_operations <= 4 * most.max_operations
            && self.max_settling <= 4 * most.max_settling
            && self.settle_ns < LATEST_NS
            && self.window_ns < LATEST_NS;
        fits.then(|| PipelineConfig {
            settle: std::time::Duration::from_nanos(self.settle_ns),
            share_threshold: self.share_threshold,
            baseline_factor: self.baseline_factor,
            timeline: TimelineConfig {
                window: std::time::Duration::from_nanos(self.window_ns),
                max_intervals: self.max_intervals,
                max_bytes: self.max_bytes,
                max_processes: self.max_processes,
            },
            max_children: self.max_children,
            max_operations: self.max_operations,
            // It decides about no answer.
            baseline_seed: 0,
            max_settling: self.max_settling,
        })
    }
}

impl Entry {
    /// Whether the times at which it entered are such as clocks show.
    #[must_use]
    pub fn times_are_sane(&self) -> bool {
        let sane = |ns: u64| ns < LATEST_NS;
        match self {
            Self::Recording(header) => sane(header.mono.0) && sane(header.wall.0),
            Self::Clock { mono, wall } => sane(mono.0) && sane(wall.0),
            Self::Events { now, .. } | Self::Settle { now } | Self::Flush { now } => sane(now.0),
            Self::Batch { received, .. } => sane(received.0),
            Self::Identity { .. } | Self::Judged(_) | Self::Lost { .. } | Self::End { .. } => true,
        }
    }
}

/// What came out for one span: all of it, so that equal means equal to the last bit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// In hexadecimal.
    pub trace_id: String,
    /// In hexadecimal.
    pub span_id: String,
    /// The process that it was judged by.
    pub process: Option<ProcessKey>,
    /// How that was found.
    pub confidence: Confidence,
    /// The self time by cause; none for a span that could not be judged.
    pub split: Option<Split>,
    /// None for a healthy span.
    pub verdict: Option<Arc<Verdict>>,
    /// When time was lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub intervals: Vec<CauseInterval>,
}

/// What came out for a batch.
#[must_use]
pub fn judged(batch: &SpanBatch, judgements: &[Judgement]) -> Vec<Judged> {
    let spans = batch.spans.iter().zip(judgements);
    let judged = spans.map(|(span, judgement)| Judged {
        trace_id: hex(&span.trace_id),
        span_id: hex(&span.span_id),
        process: judgement.joined.identity.as_ref().map(|i| i.process),
        confidence: judgement.joined.confidence,
        split: judgement.split.clone(),
        verdict: judgement.verdict.clone(),
        intervals: judgement.intervals.clone(),
    });
    judged.collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

//! The agent's own health, `isostack_agent_*`: every received, refused, lost or late thing
//! is counted by exactly one of these. Shared by clone; registered by `export::prometheus`.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

/// One label `reason`, a fixed lower-case word.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// The word.
    pub reason: &'static str,
}

/// One label `sensor`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Sensor {
    /// The sensor's name.
    pub sensor: &'static str,
}

/// Encoding of an OTLP request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// gRPC.
    Grpc,
    /// HTTP with protobuf.
    HttpProtobuf,
    /// HTTP with JSON.
    HttpJson,
}

impl EncodeLabelValue for Encoding {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelValueEncoder,
    ) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(
            &match self {
                Self::Grpc => "grpc",
                Self::HttpProtobuf => "http/protobuf",
                Self::HttpJson => "http/json",
            },
            encoder,
        )
    }
}

/// One label `encoding`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Encoded {
    /// See [`Encoding`].
    pub encoding: Encoding,
}

/// One label `confidence`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Join {
    /// Word of [`crate::vocabulary::Confidence`].
    pub confidence: &'static str,
}

/// One label `program`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Program {
    /// The eBPF program's name.
    pub program: &'static str,
}

/// One label `map`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Map {
    /// The eBPF map's name.
    pub map: &'static str,
}

/// Labels of `isostack_log_matches_total`: the layer is that of the rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LogMatchLabels {
    /// The layer that the line speaks of.
    pub layer: &'static str,
    /// This node.
    pub node: String,
    /// Kubernetes namespace of the workload.
    pub namespace: String,
    /// Its pod.
    pub pod: String,
    /// Its container, unit or process.
    pub container: String,
    /// Its runtime.
    pub runtime: String,
    /// The rule.
    pub rule: &'static str,
}

/// Gauge of unsigned integers.
pub type Level = Gauge<i64>;

/// The agent's counters; cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct AgentMetrics {
    /// Kernel events decoded, by sensor.
    pub events: Family<Sensor, Counter>,
    /// Kernel events lost because the ring buffer was full, by sensor.
    pub events_lost: Family<Sensor, Counter>,
    /// Kernel events that came too late for a span or could not be kept, by reason.
    pub events_dropped: Family<Reason, Counter>,
    /// Spans accepted, by encoding.
    pub spans_received: Family<Encoded, Counter>,
    /// Spans in requests that were refused with a retryable answer, by reason.
    pub spans_refused: Family<Reason, Counter>,
    /// Requests that were malformed, by reason.
    pub requests_malformed: Family<Reason, Counter>,
    /// Spans joined to a process or container.
    pub spans_joined: Counter,
    /// Spans by the join used.
    pub joins: Family<Join, Counter>,
    /// Spans that could not be judged, by reason.
    pub spans_unjudged: Family<Reason, Counter>,
    /// Spans that downstream acknowledged.
    pub spans_forwarded: Counter,
    /// Spans given up, by reason (rejected by downstream, not delivered at stop).
    pub spans_lost: Family<Reason, Counter>,
    /// Requests of metrics and logs passed on.
    pub passed_through: Counter,
    /// Requests of metrics and logs given up, by reason (as `spans_lost`).
    pub passed_through_lost: Family<Reason, Counter>,
    /// Export attempts that failed and will be tried again, by reason.
    pub export_retries: Family<Reason, Counter>,
    /// Bytes of spans held (of the budget).
    pub held_bytes: Level,
    /// Requests waiting for downstream.
    pub forward_queue: Level,
    /// Batches waiting for their settle time.
    pub settling: Level,
    /// Delay intervals kept in the timeline.
    pub timeline_intervals: Level,
    /// Time that the eBPF programs ran, by the kernel's own count, which is on for a second
    /// every half minute.
    pub program_run_seconds: Family<Program, Counter<f64, AtomicU64>>,
    /// Part of a core that a sensor's programs took when last measured.
    pub sensor_cost: Family<Sensor, Gauge<f64, AtomicU64>>,
    /// Entries of the eBPF maps that can become full, 0..1.
    pub map_fill: Family<Map, Gauge<f64, AtomicU64>>,
    /// Processes whose identity is cached.
    pub identities: Level,
    /// Looks at `/proc` for an identity.
    pub identity_reads: Counter,
    /// Cgroups whose path was not kept because too many are known.
    pub cgroups_left_out: Counter,
    /// Pods whose names are known, those that are gone too.
    pub named_pods: Level,
    /// Pods whose names were not taken because too many are known.
    pub named_pods_refused: Counter,
    /// Clients of the event stream.
    pub stream_clients: Level,
    /// Clients of the event stream that were cut off because they did not keep up.
    pub stream_dropped: Counter,
    /// Connections to the HTTP port cut off because the client stopped reading.
    pub http_timeouts: Counter,
    /// Connections to the HTTP port refused because too many were open.
    pub http_refused: Counter,
    /// Log lines that speak of a layer.
    pub log_matches: Family<LogMatchLabels, Counter>,
    /// Times that log lines went unread, by reason.
    pub log_lines_lost: Family<Reason, Counter>,
    /// Requests of logs passed on without being classified, as another one was, or as their
    /// share of the processor was used up.
    pub log_requests_unclassified: Counter,
    /// Entries of a recording that are missing in it, as its writer did not keep up.
    pub recording_lost: Counter,
    /// Verdicts that were not asked for lines, as the reader of lines was writing.
    pub log_evidence_missed: Counter,
    /// Series left out because the cap was reached: refused when they were to be made, or
    /// left out of an answer to a scrape.
    pub series_overflow: Counter,
}

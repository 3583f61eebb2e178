//! The JSON shapes of the API, made when somebody asks. `deploy/openapi.yaml` describes
//! them; a test holds the two together.
//!
//! Nanoseconds since the epoch are strings: they exceed 2^53, so a JSON number would lose
//! digits in JavaScript (OTLP's own JSON does the same).

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use serde::Serialize;

use super::{LabelSource, incidents::Incident, lost::Lost, store::StoredSpan};
pub(crate) use crate::span::hex;
use crate::{
    forward::{self, SignalState},
    names::SourceView,
    pipeline::incident,
    process::Identity,
    span::kind_word,
    stack::{Stack, StackEntry},
    time::UnixNs,
    verdict::{CauseInterval, Split, Verdict},
    vocabulary::{Cause, Fault},
    workload::Workload,
};

/// `/api/v1/host`: the host, and how this agent runs on it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct HostView {
    /// Node name, as in `isostack.node`.
    pub node: String,
    /// Version of the agent.
    pub version: String,
    /// Kernel release, e.g. `6.18.44`.
    pub kernel: String,
    /// Machine architecture, e.g. `x86_64`.
    pub architecture: String,
    /// Logical CPUs.
    pub cpus: usize,
    /// Start of the agent, nanoseconds since the epoch, as a string.
    pub started_unix_nano: String,
    /// The addresses in use; free ports are filled in.
    pub listen: Listeners,
    /// Where what is received goes, one of each signal that goes anywhere, spans first; empty:
    /// spans are analysed and shown here only.
    pub downstream: Vec<Downstream>,
    /// Base address of a Jaeger page, for links from the page; empty for none.
    pub jaeger_url: String,
    /// The host's own isolation stack, innermost first.
    pub stack: Vec<StackEntry>,
    /// Who is asked for the names of workloads.
    pub names: NamesView,
}

/// Who is asked for the names of workloads, and how much they told.
#[derive(Clone, Debug, Default, Serialize)]
pub struct NamesView {
    /// Pods that run here.
    pub pods: usize,
    /// Pods that ran here a while ago and are still known.
    pub pods_gone: usize,
    /// Containers of both.
    pub containers: usize,
    /// Whom the agent asks.
    pub sources: Vec<SourceView>,
}

/// The addresses that the agent listens on.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Listeners {
    /// This page.
    pub http: String,
    /// OTLP over gRPC.
    pub otlp_grpc: String,
    /// OTLP over HTTP.
    pub otlp_http: String,
}

/// Where a signal is sent on to, and whether it is taken there.
#[derive(Clone, Debug, Serialize)]
pub struct Downstream {
    /// `traces`, `metrics` or `logs`.
    pub signal: &'static str,
    /// URL without credentials.
    pub endpoint: String,
    /// `grpc` or `http/protobuf`.
    pub protocol: &'static str,
    /// `idle`: nothing was sent yet; `connected`; `failing`: what was accepted is kept and tried
    /// again.
    pub state: &'static str,
    /// The first failure after the last success, nanoseconds since the epoch, as a string; empty
    /// unless it is failing.
    pub failing_since_unix_nano: String,
    /// The last failure; empty unless it is failing.
    pub reason: String,
    /// Requests that were accepted and are not yet acknowledged.
    pub queued_requests: usize,
}

impl From<SignalState> for Downstream {
    fn from(signal: SignalState) -> Self {
        let (state, since, reason) = match signal.health {
            forward::Health::Idle => ("idle", String::new(), String::new()),
            forward::Health::Connected => ("connected", String::new(), String::new()),
            forward::Health::Failing {
                since, last_error, ..
            } => ("failing", since.0.to_string(), last_error),
        };
        Self {
            signal: signal.signal,
            endpoint: signal.endpoint,
            protocol: signal.protocol,
            state,
            failing_since_unix_nano: since,
            reason,
            queued_requests: signal.queued_requests,
        }
    }
}

/// `/healthz`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Health {
    /// Tasks that ended although they should run; empty when all is well.
    pub failed: Vec<String>,
}

/// `/readyz`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Readiness {
    /// What is still missing, or that the agent is stopping; empty when ready.
    pub waiting_for: Vec<String>,
    /// What does not work although the agent does: a restart would not help.
    pub degraded: Vec<String>,
}

/// A span, as `/api/v1/spans` and the event stream show it.
#[derive(Debug, Serialize)]
pub struct SpanRow<'a> {
    trace_id: String,
    span_id: String,
    parent_span_id: String,
    service: &'a str,
    operation: &'a str,
    kind: &'static str,
    status: &'static str,
    start_unix_nano: String,
    duration_ms: f64,
    self_time_ms: Option<f64>,
    downstream_ms: Option<f64>,
    confidence: &'static str,
    thread: Option<u32>,
    layer: &'static str,
    stack: String,
    workload: String,
    split: BTreeMap<&'static str, f64>,
    intervals: Vec<IntervalView>,
    verdict: Option<&'a VerdictView<'a>>,
}

/// A row of `/api/v1/verdicts`: the span's fields and the verdict's side by side.
#[derive(Debug, Serialize)]
pub struct VerdictRow<'a> {
    #[serde(flatten)]
    span: SpanRow<'a>,
    #[serde(flatten)]
    answer: VerdictView<'a>,
}

/// A verdict without its span.
#[derive(Clone, Debug, Serialize)]
pub struct VerdictView<'a> {
    fault: Fault,
    cause: Cause,
    share: f64,
    culprit: &'a str,
    incident: &'a str,
    summary: &'a str,
    remedy: &'a str,
    evidence: BTreeMap<&'a str, f64>,
}

/// A stretch of a span's time; offsets from the span's start, so that no digit is lost.
#[derive(Debug, Serialize)]
pub struct IntervalView {
    fault: Fault,
    cause: Cause,
    start_ms: f64,
    end_ms: f64,
    cause_ms: f64,
}

impl<'a> VerdictView<'a> {
    /// Of a verdict.
    #[must_use]
    pub fn new(verdict: &'a Verdict) -> Self {
        let evidence = verdict.evidence.iter().map(|(k, v)| (&**k, finite(*v)));
        Self {
            fault: verdict.fault,
            cause: verdict.cause,
            share: finite(verdict.share),
            culprit: &verdict.culprit,
            incident: &verdict.incident,
            summary: &verdict.summary,
            remedy: &verdict.remedy,
            evidence: evidence.collect(),
        }
    }
}

impl<'a> SpanRow<'a> {
    /// Of a stored span; `verdict` is the view of its verdict, `names` knows late names.
    fn new(
        span: &'a StoredSpan,
        verdict: Option<&'a VerdictView<'a>>,
        names: Option<&LabelSource>,
    ) -> Self {
        let identity = span.joined.identity.as_deref();
        let split = span.split.as_ref();
        Self {
            trace_id: hex(&span.trace_id),
            span_id: hex(&span.span_id),
            parent_span_id: if span.parent_span_id == [0; 8] {
                String::new()
            } else {
                hex(&span.parent_span_id)
            },
            service: clip(&span.resource.service),
            operation: &span.operation,
            kind: kind_word(span.kind),
            status: status_word(span.status_code),
            start_unix_nano: span.start_unix_ns.to_string(),
            duration_ms: ms(span.end_unix_ns.saturating_sub(span.start_unix_ns)),
            self_time_ms: split.map(|s| ms(s.self_time_ns)),
            downstream_ms: split.map(|s| ms(s.downstream_ns)),
            confidence: span.joined.confidence.as_str(),
            thread: span.thread,
            layer: identity.map_or("", |i| i.stack.layer().as_str()),
            stack: identity.map_or_else(String::new, |i| i.stack.to_string()),
            workload: identity.map_or_else(String::new, |i| named(i, names).display_name()),
            split: split.map(split_ms).unwrap_or_default(),
            intervals: span.intervals.iter().map(|i| interval(span, i)).collect(),
            verdict,
        }
    }
}

/// What a process is called: names of a container may come after its span was joined, and
/// after its end.
pub(super) fn named<'a>(identity: &'a Identity, names: Option<&LabelSource>) -> Cow<'a, Workload> {
    let known = &identity.workload;
    let late = names
        .filter(|_| known.lacks_names())
        .and_then(|names| names(identity.cgroup_id))
        .map(|(_, workload)| workload)
        .filter(|late| late.container_id == known.container_id && late.pod_uid == known.pod_uid);
    match late {
        Some(late) => Cow::Owned(Workload {
            process: known.process.clone(),
            ..late
        }),
        None => Cow::Borrowed(known),
    }
}

/// The JSON of a span, as one document; `names` knows names that came late.
#[must_use]
pub fn span_json(span: &StoredSpan, names: Option<&LabelSource>) -> serde_json::Value {
    let view = span.verdict.as_deref().map(VerdictView::new);
    to_json(&SpanRow::new(span, view.as_ref(), names))
}

/// The JSON of a verdict row; `None` for a span without verdict.
#[must_use]
pub fn verdict_json(span: &StoredSpan, names: Option<&LabelSource>) -> Option<serde_json::Value> {
    let answer = VerdictView::new(span.verdict.as_deref()?);
    let mut row = to_json(&VerdictRow {
        span: SpanRow::new(span, None, names),
        answer,
    });
    // The row is the verdict: the span's own `verdict` field would say it twice.
    row.as_object_mut()?.remove("verdict");
    Some(row)
}

/// An incident, as `/api/v1/incidents` shows it.
#[derive(Debug, Serialize)]
pub struct IncidentRow<'a> {
    incident: &'a str,
    fault: Fault,
    cause: Cause,
    culprit: &'a str,
    start_unix_nano: String,
    last_seen_unix_nano: String,
    /// Empty while it may still go on.
    end_unix_nano: String,
    verdicts: u64,
    lost_ms: f64,
    services: Vec<AffectedService<'a>>,
    summary: &'a str,
    remedy: &'a str,
    trace_id: String,
    span_id: String,
    worst_ms: f64,
}

/// A service in an [`IncidentRow`].
#[derive(Debug, Serialize)]
pub struct AffectedService<'a> {
    service: &'a str,
    verdicts: u64,
    operations: Vec<&'a str>,
}

impl<'a> IncidentRow<'a> {
    /// Of an incident as seen at `now`.
    #[must_use]
    pub fn new(incident: &'a Incident, now: UnixNs) -> Self {
        let last = incident.last_unix_ns;
        let is_over = now.0 > last.saturating_add(incident::WINDOW_NS);
        let services = incident.services.iter();
        Self {
            incident: &incident.name,
            fault: incident.fault,
            cause: incident.cause,
            culprit: &incident.culprit,
            start_unix_nano: incident.start_unix_ns.to_string(),
            last_seen_unix_nano: last.to_string(),
            end_unix_nano: if is_over {
                last.to_string()
            } else {
                String::new()
            },
            verdicts: incident.verdicts,
            lost_ms: ms(incident.lost_ns),
            services: services
                .map(|(service, affected)| AffectedService {
                    service,
                    verdicts: affected.verdicts,
                    operations: affected.operations.iter().map(String::as_str).collect(),
                })
                .collect(),
            summary: &incident.worst.summary,
            remedy: &incident.worst.remedy,
            trace_id: hex(&incident.worst.trace_id),
            span_id: hex(&incident.worst.span_id),
            worst_ms: ms(incident.worst.lost_ns),
        }
    }
}

/// A workload that sent spans or was measured, as `/api/v1/workloads` shows it.
#[derive(Debug, Serialize)]
pub struct WorkloadRow {
    /// What to call it.
    pub name: String,
    /// Its names by kind.
    pub workload: Workload,
    /// Process id as the host sees it; 0 for a cgroup that sent no spans.
    pub pid: u32,
    /// Process name; empty for a cgroup that sent no spans.
    pub comm: String,
    /// Layer of its innermost stack entry.
    pub layer: &'static str,
    /// Its stack, innermost first.
    pub stack: Vec<StackEntry>,
    /// Its `service.name`s, at most eight.
    pub services: Vec<String>,
    /// Spans seen.
    pub spans: u64,
    /// Verdicts given.
    pub verdicts: u64,
    /// What its cgroup lost since the agent started.
    #[serde(flatten)]
    pub lost: Lost,
}

/// A delay interval of the kernel, as `/api/v1/events` shows it.
#[derive(Debug, Serialize)]
pub struct EventRow {
    /// The mechanism.
    pub cause: Cause,
    /// Wall time of its first nanosecond, as a string.
    pub start_unix_nano: String,
    /// Length.
    pub duration_ms: f64,
    /// Process id as the host sees it; 0 for a CPU's steal time.
    pub pid: u32,
    /// Thread id as the host sees it; 0 for a CPU's steal time.
    pub tid: u32,
    /// CPU on which it ended.
    pub cpu: u32,
    /// Cgroup of the thread; 0 for a CPU's steal time.
    pub cgroup_id: u64,
    /// What to call who lives there; empty while not known.
    pub workload: String,
    /// For `cpu_throttle`: path of the cgroup whose quota held it back; else empty.
    pub limiter: String,
}

/// Serialises a view: none has a map with other keys than strings or a fallible member.
pub(crate) fn to_json<T: Serialize>(value: &T) -> serde_json::Value {
    serde_json::to_value(value).expect("views hold strings, numbers and string-keyed maps only")
}

/// Milliseconds with the digits that nanoseconds have.
pub(crate) fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// Names from outside are shown up to this many bytes.
const MAX_NAME_BYTES: usize = 256;

/// At most 256 bytes of a name, cut between characters.
pub(crate) fn clip(name: &str) -> &str {
    &name[..name.floor_char_boundary(MAX_NAME_BYTES)]
}

/// JSON has no NaN and no infinity.
fn finite(v: f64) -> f64 {
    if v.is_finite() { v } else { 0.0 }
}

fn split_ms(split: &Split) -> BTreeMap<&'static str, f64> {
    let parts = split.parts.iter();
    parts.map(|(cause, ns)| (cause.as_str(), ms(*ns))).collect()
}

fn interval(span: &StoredSpan, i: &CauseInterval) -> IntervalView {
    IntervalView {
        fault: i.fault,
        cause: i.cause,
        start_ms: ms(i.start.0.saturating_sub(span.start_unix_ns)),
        end_ms: ms(i.end.0.saturating_sub(span.start_unix_ns)),
        cause_ms: ms(i.cause_ns),
    }
}

/// The `status` label and field: `ok`, `error`, `unset`.
pub(crate) fn status_word(code: i32) -> &'static str {
    match code {
        1 => "ok",
        2 => "error",
        _ => "unset",
    }
}

/// The row of a cgroup whose processes sent no spans.
pub(crate) fn measured_row(workload: Workload, stack: Stack) -> WorkloadRow {
    WorkloadRow {
        name: workload.display_name(),
        workload,
        pid: 0,
        comm: String::new(),
        layer: stack.layer().as_str(),
        stack: stack.0,
        services: Vec::new(),
        spans: 0,
        verdicts: 0,
        lost: Lost::default(),
    }
}

/// The row of a process that sent spans; `names` knows names that came late.
pub(crate) fn workload_row(seen: &super::store::SeenWorkload, names: &LabelSource) -> WorkloadRow {
    let identity = &seen.identity;
    let workload = named(identity, Some(names)).into_owned();
    WorkloadRow {
        name: workload.display_name(),
        workload,
        pid: identity.process.pid,
        comm: identity.comm.clone(),
        layer: identity.stack.layer().as_str(),
        stack: identity.stack.0.clone(),
        services: seen
            .services
            .iter()
            .map(|s: &Arc<str>| s.to_string())
            .collect(),
        spans: seen.spans,
        verdicts: seen.verdicts,
        lost: Lost::default(),
    }
}

//! A trace out of this agent's memory, localised.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    ExportSources, LabelSource,
    store::{KeptTrace, StoredSpan},
    view::named,
};
use crate::{
    span::TraceId,
    trace::{self, Answer, Report, Said, Stretch, TraceSpan},
};

/// `Status.STATUS_CODE_ERROR`.
const ERROR: i32 = 2;

/// What this node knows of a trace; none if no span of it is here.
pub(super) fn localise(sources: &ExportSources, trace_id: TraceId) -> Option<Report> {
    let KeptTrace {
        spans, left_out, ..
    } = sources.store.trace(trace_id);
    if spans.is_empty() {
        return None;
    }
    let node: Arc<str> = (sources.host)().node.into();
    let of = |span: &Arc<StoredSpan>| trace_span(span, &node, &sources.label);
    let mut report = trace::report(trace_id, spans.iter().map(of).collect());
    report.notes.push(format!(
        "these are the spans that came to the agent of {node}: services on other nodes send \
         theirs to others"
    ));
    if left_out > 0 {
        report.notes.push(format!(
            "{left_out} more spans came than are kept of one trace"
        ));
    }
    Some(report)
}

fn trace_span(span: &StoredSpan, node: &Arc<str>, names: &LabelSource) -> TraceSpan {
    let passed = span.passed.as_deref();
    let said = match passed {
        Some(passed) => passed.said.clone(),
        None => Some(Box::new(said(span, names))),
    };
    TraceSpan {
        span_id: span.span_id,
        parent_span_id: span.parent_span_id,
        service: span.resource.service.as_str().into(),
        operation: span.operation.clone(),
        kind: span.kind,
        is_error: span.status_code == ERROR,
        start_unix_ns: span.start_unix_ns,
        end_unix_ns: span.end_unix_ns,
        node: node_of(span, node),
        said,
        stretch: passed.and_then(|passed| passed.stretch.clone()),
    }
}

/// What this agent says of a span.
fn said(span: &StoredSpan, names: &LabelSource) -> Said {
    let identity = span.joined.identity.as_deref();
    let split = span.split.iter().flat_map(|split| &split.parts);
    let verdict = span.verdict.as_deref().map(|verdict| Answer {
        fault: verdict.fault,
        cause: verdict.cause,
        share: verdict.share,
        culprit: verdict.culprit.clone(),
        incident: verdict.incident.clone(),
        summary: verdict.summary.clone(),
        remedy: verdict.remedy.clone(),
        evidence: verdict.evidence.iter().cloned().collect(),
    });
    let stretches = span.intervals.iter().map(|interval| Stretch {
        fault: interval.fault,
        cause: interval.cause,
        start_unix_ns: interval.start.0,
        end_unix_ns: interval.end.0,
    });
    Said {
        layer: identity.map_or_else(String::new, |i| i.stack.layer().to_string()),
        stack: identity.map_or_else(String::new, |i| i.stack.to_string()),
        workload: identity.map_or_else(String::new, |i| named(i, Some(names)).display_name()),
        confidence: span.joined.confidence.to_string(),
        split: split.copied().collect::<BTreeMap<_, _>>(),
        stretches: stretches.collect(),
        verdict,
    }
}

/// A span whose process is here ran here; of others an agent upstream, or their resource, says
/// where.
fn node_of(span: &StoredSpan, node: &Arc<str>) -> Arc<str> {
    if let Some(passed) = span.passed.as_deref().filter(|p| !p.node.is_empty()) {
        return passed.node.as_str().into();
    }
    let resource = &span.resource;
    let stated = [&resource.node, &resource.host];
    match stated.into_iter().find(|name| !name.is_empty()) {
        Some(stated) if span.joined.identity.is_none() => stated.as_str().into(),
        _ => node.clone(),
    }
}

#[cfg(test)]
mod tests;

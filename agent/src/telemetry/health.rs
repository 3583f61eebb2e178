//! The health counters as instruments of OpenTelemetry, under their Prometheus names.
//!
//! A family does not give out its series but by encoding them; so each instrument has a
//! registry of its one metric, encodes that when it is asked, and reads the lines.

use opentelemetry::{KeyValue, metrics::Meter};
use prometheus_client::{
    encoding::text::encode,
    registry::{Metric, Registry},
};

use crate::metrics::AgentMetrics;

pub(super) fn observe(meter: &Meter, metrics: &AgentMetrics) {
    let m = metrics.clone();
    counter(meter, "events", m.events);
    counter(meter, "events_lost", m.events_lost);
    counter(meter, "events_dropped", m.events_dropped);
    counter(meter, "spans_received", m.spans_received);
    counter(meter, "spans_refused", m.spans_refused);
    counter(meter, "requests_malformed", m.requests_malformed);
    counter(meter, "spans_joined", m.spans_joined);
    counter(meter, "join", m.joins);
    counter(meter, "spans_unjudged", m.spans_unjudged);
    counter(meter, "spans_forwarded", m.spans_forwarded);
    counter(meter, "spans_lost", m.spans_lost);
    counter(meter, "passed_through", m.passed_through);
    counter(meter, "passed_through_lost", m.passed_through_lost);
    counter(meter, "export_retries", m.export_retries);
    gauge(meter, "held_bytes", m.held_bytes);
    gauge(meter, "forward_queue", m.forward_queue);
    gauge(meter, "settling", m.settling);
    gauge(meter, "timeline_intervals", m.timeline_intervals);
    gauge(meter, "identities", m.identities);
    gauge(meter, "named_pods", m.named_pods);
    counter(meter, "identity_reads", m.identity_reads);
    counter(meter, "cgroups_left_out", m.cgroups_left_out);
    counter(meter, "named_pods_refused", m.named_pods_refused);
}

fn counter(meter: &Meter, name: &'static str, metric: impl Metric) {
    let registry = alone(name, metric);
    let _ = meter
        .u64_observable_counter(format!("isostack_agent_{name}"))
        .with_callback(move |observer| {
            for (labels, value) in read(&registry) {
                if let Ok(value) = value.parse() {
                    observer.observe(value, &labels);
                }
            }
        })
        .build();
}

fn gauge(meter: &Meter, name: &'static str, metric: impl Metric) {
    let registry = alone(name, metric);
    let _ = meter
        .i64_observable_gauge(format!("isostack_agent_{name}"))
        .with_callback(move |observer| {
            for (labels, value) in read(&registry) {
                if let Ok(value) = value.parse() {
                    observer.observe(value, &labels);
                }
            }
        })
        .build();
}

fn alone(name: &str, metric: impl Metric) -> Registry {
    let mut registry = Registry::default();
    registry.register(name, "", metric);
    registry
}

/// The series of the only metric: labels and value.
fn read(registry: &Registry) -> Vec<(Vec<KeyValue>, String)> {
    let mut text = String::new();
    if encode(&mut text, registry).is_err() {
        return Vec::new();
    }
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((labels(series), value.to_owned()))
        })
        .collect()
}

/// Labels of a series. Their values are fixed words of the agent, without quotes or commas.
fn labels(series: &str) -> Vec<KeyValue> {
    let inside = series
        .split_once('{')
        .and_then(|(_, rest)| rest.strip_suffix('}'))
        .unwrap_or_default();
    inside
        .split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| KeyValue::new(key.to_owned(), value.trim_matches('"').to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Reason;

    #[test]
    fn every_series_is_read() {
        let metrics = AgentMetrics::default();
        let lost = &metrics.spans_lost;
        for (reason, count) in [("rejected", 3), ("stopped", 4)] {
            lost.get_or_create(&Reason { reason }).inc_by(count);
        }
        let mut series = read(&alone("spans_lost", metrics.spans_lost.clone()));
        series.sort_by(|a, b| a.1.cmp(&b.1));
        let expected = [("rejected", "3"), ("stopped", "4")]
            .map(|(reason, value)| (vec![KeyValue::new("reason", reason)], value.to_owned()));
        assert_eq!(series, expected);

        metrics.held_bytes.set(-1);
        let held = read(&alone("held_bytes", metrics.held_bytes.clone()));
        assert_eq!(held, [(Vec::new(), "-1".to_owned())]);
    }
}

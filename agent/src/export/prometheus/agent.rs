//! The agent's own health, `isostack_agent_*`.

use std::{fmt, time::Duration};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
    registry::{Registry, Unit},
};

use super::Source;
use crate::{
    metrics::{AgentMetrics, Encoded, Encoding, Join, Reason, Sensor},
    sensor::{SensorState, SensorStatus},
    vocabulary::Confidence,
};

/// Registers every counter of `metrics`, the sensors' states and the process's own use.
pub(super) fn register(r: &mut Registry, m: &AgentMetrics, sensors: Source<Vec<SensorStatus>>) {
    start_at_zero(m, &sensors());
    r.register(
        "isostack_log_matches",
        "Log lines that speak of an isolation layer",
        m.log_matches.clone(),
    );
    let r = r.sub_registry_with_prefix("isostack_agent");
    r.register("events", "Kernel events decoded", m.events.clone());
    r.register(
        "events_lost",
        "Kernel events lost in a full ring buffer",
        m.events_lost.clone(),
    );
    r.register(
        "events_dropped",
        "Kernel events not used, by reason",
        m.events_dropped.clone(),
    );
    r.register("spans_received", "Spans accepted", m.spans_received.clone());
    r.register(
        "spans_refused",
        "Spans refused for the sender to try again",
        m.spans_refused.clone(),
    );
    r.register(
        "requests_malformed",
        "Requests that could not be read",
        m.requests_malformed.clone(),
    );
    r.register(
        "spans_joined",
        "Spans joined to a process or container",
        m.spans_joined.clone(),
    );
    r.register("join", "Spans by the join that was used", m.joins.clone());
    r.register(
        "spans_unjudged",
        "Spans that could not be judged",
        m.spans_unjudged.clone(),
    );
    r.register(
        "spans_forwarded",
        "Spans that downstream acknowledged",
        m.spans_forwarded.clone(),
    );
    r.register(
        "spans_lost",
        "Spans given up, by reason",
        m.spans_lost.clone(),
    );
    r.register(
        "passed_through",
        "Requests of metrics and logs passed on",
        m.passed_through.clone(),
    );
    r.register(
        "passed_through_lost",
        "Requests of metrics and logs given up, by reason",
        m.passed_through_lost.clone(),
    );
    r.register(
        "log_lines_lost",
        "Times that log lines went unread, by reason",
        m.log_lines_lost.clone(),
    );
    r.register(
        "log_requests_unclassified",
        "Requests of logs passed on without being classified",
        m.log_requests_unclassified.clone(),
    );
    r.register(
        "log_evidence_missed",
        "Verdicts without a look for log lines, as these were just being written",
        m.log_evidence_missed.clone(),
    );
    r.register(
        "export_retries",
        "Exports that failed and are tried again",
        m.export_retries.clone(),
    );
    r.register_with_unit(
        "held",
        "Spans held in memory",
        Unit::Bytes,
        m.held_bytes.clone(),
    );
    r.register(
        "forward_queue",
        "Requests waiting for downstream",
        m.forward_queue.clone(),
    );
    r.register(
        "settling",
        "Batches waiting for late events",
        m.settling.clone(),
    );
    r.register(
        "timeline_intervals",
        "Delay intervals kept",
        m.timeline_intervals.clone(),
    );
    r.register_with_unit(
        "program_run",
        "Time that the eBPF programs ran while it was measured: for a second every half minute",
        Unit::Seconds,
        m.program_run_seconds.clone(),
    );
    r.register_with_unit(
        "sensor_cost",
        "Part of a core that a sensor's programs took when last measured",
        Unit::Ratios,
        m.sensor_cost.clone(),
    );
    r.register_with_unit(
        "map_fill",
        "Entries in the eBPF maps that can become full",
        Unit::Ratios,
        m.map_fill.clone(),
    );
    r.register(
        "identities",
        "Processes whose identity is cached",
        m.identities.clone(),
    );
    r.register(
        "identity_reads",
        "Looks at /proc for who a process is",
        m.identity_reads.clone(),
    );
    r.register(
        "cgroups_left_out",
        "Cgroups whose path was not kept because too many are known",
        m.cgroups_left_out.clone(),
    );
    r.register(
        "named_pods",
        "Pods whose names are known, those that are gone too",
        m.named_pods.clone(),
    );
    r.register(
        "named_pods_refused",
        "Pods whose names were not taken because too many are known",
        m.named_pods_refused.clone(),
    );
    r.register(
        "stream_clients",
        "Clients of the event stream",
        m.stream_clients.clone(),
    );
    r.register(
        "stream_dropped",
        "Stream clients that did not keep up",
        m.stream_dropped.clone(),
    );
    r.register(
        "http_timeouts",
        "HTTP clients that stopped reading",
        m.http_timeouts.clone(),
    );
    r.register(
        "http_refused",
        "HTTP connections refused, too many open",
        m.http_refused.clone(),
    );
    r.register(
        "recording_lost",
        "Entries missing in a recording",
        m.recording_lost.clone(),
    );
    r.register(
        "series_overflow",
        "Series left out by the cap",
        m.series_overflow.clone(),
    );
    r.register_collector(Box::new(Sensors(sensors)));
    r.register_collector(Box::new(Process));
}

/// Series whose labels are known beforehand exist from the start: a rate over a series that
/// begins at 7 does not see those seven.
fn start_at_zero(m: &AgentMetrics, sensors: &[SensorStatus]) {
    for encoding in [Encoding::Grpc, Encoding::HttpProtobuf, Encoding::HttpJson] {
        drop(m.spans_received.get_or_create(&Encoded { encoding }));
    }
    for reason in ["rejected", "too_large", "stopped"] {
        drop(m.spans_lost.get_or_create(&Reason { reason }));
        drop(m.passed_through_lost.get_or_create(&Reason { reason }));
    }
    for reason in ["busy", "stopping", "receiver_full"] {
        drop(m.spans_refused.get_or_create(&Reason { reason }));
    }
    for confidence in Confidence::ALL {
        let confidence = confidence.as_str();
        drop(m.joins.get_or_create(&Join { confidence }));
    }
    for status in sensors {
        let sensor = status.name;
        drop(m.events.get_or_create(&Sensor { sensor }));
        drop(m.events_lost.get_or_create(&Sensor { sensor }));
    }
}

/// `sensor_state{sensor,state}`: 1 for the state that holds, 0 for the two others.
struct Sensors(Source<Vec<SensorStatus>>);

impl fmt::Debug for Sensors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sensors").finish_non_exhaustive()
    }
}

impl Collector for Sensors {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Whether a sensor is on, reduced or off.";
        let mut family =
            encoder.encode_descriptor("sensor_state", help, None, MetricType::Gauge)?;
        let states = [
            (SensorState::On, "on"),
            (SensorState::Reduced, "reduced"),
            (SensorState::Off, "off"),
        ];
        for sensor in (self.0)() {
            for (state, word) in states {
                let labels = [("sensor", sensor.name), ("state", word)];
                let value = ConstGauge::new(i64::from(sensor.state == state));
                value.encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

/// Memory and processor time of this process, read when scraped.
#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(bytes) = resident_bytes() {
            let help = "Memory of the agent that is resident.";
            let unit = Unit::Bytes;
            let e = encoder.encode_descriptor("resident", help, Some(&unit), MetricType::Gauge)?;
            ConstGauge::new(bytes).encode(e)?;
        }
        let help = "Processor time of the agent.";
        let unit = Unit::Seconds;
        let mut e = encoder.encode_descriptor("cpu", help, Some(&unit), MetricType::Counter)?;
        let none: Option<&prometheus_client::metrics::exemplar::Exemplar<[(&str, &str); 0], f64>> =
            None;
        e.encode_counter(&cpu_time().as_secs_f64(), none)
    }
}

/// `VmRSS` of `/proc/self/status`, in kB there. The agent's own process always, so not below
/// `--procfs`.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

fn cpu_time() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(t.tv_sec.unsigned_abs(), t.tv_nsec.unsigned_abs() as u32)
}

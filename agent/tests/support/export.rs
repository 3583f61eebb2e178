//! Spans and judgements built through the real types, for the tests of the export part and
//! for looking at the page (`cargo run --example page_preview`).

use std::sync::Arc;

use bytes::Bytes;
use isostack_agent::{
    export::{
        Downstream, ExportSources, Exposition, Health, HostView, Listeners, NamesView,
        PrometheusConfig, Readiness, Store, StoreConfig, prometheus::SpanMetrics,
    },
    metrics::AgentMetrics,
    names::{SourceState, SourceView},
    process::{Identity, ProcessKey, SharedIdentity},
    sensor::{CgroupCpu, Counted, KernelHistogram, SensorState, SensorStatus},
    span::{Joined, Resource, ResourceSpans, SpanBatch, SpanView},
    stack::{Stack, StackEntry},
    time::{MonoNs, UnixNs},
    verdict::{CauseInterval, Judgement, Split, Verdict},
    vocabulary::{Cause, Confidence, Fault, Layer},
    workload::Workload,
};

pub const MS: u64 = 1_000_000;

/// One span to be.
#[derive(Clone)]
pub struct Plan {
    pub service: &'static str,
    pub operation: &'static str,
    pub seed: u64,
    pub start: u64,
    pub duration_ms: u64,
    pub downstream_ms: u64,
    pub error: bool,
    /// Self time by cause; the rest is `on_cpu`.
    pub parts: Vec<(Cause, u64)>,
    pub verdict: Option<(Cause, Fault, &'static str)>,
    pub identity: SharedIdentity,
}

pub fn entry(layer: Layer, technology: &str, evidence: &str) -> StackEntry {
    StackEntry {
        layer,
        technology: technology.into(),
        evidence: evidence.into(),
    }
}

pub fn host_stack() -> Vec<StackEntry> {
    vec![
        entry(
            Layer::Paravirtualisation,
            "virtio",
            "/sys/bus/virtio/devices: virtio0 (net), virtio1 (blk)",
        ),
        entry(
            Layer::FullVirtualisation,
            "kvm",
            "CPUID 0x40000000: KVMKVMKVM",
        ),
        entry(
            Layer::HardwareAssist,
            "svm",
            "/proc/cpuinfo flags: svm is masked, hypervisor set; vendor AuthenticAMD",
        ),
    ]
}

pub fn identity(cgroup_id: u64, namespace: &str, pod: &str, container: &str) -> SharedIdentity {
    let mut stack = vec![
        entry(
            Layer::Container,
            "runc",
            &format!("/proc/{cgroup_id}/cgroup: /kubepods/burstable/pod{pod}"),
        ),
        entry(
            Layer::Container,
            "containerd",
            "parent is containerd-shim-runc-v2",
        ),
    ];
    stack.extend(host_stack());
    Arc::new(Identity {
        process: ProcessKey {
            pid: cgroup_id as u32,
            start_ticks: 12,
        },
        comm: container.chars().take(15).collect(),
        cgroup_id,
        cgroup_path: format!("/kubepods/burstable/pod{pod}"),
        workload: Workload {
            namespace: namespace.into(),
            pod: pod.into(),
            container: container.into(),
            runtime: "containerd".into(),
            cgroup_id,
            ..Workload::default()
        },
        stack: Stack(stack),
    })
}

pub fn judged(plan: &Plan) -> (SpanView, Judgement) {
    let end = plan.start + plan.duration_ms * MS;
    let self_time_ns = (plan.duration_ms - plan.downstream_ms) * MS;
    let known: u64 = plan.parts.iter().map(|(_, ms)| ms * MS).sum();
    let mut parts: Vec<_> = plan.parts.iter().map(|(c, ms)| (*c, ms * MS)).collect();
    if self_time_ns > known {
        parts.push((Cause::OnCpu, self_time_ns - known));
    }
    let verdict = plan.verdict.map(|(cause, fault, culprit)| {
        let cause_ns = parts
            .iter()
            .find(|(c, _)| *c == cause)
            .map_or(0, |(_, ns)| *ns);
        let share = cause_ns as f64 / self_time_ns as f64;
        let cause_ms = cause_ns as f64 / 1e6;
        Arc::new(Verdict {
            fault,
            cause,
            share,
            culprit: culprit.into(),
            incident: format!("i-{cause}-{culprit}"),
            summary: format!(
                "{cause_ms:.0} ms of {} ms ({:.0} %) went to {cause} in {}.",
                self_time_ns / MS,
                share * 100.0,
                plan.identity.workload.display_name(),
            ),
            remedy: match cause {
                Cause::CpuThrottle => {
                    "Raise the CPU limit of the container above 0.2 CPUs, or drop it.".into()
                }
                _ => "Move the neighbour to other CPUs, or give this workload a larger weight."
                    .into(),
            },
            evidence: vec![
                (format!("{cause}_ms"), cause_ms),
                ("quota_cores".into(), 0.2),
                ("intervals".into(), 5.0),
            ],
        })
    });
    let view = SpanView {
        trace_id: (u128::from(plan.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64
            | u128::from(plan.seed))
        .to_be_bytes(),
        span_id: (plan.seed | 1 << 60).to_be_bytes(),
        start_unix_ns: plan.start,
        end_unix_ns: end,
        kind: 2,
        status_code: if plan.error { 2 } else { 0 },
        ..SpanView::default()
    };
    let intervals = verdict
        .as_ref()
        .map_or_else(Vec::new, |v| stretches(plan, v, &parts));
    let judgement = Judgement {
        thread: None,
        joined: Joined {
            identity: Some(plan.identity.clone()),
            confidence: Confidence::Process,
        },
        split: Some(Split {
            self_time_ns,
            parts: parts.into(),
            downstream_ns: plan.downstream_ms * MS,
        }),
        verdict,
        intervals,
    };
    (view, judgement)
}

/// The cause's time in up to five stretches, evenly through the span.
fn stretches(plan: &Plan, verdict: &Verdict, parts: &[(Cause, u64)]) -> Vec<CauseInterval> {
    let total = parts
        .iter()
        .find(|(c, _)| *c == verdict.cause)
        .map_or(0, |(_, ns)| *ns);
    let length = total / 5;
    let step = plan.duration_ms * MS / 5;
    let one = |i: u64| CauseInterval {
        cause: verdict.cause,
        fault: verdict.fault,
        start: UnixNs(plan.start + i * step + (step - length.min(step)) / 2),
        end: UnixNs(plan.start + i * step + (step - length.min(step)) / 2 + length),
        cause_ns: length,
    };
    (0..5).map(one).collect()
}

/// One batch, one resource for each plan.
pub fn batch(plans: &[Plan], received: MonoNs) -> (SpanBatch, Vec<Judgement>) {
    let mut payload = Vec::new();
    let mut spans = Vec::new();
    let mut resources = Vec::new();
    let mut judgements = Vec::new();
    for (i, plan) in plans.iter().enumerate() {
        let (mut view, judgement) = judged(plan);
        let from = payload.len() as u32;
        payload.extend_from_slice(plan.operation.as_bytes());
        view.name = from..payload.len() as u32;
        spans.push(view);
        resources.push(ResourceSpans {
            spans: i..i + 1,
            resource: Arc::new(Resource {
                service: plan.service.into(),
                ..Resource::default()
            }),
            joined: judgement.joined.clone(),
        });
        judgements.push(judgement);
    }
    let batch = SpanBatch {
        payload: Bytes::from(payload),
        received,
        resources,
        spans,
        permit: None,
    };
    (batch, judgements)
}

pub fn sensors() -> Vec<SensorStatus> {
    let on = |name, hook: &str| SensorStatus {
        name,
        state: SensorState::On,
        hook: hook.into(),
        reason: String::new(),
        loses: String::new(),
        fix: String::new(),
    };
    vec![
        on("cpu", "tp_btf/sched_switch"),
        SensorStatus {
            state: SensorState::Reduced,
            reason: "the kernel has no sock_recv_length tracepoint (6.12 and later do)".into(),
            loses: "the owner of sockets that only receive".into(),
            fix: "a kernel of 6.12 or later".into(),
            ..on("tcp", "tp_btf/tcp_rcv_space_adjust")
        },
        SensorStatus {
            state: SensorState::Off,
            hook: String::new(),
            reason: "not part of this build yet".into(),
            loses: "block device and io.max time".into(),
            fix: "a later version".into(),
            ..on("block", "")
        },
    ]
}

pub fn cgroup(id: u64, throttled: &[(usize, u64)], runqueue: &[(usize, u64)]) -> CgroupCpu {
    let histogram = |counts: &[(usize, u64)]| {
        let mut slots = vec![0; 26];
        let mut sum_ns = 0;
        for (slot, count) in counts {
            slots[*slot] += count;
            sum_ns += count * (3 << (8 + slot));
        }
        KernelHistogram { slots, sum_ns }
    };
    CgroupCpu {
        cgroup_id: id,
        throttled: histogram(throttled),
        runqueue: histogram(runqueue),
    }
}

/// Sources around a store, with two named cgroups (71 and 72).
pub fn sources(config: &PrometheusConfig, cgroups: Vec<CgroupCpu>) -> ExportSources {
    let metrics = AgentMetrics::default();
    let spans = Arc::new(SpanMetrics::new(config, &metrics));
    let all_sensors: isostack_agent::export::Source<_> = Arc::new(sensors);
    let store = Arc::new(Store::new(StoreConfig::default(), spans.clone()));
    let exposition = Arc::new(Exposition::new(
        config,
        &metrics,
        &spans,
        all_sensors.clone(),
    ));
    ExportSources {
        store,
        host: Arc::new(host),
        sensors: all_sensors,
        counted: Arc::new(move || Counted {
            cpu: cgroups.clone(),
            measured: Vec::new(),
        }),
        log_matches: Arc::new(|_| Vec::new()),
        label: Arc::new(|id| match id {
            71 => Some((
                Layer::Container,
                identity(71, "shop", "checkout-7d9f6c5b4-x2x9q", "checkout")
                    .workload
                    .clone(),
            )),
            72 => Some((
                Layer::Container,
                identity(72, "shop", "payment-5c8b77f6d-q8wzr", "payment")
                    .workload
                    .clone(),
            )),
            _ => None,
        }),
        stack: Arc::new(|_| Stack(host_stack())),
        exposition,
        metrics,
        health: Arc::new(Health::default),
        readiness: Arc::new(Readiness::default),
    }
}

fn host() -> HostView {
    HostView {
        node: "node-7".into(),
        version: "0.1.0".into(),
        kernel: "6.18.44".into(),
        architecture: "x86_64".into(),
        cpus: 8,
        started_unix_nano: UnixNs::now().0.to_string(),
        listen: Listeners {
            http: "127.0.0.1:9464".into(),
            otlp_grpc: "127.0.0.1:4317".into(),
            otlp_http: "127.0.0.1:4318".into(),
        },
        downstream: vec![Downstream {
            signal: "traces",
            endpoint: "http://jaeger:4317".into(),
            protocol: "grpc",
            state: "failing",
            failing_since_unix_nano: UnixNs::now().0.to_string(),
            reason: "connection refused".into(),
            queued_requests: 1,
        }],
        jaeger_url: "http://127.0.0.1:16686".into(),
        stack: host_stack(),
        names: NamesView {
            pods: 12,
            sources: vec![SourceView {
                source: "api",
                state: SourceState::Live,
                reason: String::new(),
                endpoint: "https://10.96.0.1:443/".into(),
            }],
            ..NamesView::default()
        },
    }
}

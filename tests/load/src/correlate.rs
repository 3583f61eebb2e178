//! The pipeline alone, on a clock of its own: kernel events and spans at set rates, as fast as
//! one core does it. What is measured is the pipeline's CPU time, not that of making its input.
//!
//! The model: services of several threads whose time is tiled by running, waiting for a CPU and
//! waiting for something; each sends spans of its requests, some with a child. Beside them
//! processes that send no spans and are heard of now and then.

use std::{fs, sync::Arc};

use anyhow::{Context as _, ensure};
use isostack_agent::{
    event::{Delay, Event, Neighbour, Particulars},
    metrics::AgentMetrics,
    otlp::view,
    pipeline::{Pipeline, PipelineConfig},
    process::{Identity, ProcessKey},
    span::{Joined, SpanBatch},
    stack::{Stack, StackEntry},
    time::{MonoNs, UnixNs, WallClock},
    vocabulary::{Cause, Confidence, Layer},
    workload::Workload,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message as _;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

/// What is asked for.
#[derive(clap::Args)]
pub struct CorrelateArgs {
    #[arg(long, default_value_t = 10_000)]
    spans_per_second: u64,
    #[arg(long, default_value_t = 50_000)]
    events_per_second: u64,
    /// Seconds of the model's clock.
    #[arg(long, default_value_t = 130)]
    seconds: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

const S: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;
/// One round of the model: events come in batches.
const ROUND_NS: u64 = 10 * MS;
const ROUNDS_PER_SECOND: u64 = S / ROUND_NS;
const SERVICES: u32 = 100;
const THREADS: u32 = 8;
const CPUS: u32 = 32;
/// Processes that send no spans; one event in [`QUIET_PART`] is theirs.
const QUIET: u32 = 2_000;
const QUIET_PART: u32 = 5;
/// Longest request; half of it on average.
const REQUEST_NS: u64 = 40 * MS;
const MONO: u64 = 1_000 * S;
const WALL: u64 = 1_795_334_400 * S;
/// When the cost of a span is looked at: that many seconds of events are kept then.
const LOOKS: [u64; 3] = [1, 10, 100];
const LOOK_SECONDS: u64 = 5;

/// Makes the input and times the pipeline.
pub fn run(args: &CorrelateArgs) -> anyhow::Result<Value> {
    ensure!(args.seconds >= 110, "--seconds must be 110 at least");
    let mut model = Model::new(args);
    let clock = WallClock::new(MonoNs(MONO), UnixNs(WALL));
    let metrics = AgentMetrics::default();
    let before = memory_mb()?;
    let mut pipeline = Pipeline::new(PipelineConfig::default(), clock, metrics.clone());
    let mut cost = Cost::default();
    let (mut spans, mut verdicts, mut highest) = (0u64, 0u64, 0f64);
    for round in 0..args.seconds * ROUNDS_PER_SECOND {
        let now = MonoNs(MONO + (round + 1) * ROUND_NS);
        let (events, batches) = model.round(now)?;
        let start = cpu_ns()?;
        for event in &events {
            pipeline.on_event(event, now);
        }
        let events_done = cpu_ns()?;
        for batch in batches {
            pipeline.on_batch(batch);
        }
        let mut judged_now = 0;
        pipeline.settle(now, &mut |_, judged| {
            judged_now += judged.len() as u64;
            verdicts += judged.iter().filter(|j| j.verdict.is_some()).count() as u64;
        });
        let spans_done = cpu_ns()?;
        spans += judged_now;
        let second = round / ROUNDS_PER_SECOND;
        cost.add(
            second,
            events_done - start,
            spans_done - events_done,
            judged_now,
        );
        if round % ROUNDS_PER_SECOND == 0 {
            pipeline.sample_clock(now, UnixNs(WALL + now.0 - MONO));
            highest = highest.max(memory_mb()?);
        }
    }
    let seconds = args.seconds as f64;
    let cores = |ns: u64| ns as f64 / S as f64 / seconds;
    Ok(json!({
        "events_cores": cores(cost.events_ns),
        "spans_cores": cores(cost.spans_ns),
        "memory_mb": highest - before,
        "intervals_kept": metrics.timeline_intervals.get(),
        "spans": spans,
        "verdicts": verdicts,
        "span_us_by_seconds_kept": cost.looks.map(|(ns, spans)| ns as f64 / 1e3 / spans.max(1) as f64),
    }))
}

/// CPU time of the pipeline.
#[derive(Default)]
struct Cost {
    events_ns: u64,
    spans_ns: u64,
    /// Of the seconds after each of [`LOOKS`]: nanoseconds and spans.
    looks: [(u64, u64); LOOKS.len()],
}

impl Cost {
    fn add(&mut self, second: u64, events_ns: u64, spans_ns: u64, spans: u64) {
        self.events_ns += events_ns;
        self.spans_ns += spans_ns;
        for (look, at) in self.looks.iter_mut().zip(LOOKS) {
            if (at..at + LOOK_SECONDS).contains(&second) {
                look.0 += spans_ns;
                look.1 += spans;
            }
        }
    }
}

/// Where a thread is in its time.
#[derive(Clone, Copy)]
struct Thread {
    at: u64,
    step: usize,
    cpu: u32,
}

struct Model {
    random: StdRng,
    identities: Vec<Arc<Identity>>,
    threads: Vec<Thread>,
    neighbours: Vec<Arc<Neighbour>>,
    events_per_round: u64,
    spans_per_round: u64,
    next: usize,
    next_id: u64,
}

impl Model {
    fn new(args: &CorrelateArgs) -> Self {
        let mut random = StdRng::seed_from_u64(args.seed);
        let threads = (0..SERVICES * THREADS).map(|_| Thread {
            at: MONO + random.random_range(0..ROUND_NS),
            step: 0,
            cpu: random.random_range(0..CPUS),
        });
        Self {
            threads: threads.collect(),
            random,
            identities: (0..SERVICES).map(|n| Arc::new(identity(n))).collect(),
            neighbours: (0..16)
                .map(|n| {
                    Arc::new(Neighbour {
                        cgroup_id: 9_000 + n,
                        cgroup_path: String::new(),
                        name: format!("neighbour-{n}"),
                    })
                })
                .collect(),
            events_per_round: args.events_per_second / ROUNDS_PER_SECOND,
            spans_per_round: args.spans_per_second / ROUNDS_PER_SECOND,
            next: 0,
            next_id: 1,
        }
    }

    /// What comes in by `now`.
    fn round(&mut self, now: MonoNs) -> anyhow::Result<(Vec<Event>, Vec<SpanBatch>)> {
        let events = (0..self.events_per_round).map(|_| Event::Delay(self.event(now)));
        let events = events.collect();
        // A batch of each of five services in turn: SDKs send many at once.
        const BATCHES: u64 = 5;
        let mut batches = Vec::new();
        for _ in 0..BATCHES {
            let service = self.random.random_range(0..SERVICES);
            batches.push(self.batch(service, self.spans_per_round / BATCHES, now)?);
        }
        Ok((events, batches))
    }

    fn event(&mut self, now: MonoNs) -> Delay {
        if self.random.random_range(0..QUIET_PART) == 0 {
            let pid = 500_000 + self.random.random_range(0..QUIET);
            let length = self.random.random_range(MS..30 * MS);
            let end = now.0 - self.random.random_range(0..ROUND_NS);
            return self.delay(Cause::Runqueue, pid, pid, end - length, end, 1);
        }
        // The services' threads in turn, each from where it was.
        const STEPS: [Cause; 4] = [
            Cause::OnCpu,
            Cause::SocketWait,
            Cause::Runqueue,
            Cause::OnCpu,
        ];
        let of_each = u64::from(SERVICES * THREADS) * S
            / (self.events_per_round * ROUNDS_PER_SECOND * 4 / 5).max(1);
        let at = self.next % self.threads.len();
        self.next += 1;
        let thread = self.threads[at];
        let length = self.random.random_range(of_each / 8..of_each * 15 / 8);
        // Those that are late catch up: the model's clock goes on.
        let start = thread.at.max(now.0 - 3 * ROUND_NS);
        let end = (start + length).min(now.0);
        let start = start.min(end.saturating_sub(1_000));
        let cause = STEPS[thread.step % STEPS.len()];
        let cpu = match self.random.random_range(0..50) {
            0 => self.random.random_range(0..CPUS),
            _ => thread.cpu,
        };
        self.threads[at] = Thread {
            at: end,
            step: thread.step + 1,
            cpu,
        };
        let pid = 1_000 + at as u32 / THREADS * 100;
        self.delay(cause, pid, pid + at as u32 % THREADS, start, end, cpu)
    }

    fn delay(&mut self, cause: Cause, pid: u32, tid: u32, start: u64, end: u64, cpu: u32) -> Delay {
        let particulars = match cause {
            Cause::Runqueue => {
                let which = self.random.random_range(0..self.neighbours.len());
                Particulars::Neighbour(Arc::clone(&self.neighbours[which]))
            }
            _ => Particulars::None,
        };
        Delay {
            cause,
            start: MonoNs(start),
            end: MonoNs(end),
            process: process(pid),
            tid,
            cpu,
            cgroup_id: u64::from(pid),
            particulars,
        }
    }

    fn batch(&mut self, service: u32, count: u64, now: MonoNs) -> anyhow::Result<SpanBatch> {
        let unix = |mono: u64| WALL + mono - MONO;
        let mut spans = Vec::new();
        while (spans.len() as u64) < count {
            let (id, length) = (self.next_id, self.random.random_range(MS..REQUEST_NS));
            self.next_id += 2;
            let end = (now.0 - self.random.random_range(0..200 * MS)).max(MONO + length);
            let start = end - length;
            let span = |id: u64, parent: u64, start: u64, end: u64| Span {
                trace_id: u128::from(id | 1).to_be_bytes().to_vec(),
                span_id: id.to_be_bytes().to_vec(),
                parent_span_id: match parent {
                    0 => Vec::new(),
                    parent => parent.to_be_bytes().to_vec(),
                },
                name: format!("GET /operation/{}", id / 2 % 20),
                kind: 2,
                start_time_unix_nano: unix(start),
                end_time_unix_nano: unix(end),
                attributes: vec![
                    text("http.request.method", "GET"),
                    text("url.path", "/cart/17"),
                ],
                ..Span::default()
            };
            spans.push(span(id, 0, start, end));
            // Every second one called somebody.
            let child = Span {
                trace_id: u128::from(id | 1).to_be_bytes().to_vec(),
                ..span(id + 1, id, start + length / 4, end - length / 4)
            };
            spans.push(child);
        }
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(Resource {
                    attributes: vec![text("service.name", &format!("service-{service}"))],
                    ..Resource::default()
                }),
                scope_spans: vec![ScopeSpans {
                    spans,
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        };
        let mut batch = view::parse(request.encode_to_vec().into(), now)?;
        batch.resources[0].joined = Joined {
            identity: Some(Arc::clone(&self.identities[service as usize])),
            confidence: Confidence::Process,
        };
        Ok(batch)
    }
}

fn process(pid: u32) -> ProcessKey {
    ProcessKey {
        pid,
        start_ticks: 7,
    }
}

fn identity(service: u32) -> Identity {
    let pid = 1_000 + service * 100;
    Identity {
        process: process(pid),
        comm: format!("service-{service}"),
        cgroup_id: u64::from(pid),
        cgroup_path: format!("/services/{service}"),
        workload: Workload {
            container: format!("service-{service}"),
            ..Workload::default()
        },
        stack: Stack(vec![StackEntry {
            layer: Layer::Container,
            technology: "runc".to_owned(),
            evidence: String::new(),
        }]),
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(any_value::Value::StringValue(value.to_owned())),
        }),
        ..KeyValue::default()
    }
}

/// CPU time of this thread.
fn cpu_ns() -> anyhow::Result<u64> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Ok(u64::try_from(time.tv_sec)? * S + u64::try_from(time.tv_nsec)?)
}

/// Resident memory, in megabytes (10^6 bytes).
fn memory_mb() -> anyhow::Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.context("no VmRSS")?.parse::<f64>()? * 1024.0 / 1e6)
}

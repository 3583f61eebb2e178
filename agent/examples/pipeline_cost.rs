//! What the pipeline costs: nanoseconds of one core per span and per event, printed.
//!
//! `cargo run --release -p isostack-agent --example pipeline_cost`. A measurement, not a
//! test: it asserts nothing about time.

use std::sync::Arc;

use bytes::Bytes;
use isostack_agent::{
    event::{Delay, Event, Particulars},
    metrics::AgentMetrics,
    pipeline::{Pipeline, PipelineConfig},
    process::{Identity, ProcessKey},
    span::{Joined, Resource, ResourceSpans, SpanBatch, SpanView},
    stack::Stack,
    time::{MonoNs, UnixNs, WallClock},
    vocabulary::{Cause, Confidence},
    workload::Workload,
};

const MS: u64 = 1_000_000;
const S: u64 = 1_000 * MS;
const MONO: u64 = 10_000 * S;
const WALL: u64 = 1_795_334_400 * S;
/// Spans of a batch and batches of a run, as an SDK sends them.
const SPANS: u64 = 512;
const BATCHES: u64 = 2_000;
const PROCESS: ProcessKey = ProcessKey {
    pid: 4_711,
    start_ticks: 99,
};

fn main() {
    println!("case                                    ns/span");
    for (case, children, delays_per_span) in [
        ("healthy, no parent, no events", false, 0),
        ("healthy, one child, no events", true, 0),
        ("healthy, one child, 2 short delays", true, 2),
        ("with a verdict, 8 long delays", true, 8),
    ] {
        println!("{case:38} {:8.0}", spans(children, delays_per_span));
    }
    println!("one event into the timeline            {:8.0}", events());
}

/// Average over all batches, in nanoseconds per span; making the batches is not counted.
fn spans(children: bool, delays_per_span: u64) -> f64 {
    let mut pipeline = pipeline();
    let joined = joined();
    let resource = Arc::new(Resource {
        service: "shop".into(),
        ..Resource::default()
    });
    let mut spent = 0;
    let mut judged = 0;
    for n in 0..BATCHES {
        // 20 ms spans, one after the other: 512 take 10.24 s.
        let from = n * SPANS * 20 * MS;
        let now = MonoNs(MONO + from + SPANS * 20 * MS);
        for span in 0..SPANS {
            for k in 0..delays_per_span {
                // Of 8, 80 % of the time; of 2, a healthy 1 %.
                let length = if delays_per_span > 4 { 2 * MS } else { MS / 10 };
                let start = MONO + from + span * 20 * MS + k * 2_500_000;
                pipeline.on_event(&delay(start, start + length), now);
            }
        }
        let spans: Vec<_> = (0..SPANS)
            .map(|k| span(n * SPANS + k, from, k, children))
            .collect();
        let batch = SpanBatch {
            payload: Bytes::from_static(b"GET /cart"),
            received: now,
            resources: vec![ResourceSpans {
                spans: 0..spans.len(),
                resource: Arc::clone(&resource),
                joined: joined.clone(),
            }],
            spans,
            permit: None,
        };
        let began = cpu_ns();
        pipeline.on_batch(batch);
        pipeline.settle(MonoNs(now.0 + 500 * MS), &mut |_, judgements| {
            judged += judgements.len()
        });
        spent += cpu_ns() - began;
    }
    assert_eq!(judged as u64, SPANS * BATCHES);
    spent as f64 / judged as f64
}

fn events() -> f64 {
    const EVENTS: u64 = 4_000_000;
    let mut pipeline = pipeline();
    let began = cpu_ns();
    for n in 0..EVENTS {
        // 50 000 a second, of 200 processes.
        let end = MONO + n * 20_000;
        let Event::Delay(mut delay) = delay(end - MS, end) else {
            continue;
        };
        delay.process.pid += (n % 200) as u32;
        pipeline.on_event(&Event::Delay(delay), MonoNs(end));
    }
    (cpu_ns() - began) as f64 / EVENTS as f64
}

/// CPU time of this thread: what else runs on the machine does not count.
fn cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as u64 * S + time.tv_nsec as u64
}

fn pipeline() -> Pipeline {
    let clock = WallClock::new(MonoNs(MONO), UnixNs(WALL));
    Pipeline::new(PipelineConfig::default(), clock, AgentMetrics::default())
}

fn joined() -> Joined {
    let identity = Identity {
        process: PROCESS,
        comm: "cart".into(),
        cgroup_id: 70,
        cgroup_path: "/shop/cart".into(),
        workload: Workload {
            container: "cart".into(),
            ..Workload::default()
        },
        stack: Stack::default(),
    };
    Joined {
        identity: Some(Arc::new(identity)),
        confidence: Confidence::Process,
    }
}

fn delay(start: u64, end: u64) -> Event {
    Event::Delay(Delay {
        cause: Cause::CpuThrottle,
        start: MonoNs(start),
        end: MonoNs(end),
        process: PROCESS,
        tid: PROCESS.pid,
        cpu: 0,
        cgroup_id: 70,
        particulars: Particulars::None,
    })
}

fn span(id: u64, from: u64, k: u64, child: bool) -> SpanView {
    let start_unix_ns = WALL + from + k * 20 * MS;
    let mut trace_id = [1; 16];
    // Pairs: an even span is the parent of the odd one after it.
    trace_id[..8].copy_from_slice(&(id / 2).to_le_bytes());
    let is_child = child && id % 2 == 1;
    SpanView {
        trace_id,
        span_id: (id + 1).to_be_bytes(),
        parent_span_id: if is_child { id.to_be_bytes() } else { [0; 8] },
        start_unix_ns,
        end_unix_ns: start_unix_ns + 20 * MS,
        kind: 2,
        name: 0..9,
        ..SpanView::default()
    }
}

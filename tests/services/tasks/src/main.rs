//! Works on many requests at once on few threads, and publishes for each thread which span it
//! works on, as OpenTelemetry's thread context (OTEP 4947).
//!
//! Says of each span how long it was held up by its own measure, one line of JSON each: what
//! its thread did not run while it was at work on it.

mod published;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Parser;
use opentelemetry::{
    Context, KeyValue,
    trace::{SpanKind, TraceContextExt as _, Tracer as _, TracerProvider as _},
};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{
    Resource,
    trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracer, SdkTracerProvider},
};
use published::{HeldUp, Published};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

/// Many requests on few threads, published as OpenTelemetry thread contexts.
#[derive(Debug, Parser)]
struct Arguments {
    /// Threads that work on requests.
    #[arg(long, default_value_t = 3)]
    threads: usize,
    /// Requests at once.
    #[arg(long, default_value_t = 64)]
    requests: usize,
    /// Seconds until it ends.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// CPU time of each of a request's three parts, in milliseconds.
    #[arg(long, default_value_t = 2)]
    work_ms: u64,
    /// Publish nothing: for comparison.
    #[arg(long)]
    silent: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(arguments.threads)
        .enable_all()
        .build()
        .context("cannot start threads")?;
    runtime.block_on(serve(Arc::new(arguments)))
}

async fn serve(arguments: Arc<Arguments>) -> anyhow::Result<()> {
    let provider = telemetry()?;
    let tracer = provider.tracer("tasks");
    println!("started");
    let end = Instant::now() + Duration::from_secs(arguments.seconds);
    let requests: Vec<_> = (0..arguments.requests)
        .map(|_| {
            let (tracer, arguments) = (tracer.clone(), Arc::clone(&arguments));
            tokio::spawn(async move {
                let mut answered = 0_u64;
                while Instant::now() < end {
                    request(&tracer, &arguments).await;
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    let mut answered = 0;
    for request in requests {
        answered += request.await?;
    }
    println!("answered {answered}");
    tokio::task::spawn_blocking(move || provider.shutdown()).await??;
    Ok(())
}

/// One request: three parts, the second in a span of its own, each with a wait behind it.
async fn request(tracer: &SdkTracer, arguments: &Arguments) {
    let server = tracer
        .span_builder("GET /task")
        .with_kind(SpanKind::Server)
        .start_with_context(tracer, &Context::new());
    let server = Context::new().with_span(server);
    let held_up = Arc::new(HeldUp::default());
    part(&server, arguments, &held_up).await;
    {
        let inner = tracer.start_with_context("look up", &server);
        let inner = server.with_span(inner);
        let held_up = Arc::new(HeldUp::default());
        part(&inner, arguments, &held_up).await;
        tell(&inner, &held_up);
    }
    part(&server, arguments, &held_up).await;
    tell(&server, &held_up);
}

/// Works in the span for a while, then waits for nothing in particular.
async fn part(span: &Context, arguments: &Arguments, held_up: &Arc<HeldUp>) {
    let work = Duration::from_millis(arguments.work_ms);
    let work = async move {
        let until = cpu_time() + work;
        while cpu_time() < until {
            std::hint::spin_loop();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let span = (!arguments.silent).then(|| span.span().span_context().clone());
    Published::new(work, span, Arc::clone(held_up)).await;
}

fn tell(span: &Context, held_up: &HeldUp) {
    span.span().end();
    let id = span.span().span_context().span_id().to_string();
    let us = |sum: &AtomicU64| sum.load(Ordering::Relaxed) / 1_000;
    let (least_us, most_us) = (us(&held_up.least), us(&held_up.most));
    println!(
        "{}",
        json!({ "span_id": id, "least_us": least_us, "most_us": most_us })
    );
}

/// Processor time of this thread.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.try_into().unwrap_or_default()
}

fn telemetry() -> anyhow::Result<SdkTracerProvider> {
    let exporter = SpanExporter::builder()
        .with_tonic()
        .build()
        .context("cannot set up the OTLP exporter: check OTEL_EXPORTER_OTLP_ENDPOINT")?;
    let batch = BatchConfigBuilder::default()
        .with_scheduled_delay(Duration::from_millis(200))
        .with_max_queue_size(1 << 16)
        .build();
    let resource = Resource::builder()
        .with_attribute(KeyValue::new("process.pid", i64::from(std::process::id())));
    Ok(SdkTracerProvider::builder()
        .with_span_processor(
            BatchSpanProcessor::builder(exporter)
                .with_batch_config(batch)
                .build(),
        )
        .with_resource(resource.build())
        .build())
}

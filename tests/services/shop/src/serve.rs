//! The service: `GET /checkout` prices a basket (CPU), reserves the goods (waits a
//! little) and renders the answer (CPU).

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use anyhow::Context as _;
use axum::{
    Json, Router,
    extract::{ConnectInfo, Query},
    http::HeaderMap,
    routing::get,
};
use opentelemetry::{
    Context, KeyValue, global,
    trace::{SpanKind, TraceContextExt as _, Tracer as _},
};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use crate::{telemetry, work};

/// Flags of `shop serve`.
#[derive(clap::Args)]
pub struct Args {
    /// Where to listen; port 0 picks a free one, which is printed.
    #[arg(long, env = "SHOP_LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// How long finished spans are collected before they are sent, in milliseconds.
    #[arg(long, default_value_t = 100)]
    batch_ms: u64,
}

#[derive(Deserialize)]
struct Basket {
    /// CPU time the request takes, in milliseconds.
    #[serde(default = "default_work_ms")]
    work_ms: u64,
    /// How long the reservation waits, in milliseconds.
    #[serde(default = "default_reserve_ms")]
    reserve_ms: u64,
}

const fn default_work_ms() -> u64 {
    20
}

const fn default_reserve_ms() -> u64 {
    2
}

#[derive(Serialize)]
struct Receipt {
    trace_id: String,
    total: u64,
}

/// Serves until SIGTERM or SIGINT, then sends the remaining spans.
///
/// # Errors
/// When the address cannot be listened on or the exporter cannot be set up.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let provider = {
        let _inside = runtime.enter();
        telemetry::start(Duration::from_millis(args.batch_ms))?
    };
    runtime.block_on(serve(args.listen))?;
    provider
        .shutdown()
        .context("the last spans could not be sent")
}

async fn serve(listen: SocketAddr) -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = tokio::net::TcpListener::bind(listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {listen}"))?;
    println!("listening {}", listener.local_addr()?);
    let app = Router::new()
        .route("/checkout", get(checkout))
        .route("/healthz", get(|| async { "ok" }));
    axum::serve(
        listener,
        app.into_make_service_with_connect_info::<SocketAddr>(),
    )
    .with_graceful_shutdown(async move {
        tokio::select! { _ = term.recv() => (), _ = interrupt.recv() => () }
    })
    .await?;
    Ok(())
}

async fn checkout(
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Query(basket): Query<Basket>,
) -> Json<Receipt> {
    let tracer = global::tracer("shop");
    let span = tracer
        .span_builder("GET /checkout")
        .with_kind(SpanKind::Server)
        .with_attributes([
            KeyValue::new("http.request.method", "GET"),
            KeyValue::new("http.route", "/checkout"),
            KeyValue::new("url.path", "/checkout"),
            KeyValue::new("url.scheme", "http"),
            KeyValue::new("client.address", client.ip().to_string()),
            KeyValue::new("client.port", i64::from(client.port())),
        ])
        .start_with_context(&tracer, &caller(&headers));
    let context = Context::current_with_span(span);
    let answer = async move {
        let work = Duration::from_millis(basket.work_ms.min(60_000));
        let priced = in_span("price", work * 3 / 5).await;
        reserve(Duration::from_millis(basket.reserve_ms.min(60_000))).await;
        // Rendering has no span of its own: it is the server span's self time.
        let rendered = tokio::task::spawn_blocking(move || work::price(work * 2 / 5));
        let total = priced.wrapping_add(rendered.await.unwrap_or_default());
        let context = Context::current();
        let span = context.span();
        span.set_attribute(KeyValue::new("http.response.status_code", 200));
        let trace_id = span.span_context().trace_id().to_string();
        span.end();
        Json(Receipt { trace_id, total })
    };
    opentelemetry::context::FutureExt::with_context(answer, context).await
}

/// Prices in a thread that may block, as one does with CPU work, inside a child span.
async fn in_span(name: &'static str, cpu: Duration) -> u64 {
    let parent = Context::current();
    let task = tokio::task::spawn_blocking(move || {
        let tracer = global::tracer("shop");
        let span = tracer.start_with_context(name, &parent);
        let total = work::price(cpu);
        drop(span);
        total
    });
    task.await.unwrap_or_default()
}

async fn reserve(wait: Duration) {
    let tracer = global::tracer("shop");
    let context = Context::current_with_span(tracer.start("reserve"));
    tokio::time::sleep(wait).await;
    context.span().end();
}

/// The caller's trace, where it sent one.
fn caller(headers: &HeaderMap) -> Context {
    let carrier: HashMap<String, String> = headers
        .iter()
        .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
        .collect();
    global::get_text_map_propagator(|propagator| propagator.extract(&carrier))
}

//! The sending end.

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, trace_service_client::TraceServiceClient},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use serde_json::json;
use tokio::time::Instant;

use crate::{SENT_AT, unix_nanos};

#[derive(Args)]
pub struct SendArgs {
    /// gRPC endpoint, e.g. http://127.0.0.1:4317.
    #[arg(long)]
    endpoint: String,
    /// Spans a second.
    #[arg(long, default_value_t = 20_000)]
    rate: u32,
    /// For how long.
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Spans in one request.
    #[arg(long, default_value_t = 512)]
    batch: u32,
}

pub async fn run(args: SendArgs) -> anyhow::Result<serde_json::Value> {
    anyhow::ensure!(
        args.batch > 0 && args.rate > 0,
        "--batch and --rate must be above 0"
    );
    let mut client = TraceServiceClient::connect(args.endpoint.clone())
        .await
        .with_context(|| format!("nothing answers at {}", args.endpoint))?;
    let interval = Duration::from_secs_f64(f64::from(args.batch) / f64::from(args.rate));
    let end = Instant::now() + Duration::from_secs(args.seconds.into());
    let mut due = Instant::now();
    let (mut accepted, mut refused) = (0u64, 0u64);
    while due < end {
        tokio::time::sleep_until(due).await;
        due += interval;
        match client.export(request(args.batch)).await {
            Ok(_) => accepted += u64::from(args.batch),
            Err(_) => refused += u64::from(args.batch),
        }
    }
    Ok(json!({"accepted": accepted, "refused": refused}))
}

/// A request of `count` spans with ten attributes, about 470 bytes each.
fn request(count: u32) -> ExportTraceServiceRequest {
    let started = unix_nanos();
    let spans = (0..count).map(|i| span(i, started)).collect();
    // Last, so that making the spans is not in the latency; their encoding still is.
    let now = unix_nanos();
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![
                    text("service.name", "bench"),
                    number("process.pid", i64::from(std::process::id())),
                ],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: "span-load".into(),
                    attributes: vec![number(SENT_AT, i64::try_from(now).unwrap_or(i64::MAX))],
                    ..Default::default()
                }),
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
}

fn span(i: u32, now: u64) -> Span {
    Span {
        trace_id: rand::random::<[u8; 16]>().to_vec(),
        span_id: rand::random::<[u8; 8]>().to_vec(),
        parent_span_id: rand::random::<[u8; 8]>().to_vec(),
        name: format!("GET /api/v1/products/{}", i % 16),
        kind: 2,
        start_time_unix_nano: now - 20_000_000,
        end_time_unix_nano: now - 10_000_000,
        attributes: vec![
            text("http.request.method", "GET"),
            text("http.route", "/api/v1/products/{id}"),
            text("url.path", "/api/v1/products/1234567890"),
            text("url.scheme", "https"),
            text("server.address", "products.shop.svc.cluster.local"),
            number("server.port", 8443),
            text("client.address", "10.85.0.123"),
            text(
                "user_agent.original",
                "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101",
            ),
            number("http.response.status_code", 200),
            text("network.protocol.version", "1.1"),
        ],
        ..Span::default()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

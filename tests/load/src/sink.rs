//! The receiving end.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use clap::Args;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
};
use serde_json::json;
use tokio::io::AsyncReadExt;
use tonic::{Request, Response, Status, transport::Server};

use crate::{SENT_AT, unix_nanos};

#[derive(Args)]
pub struct SinkArgs {
    /// Where to listen.
    #[arg(long)]
    listen: SocketAddr,
}

#[derive(Default)]
struct Seen {
    spans: u64,
    /// One latency for each batch as it was sent, in nanoseconds.
    latencies: Vec<u64>,
}

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Seen>>);

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let now = unix_nanos();
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let resources = request.into_inner().resource_spans.into_iter();
        for scope in resources.flat_map(|resource| resource.scope_spans) {
            seen.spans += scope.spans.len() as u64;
            let attributes = scope.scope.map(|s| s.attributes).unwrap_or_default();
            let sent = attributes.into_iter().find(|a| a.key == SENT_AT);
            if let Some(Value::IntValue(sent)) = sent.and_then(|a| a.value?.value) {
                seen.latencies.push(now.saturating_sub(sent.unsigned_abs()));
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

pub async fn run(args: SinkArgs) -> anyhow::Result<serde_json::Value> {
    let sink = Sink::default();
    let service = TraceServiceServer::new(sink.clone()).max_decoding_message_size(64 << 20);
    let input_ends = async {
        let mut rest = Vec::new();
        // An error means the same as the end: nobody is there any more.
        let _ = tokio::io::stdin().read_to_end(&mut rest).await;
    };
    tokio::select! {
        served = Server::builder().add_service(service).serve(args.listen) => served?,
        () = input_ends => {}
    }
    let mut seen = sink.0.lock().unwrap_or_else(PoisonError::into_inner);
    seen.latencies.sort_unstable();
    let quantile = |q: f64| {
        let last = seen.latencies.len().saturating_sub(1);
        seen.latencies
            .get((last as f64 * q) as usize)
            .map(|ns| *ns as f64 / 1e6)
    };
    Ok(json!({
        "spans": seen.spans,
        "latency_p50_ms": quantile(0.5),
        "latency_p99_ms": quantile(0.99),
    }))
}

//! The agent's own traces and metrics reach a server of upstream's services.

use std::sync::Arc;

use isostack_agent::{
    metrics::{AgentMetrics, Reason},
    telemetry::{self, LogConfig, LogFormat, SelfTelemetryConfig, TelemetryError},
};
use opentelemetry_proto::tonic::{
    collector::{
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    metrics::v1::{Metric, metric::Data, number_data_point::Value},
};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

#[derive(Clone, Default)]
struct Server {
    spans: Arc<Mutex<Vec<String>>>,
    metrics: Arc<Mutex<Vec<Metric>>>,
}

#[tonic::async_trait]
impl TraceService for Server {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource in request.into_inner().resource_spans {
            let spans = resource.scope_spans.into_iter().flat_map(|s| s.spans);
            self.spans.lock().extend(spans.map(|span| span.name));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Server {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        for resource in request.into_inner().resource_metrics {
            let metrics = resource.scope_metrics.into_iter().flat_map(|s| s.metrics);
            self.metrics.lock().extend(metrics);
        }
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_spans_and_counters_arrive() {
    let server = Server::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(server.clone()))
        .add_service(MetricsServiceServer::new(server.clone()));
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));

    let log = LogConfig {
        level: "warn".to_owned(),
        format: LogFormat::Text,
    };
    let own = SelfTelemetryConfig {
        endpoint: format!("http://{address}"),
        node: "node-1".to_owned(),
        own_listeners: Vec::new(),
    };
    let guard = telemetry::init(&log, Some(&own)).unwrap();
    let metrics = AgentMetrics::default();
    guard.observe(&metrics);
    let reason = "stopped";
    let lost = &metrics.spans_lost;
    lost.get_or_create(&Reason { reason }).inc_by(7);
    drop(telemetry::phase("load programs"));
    guard.shutdown().await;

    assert_eq!(*server.spans.lock(), ["load programs"]);
    let metrics = server.metrics.lock();
    let lost = metrics
        .iter()
        .find(|m| m.name == "isostack_agent_spans_lost");
    let Some(Data::Sum(sum)) = &lost.unwrap().data else {
        panic!("not a counter: {lost:?}");
    };
    assert_eq!(sum.data_points[0].value, Some(Value::AsInt(7)));
    assert_eq!(sum.data_points[0].attributes[0].key, "reason");
    drop(metrics);

    // There is one log in a process.
    let twice = telemetry::init(&log, None);
    assert!(matches!(twice, Err(TelemetryError::Twice(_))));
}

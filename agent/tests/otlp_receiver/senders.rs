//! The exporters of the Rust SDK over every transport, Unix sockets, IPv6.

use std::time::Duration;

use http::StatusCode;
use isostack_agent::{
    metrics::Encoding,
    otlp::{Connection, Refusal, Signal},
};
use opentelemetry::{
    KeyValue,
    metrics::MeterProvider,
    trace::{Span as _, SpanKind, Status, Tracer, TracerProvider},
};
use opentelemetry_otlp::{
    Compression, MetricExporter, Protocol, SpanExporter, WithExportConfig, WithHttpConfig,
    WithTonicConfig,
};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_sdk::{Resource, metrics::SdkMeterProvider, trace::SdkTracerProvider};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::*;

fn provider(exporter: SpanExporter) -> SdkTracerProvider {
    SdkTracerProvider::builder()
        .with_simple_exporter(exporter)
        .with_resource(Resource::builder().with_service_name("shop").build())
        .build()
}

/// Three spans, ended one after the other, each an export of its own.
async fn send_spans(exporter: SpanExporter) {
    let provider = provider(exporter);
    // The exporter blocks its thread: not one that serves the receiver's connections.
    tokio::task::spawn_blocking(move || {
        let tracer = provider.tracer("test");
        for name in ["one", "two", "three"] {
            let mut span = tracer
                .span_builder(name)
                .with_kind(SpanKind::Server)
                .with_attributes([KeyValue::new("thread.id", 5), KeyValue::new("d", f64::NAN)])
                .start(&tracer);
            span.add_event("e", vec![KeyValue::new("k", "v")]);
            span.set_status(Status::error("no"));
            span.end();
        }
        provider.shutdown()
    })
    .await
    .unwrap()
    .unwrap();
}

fn check(agent: &Running, encoding: Encoding) {
    let names: Vec<_> = agent.spans().into_iter().map(|span| span.name).collect();
    assert_eq!(names, ["one", "two", "three"]);
    assert_eq!(agent.received(encoding), 3);
    let connections = agent.state.connections.lock();
    if encoding == Encoding::Grpc {
        assert_eq!(connections.len(), 1, "one connection, asked about once");
    }
    for connection in &*connections {
        let Connection::Tcp { local, peer } = connection else {
            panic!("{connections:?}");
        };
        assert!(local.ip().is_loopback() && peer.ip().is_loopback() && peer.port() != 0);
    }
    let batches = agent.state.batches.lock().clone();
    assert!(
        batches
            .iter()
            .all(|(sender, _)| *sender < connections.len())
    );
    let span = &agent.spans()[0];
    assert_eq!((span.kind, span.status.clone().unwrap().code), (2, 2));
    assert_eq!((span.attributes.len(), span.events.len()), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_sdk_over_grpc() {
    let agent = start().await;
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(agent.grpc_url());
    send_spans(exporter.build().unwrap()).await;
    check(&agent, Encoding::Grpc);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_sdk_over_grpc_with_gzip() {
    let agent = start().await;
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_compression(Compression::Gzip)
        .with_endpoint(agent.grpc_url());
    send_spans(exporter.build().unwrap()).await;
    check(&agent, Encoding::Grpc);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_sdk_over_http_protobuf_with_gzip() {
    let agent = start().await;
    let exporter = SpanExporter::builder()
        .with_http()
        .with_compression(Compression::Gzip)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(agent.http_url("/v1/traces"));
    send_spans(exporter.build().unwrap()).await;
    check(&agent, Encoding::HttpProtobuf);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_sdk_over_http_json() {
    let agent = start().await;
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpJson)
        .with_endpoint(agent.http_url("/v1/traces"));
    send_spans(exporter.build().unwrap()).await;
    check(&agent, Encoding::HttpJson);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_passed_on_untouched_or_refused() {
    let agent = start().await;
    let provider = |url: String| {
        let exporter = MetricExporter::builder().with_tonic().with_endpoint(url);
        let reader = opentelemetry_sdk::metrics::PeriodicReader::builder(exporter.build().unwrap())
            .with_interval(Duration::from_secs(3600));
        SdkMeterProvider::builder()
            .with_reader(reader.build())
            .build()
    };
    let export = |url| {
        let provider = provider(url);
        tokio::task::spawn_blocking(move || {
            provider
                .meter("m")
                .u64_counter("requests")
                .build()
                .add(3, &[]);
            provider.force_flush()
        })
    };
    let handle = tokio::runtime::Handle::current();
    let _context = handle.enter();
    export(agent.grpc_url()).await.unwrap().unwrap();
    {
        let passed = agent.state.passed.lock();
        let (signal, payload) = passed.last().unwrap();
        assert_eq!(*signal, Signal::Metrics);
        let request = ExportMetricsServiceRequest::decode(payload.clone()).unwrap();
        let metric = &request.resource_metrics[0].scope_metrics[0].metrics[0];
        assert_eq!(metric.name, "requests");
    }
    *agent.state.refuse.lock() = Some(Refusal::NoDownstream);
    let refused = export(agent.grpc_url()).await.unwrap();
    assert!(refused.is_err(), "the sender is told");
}

/// Both ports understand both transports.
#[tokio::test(flavor = "multi_thread")]
async fn mixed_up_ports_are_served() {
    let agent = start().await;
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(agent.http_url(""));
    send_spans(exporter.build().unwrap()).await;
    assert_eq!(agent.received(Encoding::Grpc), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_names_the_sender() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("otlp.sock");
    let listen = format!("unix:{}", path.display());
    let agent = start_with(config("127.0.0.1:0", &listen)).await;
    let body = request(vec![span("local")]);
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: {PROTOBUF}\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    for sent in 1..=2 {
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        let mut rest = Vec::new();
        while !rest.ends_with(b"\r\n\r\n") {
            rest.push(stream.read_u8().await.unwrap());
        }
        assert_eq!(agent.spans().len(), sent);
    }
    let pid = std::process::id();
    assert_eq!(*agent.state.connections.lock(), [Connection::Unix { pid }]);
    agent.stop.cancel();
    agent.ended.await.unwrap();
    assert!(!path.exists(), "removed at the stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn ipv6_is_served() {
    let agent = start_with(config("[::1]:0", "[::1]:0")).await;
    agent.is_alive().await;
    let connections = agent.state.connections.lock();
    for connection in &*connections {
        assert!(matches!(connection, Connection::Tcp { peer, .. } if peer.is_ipv6()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_answered_in_json() {
    let agent = start().await;
    let answer = agent.post("/v1/traces", JSON, &[], b"{\"resourceSpans\":[]}".to_vec());
    let answer = answer.await;
    assert_eq!(
        (answer.status, &answer.body[..]),
        (StatusCode::OK, &b"{}"[..])
    );
    assert_eq!(answer.header("content-type"), JSON);
}

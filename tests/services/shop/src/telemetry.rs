//! The upstream SDK as its documentation sets it up: batches over gRPC, resource and
//! endpoint from the `OTEL_*` environment.

use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::{KeyValue, global};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider},
};

/// Starts the SDK; must run inside the tokio runtime, whose reactor the exporter uses.
///
/// # Errors
/// When the endpoint of the environment is no URL.
pub fn start(delay: Duration) -> anyhow::Result<SdkTracerProvider> {
    let exporter = SpanExporter::builder()
        .with_tonic()
        .build()
        .context("cannot set up the OTLP exporter: check OTEL_EXPORTER_OTLP_ENDPOINT")?;
    let batch = BatchConfigBuilder::default()
        .with_scheduled_delay(delay)
        .build();
    let mut resource = Resource::builder()
        .with_attribute(KeyValue::new("process.pid", i64::from(std::process::id())));
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name("shop");
    }
    let provider = SdkTracerProvider::builder()
        .with_span_processor(
            BatchSpanProcessor::builder(exporter)
                .with_batch_config(batch)
                .build(),
        )
        .with_resource(resource.build())
        .build();
    global::set_tracer_provider(provider.clone());
    global::set_text_map_propagator(TraceContextPropagator::new());
    Ok(provider)
}

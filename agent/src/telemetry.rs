//! The agent's own log, traces and metrics.
//!
//! The log goes to stderr; records of the `log` crate (aya-log's kernel-side lines among
//! them) come out in it too. Traces (start-up phases, export attempts) and metrics (the
//! health counters) of the agent itself are off unless an endpoint is given; they go there
//! directly by gRPC, never through the agent's own receiver: it would export its exports.
//! Headers are taken from `OTEL_EXPORTER_OTLP_HEADERS`, the interval of metrics from
//! `OTEL_METRIC_EXPORT_INTERVAL`.

mod health;
mod plain;

use std::net::SocketAddr;

use clap::ValueEnum;
use http::Uri;
use opentelemetry::{
    KeyValue, global,
    metrics::MeterProvider as _,
    trace::{Span, Status, Tracer},
};
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithTonicConfig};
use opentelemetry_sdk::{Resource, metrics::SdkMeterProvider, trace::SdkTracerProvider};
use serde::Deserialize;
use thiserror::Error;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, Layer, fmt::MakeWriter, layer::SubscriberExt, registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::{
    address::{PORTS, has_impossible_port},
    metrics::AgentMetrics,
    otlp::listen::is_reached_by,
};

const SCOPE: &str = "isostack-agent";

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The log's configuration.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// `off`, `error`, `warn`, `info`, `debug`, `trace`, or directives such as
    /// `info,isostack_agent::forward=debug`.
    pub level: String,
    /// See [`LogFormat`].
    pub format: LogFormat,
}

/// Where the agent's own traces and metrics go.
#[derive(Clone, Debug)]
pub struct SelfTelemetryConfig {
    /// `http://` or `https://` address of an OTLP server, gRPC.
    pub endpoint: String,
    /// The node's name, `host.name` of what is sent.
    pub node: String,
    /// Addresses of the agent's own receiver, which the endpoint must not be.
    pub own_listeners: Vec<SocketAddr>,
}

/// Why log or self-telemetry cannot start.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The level is neither a level nor directives.
    #[error(
        "log level {level:?}: {reason}; write off, error, warn, info, debug or trace, or \
         directives like info,isostack_agent=debug"
    )]
    Level {
        /// As given.
        level: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The endpoint cannot be used.
    #[error("self-telemetry endpoint {endpoint:?}: {reason}")]
    Endpoint {
        /// As given.
        endpoint: String,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// An exporter cannot be built.
    #[error("self-telemetry cannot start: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// A log was installed before.
    #[error("the log was started twice: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Keeps self-telemetry going; flushes it when shut down.
#[derive(Debug)]
#[must_use = "dropping it ends self-telemetry"]
pub struct TelemetryGuard {
    own: Option<(SdkTracerProvider, SdkMeterProvider)>,
}

/// Starts the log, and self-telemetry if configured. Everything is checked before anything
/// is started.
///
/// # Errors
/// When the level or the endpoint cannot be used, or a log was started before.
///
/// # Panics
/// With self-telemetry, outside a Tokio runtime.
pub fn init(
    log: &LogConfig,
    own: Option<&SelfTelemetryConfig>,
) -> Result<TelemetryGuard, TelemetryError> {
    let filter = filter(&log.level)?;
    let own = own.map(providers).transpose()?;
    let lines = lines(log.format, std::io::stderr);
    // Also installs the bridge for the `log` crate.
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()?;
    if let Some((traces, metrics)) = &own {
        global::set_tracer_provider(traces.clone());
        global::set_meter_provider(metrics.clone());
    }
    Ok(TelemetryGuard { own })
}

impl TelemetryGuard {
    /// From now on the health counters are exported too. Does nothing while self-telemetry
    /// is off.
    pub fn observe(&self, metrics: &AgentMetrics) {
        if let Some((_, provider)) = &self.own {
            health::observe(&provider.meter(SCOPE), metrics);
        }
    }

    /// Sends what is left. Errors are logged: there is nothing else to be done about them.
    pub async fn shutdown(mut self) {
        let Some(own) = self.own.take() else { return };
        // Waits for exports, which the runtime's other threads carry out.
        if let Err(error) = tokio::task::spawn_blocking(move || end(&own)).await {
            tracing::warn!(%error, "Self-telemetry could not be ended");
        }
    }
}

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        if let Some(own) = self.own.take() {
            // Off this thread, which the runtime may need for the last export.
            std::thread::spawn(move || end(&own));
        }
    }
}

/// A span of the agent's own trace around a phase of its start; ends when dropped. Does
/// nothing while self-telemetry is off.
#[must_use = "the phase ends when this is dropped"]
pub struct Phase(global::BoxedSpan);

/// Begins a [`Phase`].
pub fn phase(name: &'static str) -> Phase {
    Phase(global::tracer(SCOPE).start(name))
}

impl Phase {
    /// The phase failed.
    pub fn failed(&mut self, error: &dyn std::error::Error) {
        self.0.set_status(Status::error(error.to_string()));
    }
}

fn end((traces, metrics): &(SdkTracerProvider, SdkMeterProvider)) {
    let results = [traces.shutdown(), metrics.shutdown()];
    for error in results.into_iter().filter_map(Result::err) {
        tracing::warn!(%error, "The last of self-telemetry was not delivered");
    }
}

fn filter(level: &str) -> Result<EnvFilter, TelemetryError> {
    let refuse = |reason: String| TelemetryError::Level {
        level: level.to_owned(),
        reason,
    };
    // A lone word that is no level would be taken for a module's name, silently.
    let word = level.trim();
    let lone = word.chars().all(|c| c.is_alphanumeric() || c == '_');
    if word.is_empty() || lone && word.parse::<LevelFilter>().is_err() {
        return Err(refuse("not a level".to_owned()));
    }
    EnvFilter::builder()
        .parse(word)
        .map_err(|error| refuse(error.to_string()))
}

fn lines<S, W>(format: LogFormat, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_ansi(false);
    let lines = lines.with_writer(plain::MakePlain(writer));
    match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    }
}

fn providers(
    config: &SelfTelemetryConfig,
) -> Result<(SdkTracerProvider, SdkMeterProvider), TelemetryError> {
    let channel = channel(config)?;
    let resource = Resource::builder()
        .with_service_name(SCOPE)
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("host.name", config.node.clone()),
        ])
        .build();
    let spans = SpanExporter::builder()
        .with_tonic()
        .with_channel(channel.clone())
        .build()?;
    let metrics = MetricExporter::builder()
        .with_tonic()
        .with_channel(channel)
        .build()?;
    let traces = SdkTracerProvider::builder()
        .with_resource(resource.clone())
        .with_batch_exporter(spans)
        .build();
    let metrics = SdkMeterProvider::builder()
        .with_resource(resource)
        .with_periodic_exporter(metrics)
        .build();
    Ok((traces, metrics))
}

fn channel(config: &SelfTelemetryConfig) -> Result<Channel, TelemetryError> {
    let refuse = |reason: String| TelemetryError::Endpoint {
        endpoint: config.endpoint.clone(),
        reason,
    };
    let example = "write an address like http://collector:4317";
    let uri: Uri = config
        .endpoint
        .parse()
        .map_err(|error| refuse(format!("not an address ({error}): {example}")))?;
    let secure = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(refuse(format!("no scheme http or https: {example}"))),
    };
    if has_impossible_port(&uri) {
        return Err(refuse(PORTS.to_owned()));
    }
    if let Some(own) = config
        .own_listeners
        .iter()
        .find(|own| is_reached_by(**own, &uri))
    {
        return Err(refuse(format!(
            "this is the agent's own receiver on {own}, and every export would cause another: \
             name the downstream instead"
        )));
    }
    let endpoint = Endpoint::from(uri);
    let endpoint = if secure {
        let roots = ClientTlsConfig::new().with_enabled_roots();
        endpoint
            .tls_config(roots)
            .map_err(|error| refuse(format!("TLS cannot be set up: {error}")))?
    } else {
        endpoint
    };
    Ok(endpoint.connect_lazy())
}

#[cfg(test)]
mod tests;

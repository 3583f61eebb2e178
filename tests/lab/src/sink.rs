//! Where the agent sends its enriched spans: an OTLP receiver that keeps what the lab
//! needs of them.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
};
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// A span as it left the agent.
#[derive(Clone, Debug, Default)]
pub struct Span {
    /// Trace id, lower-case hexadecimal.
    pub trace: String,
    /// Span id.
    pub id: String,
    /// `service.name`.
    pub service: String,
    /// Its name.
    pub name: String,
    /// Start, wall time in nanoseconds.
    pub start_ns: u64,
    /// End.
    pub end_ns: u64,
    /// When it came here.
    pub arrived_ns: u64,
    /// Attributes `isostack.*`, without that prefix; numbers as text.
    pub said: HashMap<String, String>,
}

impl Span {
    /// An attribute of the agent's; empty where it has none.
    #[must_use]
    pub fn text(&self, key: &str) -> &str {
        self.said.get(key).map_or("", String::as_str)
    }

    /// Whether the agent made it.
    #[must_use]
    pub fn is_synthetic(&self) -> bool {
        self.text("synthetic") == "true"
    }

    /// An attribute that is a number.
    #[must_use]
    pub fn number(&self, key: &str) -> f64 {
        self.text(key).parse().unwrap_or(0.0)
    }
}

/// Spans kept; beyond, the oldest half goes. A run takes what it needs long before.
const KEPT: usize = 100_000;

type Spans = Arc<Mutex<Vec<Span>>>;

#[derive(Clone, Default)]
struct Receiver(Spans);

/// A running receiver; ends with this value.
#[derive(Debug)]
pub struct Sink {
    /// `HOST:PORT` of its gRPC service.
    pub address: SocketAddr,
    spans: Spans,
    _runtime: Runtime,
}

impl Sink {
    /// Starts it on a free port of the loopback address.
    ///
    /// # Errors
    /// When there is none.
    pub fn start() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"));
        let listener = listener.context("no port for the sink")?;
        let address = listener.local_addr()?;
        let receiver = Receiver::default();
        let spans = Arc::clone(&receiver.0);
        let service = TraceServiceServer::new(receiver).max_decoding_message_size(64 << 20);
        runtime.spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        Ok(Self {
            address,
            spans,
            _runtime: runtime,
        })
    }

    /// The spans of these traces so far.
    #[must_use]
    pub fn of(&self, wanted: impl Fn(&str) -> bool) -> Vec<Span> {
        let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        spans
            .iter()
            .filter(|span| wanted(&span.trace))
            .cloned()
            .collect()
    }

    /// Forgets everything.
    pub fn clear(&self) {
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        spans.clear();
    }
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let arrived_ns = unix_ns();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for resource in request.into_inner().resource_spans {
            let of = resource.resource.map(|r| r.attributes).unwrap_or_default();
            let service = text(of.iter().find(|a| a.key == "service.name"));
            let spans = resource.scope_spans.into_iter().flat_map(|s| s.spans);
            kept.extend(spans.map(|span| {
                let said = span.attributes.iter().filter_map(|attribute| {
                    let key = attribute.key.strip_prefix("isostack.")?;
                    Some((key.to_owned(), text(Some(attribute))))
                });
                Span {
                    trace: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    service: service.clone(),
                    start_ns: span.start_time_unix_nano,
                    end_ns: span.end_time_unix_nano,
                    arrived_ns,
                    said: said.collect(),
                    name: span.name,
                }
            }));
        }
        if kept.len() > KEPT {
            kept.drain(..KEPT / 2);
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn text(attribute: Option<&KeyValue>) -> String {
    let value = attribute.and_then(|a| a.value.as_ref()?.value.as_ref());
    match value {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::BoolValue(value)) => value.to_string(),
        Some(Value::IntValue(value)) => value.to_string(),
        Some(Value::DoubleValue(value)) => value.to_string(),
        _ => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Wall time.
#[must_use]
pub fn unix_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_nanos() as u64)
}

//! A running receiver whose intake remembers, and plain clients.

use std::{io::Write, sync::Arc};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, Request, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use isostack_agent::{
    metrics::{AgentMetrics, Encoded, Encoding, Reason},
    otlp::{
        Connection, Intake, Refusal, Signal,
        listen::Listen,
        receive::{Receiver, ReceiverConfig, Stopped},
    },
    span::SpanBatch,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use parking_lot::Mutex;
use prost::Message;
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub struct State {
    pub connections: Mutex<Vec<Connection>>,
    /// Each batch with the index of its connection.
    pub batches: Mutex<Vec<(usize, Bytes)>>,
    pub passed: Mutex<Vec<(Signal, Bytes)>>,
    pub refuse: Mutex<Option<Refusal>>,
    /// A request is answered when it gets a permit.
    pub gate: Semaphore,
    pub entered: Semaphore,
}

#[derive(Clone)]
pub struct Recorder(pub Arc<State>);

impl Intake for Recorder {
    type Sender = usize;

    fn connected(&self, connection: Connection) -> Arc<usize> {
        let mut connections = self.0.connections.lock();
        connections.push(connection);
        Arc::new(connections.len() - 1)
    }

    async fn traces(&self, sender: &Arc<usize>, batch: SpanBatch) -> Result<(), Refusal> {
        self.0.entered.add_permits(1);
        self.0.gate.acquire().await.unwrap().forget();
        self.0.gate.add_permits(1);
        if let Some(refusal) = self.0.refuse.lock().clone() {
            return Err(refusal);
        }
        self.0.batches.lock().push((**sender, batch.payload));
        Ok(())
    }

    async fn pass_through(
        &self,
        _: &Arc<usize>,
        signal: Signal,
        payload: Bytes,
    ) -> Result<(), Refusal> {
        if let Some(refusal) = self.0.refuse.lock().clone() {
            return Err(refusal);
        }
        self.0.passed.lock().push((signal, payload));
        Ok(())
    }
}

pub struct Running {
    pub grpc: Listen,
    pub http: Listen,
    pub state: Arc<State>,
    pub metrics: AgentMetrics,
    pub stop: CancellationToken,
    pub ended: JoinHandle<Stopped>,
}

pub fn config(grpc: &str, http: &str) -> ReceiverConfig {
    ReceiverConfig::new(grpc.parse().unwrap(), http.parse().unwrap())
}

pub async fn start() -> Running {
    start_with(config("127.0.0.1:0", "127.0.0.1:0")).await
}

pub async fn start_with(config: ReceiverConfig) -> Running {
    let receiver = Receiver::bind(config).await.unwrap();
    let state = Arc::new(State {
        connections: Mutex::default(),
        batches: Mutex::default(),
        passed: Mutex::default(),
        refuse: Mutex::default(),
        gate: Semaphore::new(1),
        entered: Semaphore::new(0),
    });
    let (metrics, stop) = (AgentMetrics::default(), CancellationToken::new());
    Running {
        grpc: receiver.grpc_address().clone(),
        http: receiver.http_address().clone(),
        ended: tokio::spawn(receiver.run(
            Recorder(Arc::clone(&state)),
            metrics.clone(),
            stop.clone(),
        )),
        state,
        metrics,
        stop,
    }
}

impl Running {
    pub fn grpc_url(&self) -> String {
        format!("http://{}", self.grpc)
    }

    pub fn http_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    pub fn malformed(&self, reason: &'static str) -> u64 {
        let malformed = &self.metrics.requests_malformed;
        malformed.get_or_create(&Reason { reason }).get()
    }

    pub fn refused(&self, reason: &'static str) -> u64 {
        let refused = &self.metrics.spans_refused;
        refused.get_or_create(&Reason { reason }).get()
    }

    pub fn received(&self, encoding: Encoding) -> u64 {
        let received = &self.metrics.spans_received;
        received.get_or_create(&Encoded { encoding }).get()
    }

    /// The spans of all batches, in order.
    pub fn spans(&self) -> Vec<Span> {
        let batches = self.state.batches.lock();
        let requests = batches
            .iter()
            .map(|(_, payload)| ExportTraceServiceRequest::decode(payload.clone()).unwrap());
        requests
            .flat_map(|request| request.resource_spans)
            .flat_map(|resource| resource.scope_spans)
            .flat_map(|scope| scope.spans)
            .collect()
    }

    /// That the agent is alive: a good request is accepted over both transports.
    pub async fn is_alive(&self) {
        let before = self.state.batches.lock().len();
        let answer = self
            .post("/v1/traces", PROTOBUF, &[], request(vec![span("alive")]))
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let answer = self
            .call(TRACES, &[], frame(0, &request(vec![span("alive")])))
            .await;
        assert_eq!(answer.grpc_status(), 0, "{answer:?}");
        assert_eq!(self.state.batches.lock().len(), before + 2);
    }
}

pub const PROTOBUF: &str = "application/x-protobuf";
pub const JSON: &str = "application/json";
pub const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
pub const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

pub fn span(name: &str) -> Span {
    Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        name: name.to_owned(),
        start_time_unix_nano: 1,
        end_time_unix_nano: 2,
        ..Span::default()
    }
}

pub fn request(spans: Vec<Span>) -> Vec<u8> {
    let scope = ScopeSpans {
        spans,
        ..ScopeSpans::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans: vec![scope],
            ..ResourceSpans::default()
        }],
    }
    .encode_to_vec()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A gRPC frame.
pub fn frame(flag: u8, message: &[u8]) -> Vec<u8> {
    let mut out = vec![flag];
    out.extend((message.len() as u32).to_be_bytes());
    out.extend_from_slice(message);
    out
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: HeaderMap,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    pub fn grpc_status(&self) -> i32 {
        self.grpc("grpc-status").parse().unwrap()
    }

    /// A header of a gRPC answer, wherever it came.
    pub fn grpc(&self, name: &str) -> String {
        let value = self.headers.get(name).or_else(|| self.trailers.get(name));
        value.map_or(String::new(), |v| v.to_str().unwrap().to_owned())
    }

    /// `google.rpc.Status` of an HTTP answer, in the encoding it says it has.
    pub fn rpc_status(&self) -> (i32, String) {
        match self.header("content-type") {
            PROTOBUF => {
                let status = tonic_types::Status::decode(self.body.clone()).unwrap();
                (status.code, status.message)
            }
            JSON => {
                let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
                let message = json["message"].as_str().unwrap().to_owned();
                (json["code"].as_i64().unwrap() as i32, message)
            }
            other => panic!("content type {other}"),
        }
    }
}

type Sent = Client<HttpConnector, Full<Bytes>>;

async fn send(client: Sent, request: Request<Full<Bytes>>) -> Answer {
    let (parts, body) = client.request(request).await.unwrap().into_parts();
    let collected = body.collect().await.unwrap();
    Answer {
        status: parts.status,
        headers: parts.headers,
        trailers: collected.trailers().cloned().unwrap_or_default(),
        body: collected.to_bytes(),
    }
}

impl Running {
    /// One HTTP/1 POST on a connection of its own.
    pub async fn post(
        &self,
        path: &str,
        content_type: &str,
        headers: &[(&'static str, &str)],
        body: Vec<u8>,
    ) -> Answer {
        self.http("POST", path, content_type, headers, body).await
    }

    pub async fn http(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        headers: &[(&'static str, &str)],
        body: Vec<u8>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(self.http_url(path));
        if !content_type.is_empty() {
            request = request.header(CONTENT_TYPE, content_type);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let client = Client::builder(TokioExecutor::new()).build_http();
        send(client, request.body(Full::new(body.into())).unwrap()).await
    }

    /// One gRPC call with this body on a connection of its own.
    pub async fn call(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
        body: Vec<u8>,
    ) -> Answer {
        let mut request = Request::post(format!("{}{path}", self.grpc_url()))
            .header(CONTENT_TYPE, "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let client = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .build_http();
        let answer = send(client, request.body(Full::new(body.into())).unwrap()).await;
        assert_eq!(
            answer.status,
            StatusCode::OK,
            "gRPC says errors in its own status"
        );
        answer
    }
}

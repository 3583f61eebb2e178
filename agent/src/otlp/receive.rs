//! The receiver: accepts connections, reads requests, hands them to the [`Intake`], and
//! answers when that has them.
//!
//! Both listeners speak both transports (gRPC is told by its content type), so a sender
//! that has the two ports mixed up is served all the same.
//!
//! Everything is bounded: connections, calls at once on a connection, the size of a
//! request, the bytes of all unfinished requests together, and the time to send one.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{
    Intake, Refusal, Signal,
    answer::Rejection,
    body::{self, BodyError, Held, Limits},
    json,
    listen::{BindError, Listen, Listener},
    schema, view,
};
use crate::{
    metrics::{AgentMetrics, Encoded, Encoding, Reason},
    time::MonoNs,
};

mod connection;

/// What the receiver listens on and how much it takes.
#[derive(Clone, Debug)]
pub struct ReceiverConfig {
    /// For gRPC.
    pub grpc: Listen,
    /// For HTTP.
    pub http: Listen,
    /// Largest gRPC message in bytes, compressed and decompressed; 4 MiB, as the Collector.
    pub max_grpc_bytes: usize,
    /// Largest HTTP body in bytes, compressed and decompressed; 20 MiB, as the Collector.
    pub max_http_bytes: usize,
    /// Bytes that all requests being read may take together; beyond, they are told to try
    /// again.
    pub max_unfinished_bytes: usize,
    /// Connections at once on each listener; more wait to be accepted.
    pub max_connections: usize,
    /// Calls at once on one HTTP/2 connection.
    pub max_streams: u32,
    /// Until the last byte of a request's body is there.
    pub body_timeout: Duration,
    /// Until the next request's head is there; so also how long an HTTP/1 connection may
    /// idle. Longer than the minute at which metrics are usually sent.
    pub idle_timeout: Duration,
    /// How long requests under way may take to finish when the agent stops.
    pub drain_timeout: Duration,
}

impl ReceiverConfig {
    /// The default limits on these addresses.
    #[must_use]
    pub const fn new(grpc: Listen, http: Listen) -> Self {
        Self {
            grpc,
            http,
            max_grpc_bytes: 4 << 20,
            max_http_bytes: 20 << 20,
            max_unfinished_bytes: 64 << 20,
            max_connections: 1024,
            max_streams: 100,
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(120),
            drain_timeout: Duration::from_secs(5),
        }
    }
}

/// Bound, not yet accepting: senders that connect wait.
#[derive(Debug)]
pub struct Receiver {
    config: ReceiverConfig,
    grpc: Listener,
    http: Listener,
    bound: (Listen, Listen),
}

/// A listener that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("{flag}: {error}")]
pub struct NotBound {
    /// The setting that names it.
    pub flag: &'static str,
    /// Why.
    #[source]
    pub error: BindError,
}

/// How the receiver ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Connections that were cut as they did not finish in time.
    pub cut: usize,
}

impl Receiver {
    /// Binds both listeners.
    ///
    /// # Errors
    /// When one cannot be bound, with its address; neither is held then.
    pub async fn bind(config: ReceiverConfig) -> Result<Self, NotBound> {
        let of = |flag| move |error| NotBound { flag, error };
        let bound = Listener::bind(&config.grpc).await;
        let (grpc, grpc_address) = bound.map_err(of("--otlp-grpc-listen"))?;
        let bound = Listener::bind(&config.http).await;
        let (http, http_address) = bound.map_err(of("--otlp-http-listen"))?;
        Ok(Self {
            config,
            grpc,
            http,
            bound: (grpc_address, http_address),
        })
    }

    /// Where gRPC is listened for, with the port that was picked.
    #[must_use]
    pub const fn grpc_address(&self) -> &Listen {
        &self.bound.0
    }

    /// Where HTTP is listened for, with the port that was picked.
    #[must_use]
    pub const fn http_address(&self) -> &Listen {
        &self.bound.1
    }

    /// Serves until `stop`; then no connection is accepted, requests under way are
    /// finished for at most the drain timeout, and the listeners are closed.
    pub async fn run<I: Intake>(
        self,
        intake: I,
        metrics: AgentMetrics,
        stop: CancellationToken,
    ) -> Stopped {
        let core = Arc::new(Core::new(&self.config, intake, metrics));
        let (grpc, http) = tokio::join!(
            connection::accept(self.grpc, Arc::clone(&core), &self.config, stop.clone()),
            connection::accept(self.http, core, &self.config, stop),
        );
        Stopped { cut: grpc + http }
    }
}

/// What all requests share.
#[derive(Debug)]
pub(super) struct Core<I> {
    pub intake: I,
    metrics: AgentMetrics,
    pub limits_grpc: Limits,
    pub limits_http: Limits,
}

/// Decoding more than this is done off the threads that serve connections.
const MAX_INLINE_BYTES: usize = 32 * 1024;

impl<I: Intake> Core<I> {
    fn new(config: &ReceiverConfig, intake: I, metrics: AgentMetrics) -> Self {
        let budget = config.max_unfinished_bytes.min(Semaphore::MAX_PERMITS);
        let limits_grpc = Limits {
            max_bytes: config.max_grpc_bytes,
            timeout: config.body_timeout,
            budget: Arc::new(Semaphore::new(budget)),
        };
        let limits_http = Limits {
            max_bytes: config.max_http_bytes,
            ..limits_grpc.clone()
        };
        Self {
            intake,
            metrics,
            limits_grpc,
            limits_http,
        }
    }

    /// Hands a request to the intake; `payload` is protobuf.
    pub async fn accept(
        &self,
        sender: &Arc<I::Sender>,
        signal: Signal,
        encoding: Encoding,
        payload: Bytes,
    ) -> Result<(), Rejection> {
        if signal != Signal::Traces {
            let checked = schema::Message::request(signal).check(&payload, 0);
            checked.map_err(view::Malformed::from)?;
            let passed = self.intake.pass_through(sender, signal, payload).await;
            return passed.map_err(|refusal| Rejection::Refused(signal, refusal));
        }
        let batch = view::parse(payload, MonoNs::now())?;
        let spans = batch.spans.len() as u64;
        match self.intake.traces(sender, batch).await {
            Ok(()) => {
                let by_encoding = Encoded { encoding };
                let received = self.metrics.spans_received.get_or_create(&by_encoding);
                received.inc_by(spans);
                Ok(())
            }
            Err(refusal) => {
                let reason = refusal_word(&refusal);
                let refused = self.metrics.spans_refused.get_or_create(&Reason { reason });
                refused.inc_by(spans);
                Err(Rejection::Refused(signal, refusal))
            }
        }
    }

    /// Decompresses a body.
    pub async fn gunzip(&self, body: Bytes, limits: &Limits) -> Result<Held, Rejection> {
        let limits = limits.clone();
        decode(body, move |body| body::gunzip(body, &limits)).await
    }

    /// Translates JSON.
    pub async fn translate(&self, signal: Signal, json: Bytes) -> Result<Bytes, Rejection> {
        decode(json, move |json| json::to_protobuf(signal, json)).await
    }

    /// Counts a rejection that was not counted as spans refused.
    pub fn count(&self, rejection: &Rejection) {
        if let Some(reason) = rejection.malformed_reason() {
            let malformed = &self.metrics.requests_malformed;
            malformed.get_or_create(&Reason { reason }).inc();
        }
        if let Rejection::Body(BodyError::Full) = rejection {
            // How many spans were in it is not known: the request counts as one.
            let reason = "receiver_full";
            let refused = &self.metrics.spans_refused;
            refused.get_or_create(&Reason { reason }).inc();
        }
        tracing::debug!(?rejection, "Refused a request");
    }
}

fn refusal_word(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Busy { .. } => "busy",
        Refusal::NoDownstream => "no_downstream",
        Refusal::Loop => "loop",
        Refusal::Stopping => "stopping",
    }
}

/// Runs `work` here when it is short, else where it may block.
async fn decode<T, E>(
    input: Bytes,
    work: impl FnOnce(&[u8]) -> Result<T, E> + Send + 'static,
) -> Result<T, Rejection>
where
    T: Send + 'static,
    E: Into<Rejection> + Send + 'static,
{
    if input.len() <= MAX_INLINE_BYTES {
        return work(&input).map_err(Into::into);
    }
    match tokio::task::spawn_blocking(move || work(&input)).await {
        Ok(done) => done.map_err(Into::into),
        // Only when the runtime is shutting down, or the decoder has a bug.
        Err(error) => Err(BodyError::Broken(error.to_string()).into()),
    }
}

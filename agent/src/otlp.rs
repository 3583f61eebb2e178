//! OTLP in and out at the wire level: receiver (gRPC and HTTP), views into messages, and
//! the splice that adds to them without touching a byte of what came.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::span::SpanBatch;

pub mod ends;
pub mod enrich;
pub mod json;
pub mod listen;
pub mod logs;
pub mod receive;
pub mod view;
pub mod wire;

mod answer;
mod body;
mod grpc;
mod http;
mod schema;

/// The three signals of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Passed through untouched.
    Metrics,
    /// Passed through untouched.
    Logs,
}

/// The two ends of an accepted connection, as the agent's own socket has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// A TCP connection.
    Tcp {
        /// The agent's end.
        local: SocketAddr,
        /// The sender's end.
        peer: SocketAddr,
    },
    /// A Unix socket, with `SO_PEERCRED`'s pid (0 when the kernel gave none).
    Unix {
        /// The sender's pid in the agent's pid namespace.
        pid: u32,
    },
}

/// Why a well-formed request is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No room: the sender keeps the data and tries again (gRPC `UNAVAILABLE` with
    /// `RetryInfo`, HTTP 503 with `Retry-After`).
    Busy {
        /// After this long.
        retry_after: Duration,
    },
    /// This signal has nowhere to go (gRPC `UNIMPLEMENTED`, HTTP 404 with the reason): not
    /// retryable, and said rather than silently eaten.
    NoDownstream,
    /// The sender is the agent itself: its downstream leads back to it (gRPC
    /// `FAILED_PRECONDITION`, HTTP 403), and what is sent on would go round for ever.
    Loop,
    /// The agent is stopping (gRPC `UNAVAILABLE`, HTTP 503).
    Stopping,
}

/// What the receiver hands requests to.
pub trait Intake: Clone + Send + Sync + 'static {
    /// What the intake knows of a connection; made once, when it is accepted.
    type Sender: Send + Sync + 'static;

    /// A connection was accepted. Must not block.
    fn connected(&self, connection: Connection) -> Arc<Self::Sender>;

    /// Takes a batch of spans; `Ok` acknowledges it: it will not be lost while the process
    /// lives. The `joined` fields of its resources are still to be filled.
    fn traces(
        &self,
        sender: &Arc<Self::Sender>,
        batch: SpanBatch,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Takes an export request of another signal (protobuf), to be passed on untouched.
    fn pass_through(
        &self,
        sender: &Arc<Self::Sender>,
        signal: Signal,
        payload: Bytes,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;
}

//! Sends what was accepted to the downstream: bounded, with retries, in order of arrival.
//!
//! Each signal has a lane of its own (connection, queue, pace). Memory is bounded by the
//! permits that travel with the requests: the receiver takes them from its byte budget and
//! refuses senders when it is used up; here they are held until downstream has the data.
//! So [`ForwardHandle::enqueue`] neither waits nor drops.
//!
//! A request is sent at once when the lane is free. While requests are under way (a few at
//! once) further ones queue up, and what has queued up is joined into one by concatenation,
//! which for these messages is merging. Requests leave in order of arrival; several under
//! way, and retries, may arrive in another.
//!
//! **What an answer means.** The OTLP specification calls some answers not retryable, on
//! the ground that a client cannot wait for a person to put things right. An agent that
//! acknowledged the data can, so of those only the ones that speak about the data itself
//! lose it.
//!
//! | answer | then |
//! | --- | --- |
//! | success | done; items rejected by `partial_success` are lost (`rejected`) |
//! | no connection, connection lost, time-out; HTTP 408, 425, 429, 502, 503, 504; gRPC `CANCELLED`, `DEADLINE_EXCEEDED`, `ABORTED`, `OUT_OF_RANGE`, `UNAVAILABLE`, `DATA_LOSS`, `RESOURCE_EXHAUSTED` with `RetryInfo` | again after 0.1 s, doubling to 10 s, half of it by chance, one request at a time until one succeeds; not before `Retry-After` or `RetryInfo` says |
//! | HTTP 401, 403, 404, 405, 407, 501, redirects and other 4xx; gRPC `UNAUTHENTICATED`, `PERMISSION_DENIED`, `UNIMPLEMENTED`, `NOT_FOUND`, `ALREADY_EXISTS`, `FAILED_PRECONDITION`, `RESOURCE_EXHAUSTED` without `RetryInfo`; a success that is not OTLP (HTML, unreadable) | downstream is misconfigured: kept, again after 1 s, doubling to 30 s |
//! | 404, 405, 501 or `UNIMPLEMENTED` for metrics or logs | as above, and [`ForwardHandle::takes`] is false until it succeeds, so that the receiver refuses that signal instead of filling up with it |
//! | HTTP 500 and other 5xx; gRPC `INTERNAL`, `UNKNOWN` | joined requests are parted; a single one is tried again beside the others, and given up (`rejected`) only after it was refused 16 times while others passed in between |
//! | HTTP 400, 422; gRPC `INVALID_ARGUMENT` | joined requests are parted, so that one sender's bad data does not lose another's; a single one is lost (`rejected`) |
//! | HTTP 413; gRPC `RESOURCE_EXHAUSTED` or `OUT_OF_RANGE` whose message speaks of length | parted, then cut between resources, scopes, items; a single item is lost (`too_large`) |
//!
//! Where gRPC is spoken and something answers that does not speak it (a proxy, a web server),
//! the HTTP status counts.
//!
//! Downstream gets data twice only where it took a request and its answer did not arrive:
//! with the connection, or within the time-out.

mod account;
mod answer;
mod batch;
mod body;
mod checked;
mod client;
pub mod config;
mod gather;
mod lane;
mod pace;
mod signal;
mod split;
mod state;
mod tls;
mod trace;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, watch},
    task::JoinHandle,
    time::Instant,
};

use self::{
    account::Account,
    client::Client,
    lane::Lane,
    signal::{Named, SIGNALS},
    state::Status,
};
pub use self::{
    config::{Compression, ForwardConfig, ForwardConfigError, Protocol, Target},
    state::{ForwardState, Health, SignalState},
};
use crate::{
    metrics::{AgentMetrics, Reason},
    otlp::Signal,
};

/// One export request on its way out, protobuf.
#[derive(Debug)]
pub struct Outgoing {
    /// Which endpoint it goes to.
    pub signal: Signal,
    /// The request message. Two requests of one signal may be joined by concatenation:
    /// their only field is repeated.
    pub payload: Bytes,
    /// Items in it (spans; 0 where not counted), for the counters.
    pub items: usize,
    /// What it holds of the receiver's byte budget; given back when this is dropped.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// What a stop left behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Undelivered {
    /// Requests.
    pub requests: usize,
    /// Spans in them (other signals' items are not counted).
    pub items: usize,
}

/// The running forwarder. Dropping it without [`Self::drain`] gives up what is queued.
#[derive(Debug)]
pub struct Forwarder {
    handle: ForwardHandle,
    lanes: Vec<JoinHandle<()>>,
    stop: watch::Sender<Option<Instant>>,
}

/// The forwarder's entry; cloning it is cheap.
#[derive(Clone, Debug)]
pub struct ForwardHandle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    metrics: AgentMetrics,
    /// In the order of [`SIGNALS`].
    entries: [Option<Entry>; 3],
}

#[derive(Debug)]
struct Entry {
    sender: mpsc::UnboundedSender<Outgoing>,
    status: Arc<Status>,
}

impl Forwarder {
    /// Starts a lane per signal that has a target. Connects when there is something to send.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    #[must_use]
    pub fn start(config: &ForwardConfig, metrics: AgentMetrics) -> Self {
        let (stop, stopped) = watch::channel(None);
        let mut lanes = Vec::new();
        let entries = SIGNALS.map(|signal| {
            let target = config.target(signal)?;
            let (sender, incoming) = mpsc::unbounded_channel();
            let status = Arc::new(Status::new(signal, target));
            let lane = Lane::new(
                Client::new(target, signal),
                target.timeout,
                Account::new(signal, Arc::clone(&status), metrics.clone()),
                (config.max_batch_bytes, config.max_in_flight),
                incoming,
            );
            lanes.push(tokio::spawn(lane.run(stopped.clone())));
            Some(Entry { sender, status })
        });
        let shared = Arc::new(Shared { metrics, entries });
        Self {
            handle: ForwardHandle { shared },
            lanes,
            stop,
        }
    }

    /// The entry.
    #[must_use]
    pub fn handle(&self) -> ForwardHandle {
        self.handle.clone()
    }

    /// Delivers what is queued, with short waits between tries, until the deadline; says
    /// what could not be delivered, and counts it as lost (`stopped`). To be called when
    /// nothing is enqueued any more: what comes later is counted as lost too.
    pub async fn drain(self, deadline: Duration) -> Undelivered {
        let until = Instant::now() + deadline;
        self.stop.send_replace(Some(until));
        for lane in self.lanes {
            if let Err(error) = lane.await {
                tracing::error!(%error, "A forwarding lane ended before its time");
            }
        }
        let shared = &self.handle.shared;
        let mut left = Undelivered::default();
        for (signal, entry) in shared.present() {
            let (requests, items) = (entry.status.requests(), entry.status.items());
            left.requests += requests;
            left.items += items;
            shared.metrics.forward_queue.dec_by(requests as i64);
            shared.lost_at_stop(signal, requests, items);
        }
        if left.requests > 0 {
            let Undelivered { requests, items } = left;
            tracing::error!(
                requests,
                spans = items,
                ?deadline,
                "Stopped before downstream took everything: this much is lost"
            );
        }
        left
    }
}

impl ForwardHandle {
    /// Takes a request over. Never waits.
    pub fn enqueue(&self, request: Outgoing) {
        let shared = &self.shared;
        let signal = request.signal;
        let Some(entry) = shared.entry(signal) else {
            tracing::error!(
                signal = signal.lower(),
                "No endpoint for this signal: data is lost"
            );
            shared.lost_at_stop(signal, 1, request.items);
            return;
        };
        entry.status.came(&request);
        shared.metrics.forward_queue.inc();
        if let Err(mpsc::error::SendError(request)) = entry.sender.send(request) {
            entry.status.went(&request);
            shared.metrics.forward_queue.dec();
            shared.lost_at_stop(signal, 1, request.items);
        }
    }

    /// Whether downstream takes this signal, as far as is known. When not, the receiver
    /// must refuse it (`Refusal::NoDownstream`) and not enqueue it.
    #[must_use]
    pub fn takes(&self, signal: Signal) -> bool {
        self.shared
            .entry(signal)
            .is_some_and(|entry| !entry.status.unknown_signal())
    }

    /// How forwarding fares now.
    #[must_use]
    pub fn state(&self) -> ForwardState {
        let entries = self.shared.present();
        ForwardState {
            signals: entries.map(|(_, entry)| entry.status.read()).collect(),
        }
    }
}

impl Shared {
    fn present(&self) -> impl Iterator<Item = (Signal, &Entry)> {
        SIGNALS
            .into_iter()
            .zip(&self.entries)
            .filter_map(|(signal, entry)| Some((signal, entry.as_ref()?)))
    }

    fn entry(&self, signal: Signal) -> Option<&Entry> {
        self.present().find(|(s, _)| *s == signal).map(|(_, e)| e)
    }

    fn lost_at_stop(&self, signal: Signal, requests: usize, items: usize) {
        let (family, lost) = match signal {
            Signal::Traces => (&self.metrics.spans_lost, items),
            Signal::Metrics | Signal::Logs => (&self.metrics.passed_through_lost, requests),
        };
        if lost > 0 {
            let reason = "stopped";
            family.get_or_create(&Reason { reason }).inc_by(lost as u64);
        }
    }
}

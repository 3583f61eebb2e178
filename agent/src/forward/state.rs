//! How forwarding fares: written by the lanes, read by the web page, `/readyz` and the log.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use serde::Serialize;

use super::{Outgoing, config::Target, signal::Named};
use crate::{otlp::Signal, time::UnixNs};

/// How one signal's endpoint fares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Health {
    /// Nothing was sent yet.
    Idle,
    /// The last answer was a success.
    Connected,
    /// Requests are kept and tried again.
    Failing {
        /// Since the first failure after the last success.
        since: UnixNs,
        /// Word of the counter `export_retries`.
        reason: &'static str,
        /// The last failure, for people; text from the network, without control characters.
        last_error: String,
    },
}

/// One signal's endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SignalState {
    /// `traces`, `metrics` or `logs`.
    pub signal: &'static str,
    /// Where it goes.
    pub endpoint: String,
    /// By which protocol.
    pub protocol: &'static str,
    /// How it fares.
    #[serde(flatten)]
    pub health: Health,
    /// Requests accepted and not yet acknowledged by downstream.
    pub queued_requests: usize,
    /// Their bytes.
    pub queued_bytes: usize,
}

/// All configured endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ForwardState {
    /// One entry per signal that has an endpoint, traces first.
    pub signals: Vec<SignalState>,
}

impl ForwardState {
    /// Whether spans are getting through, or nothing says that they do not.
    #[must_use]
    pub fn traces_healthy(&self) -> bool {
        !self.signals.iter().any(|s| {
            s.signal == Signal::Traces.lower() && matches!(s.health, Health::Failing { .. })
        })
    }
}

/// What a lane shares with its readers.
#[derive(Debug)]
pub(super) struct Status {
    signal: Signal,
    endpoint: String,
    protocol: &'static str,
    health: Mutex<Health>,
    requests: AtomicUsize,
    items: AtomicUsize,
    bytes: AtomicUsize,
    unknown_signal: AtomicBool,
}

impl Status {
    pub fn new(signal: Signal, target: &Target) -> Self {
        Self {
            signal,
            endpoint: target.endpoint.to_string(),
            protocol: target.protocol.as_str(),
            health: Mutex::new(Health::Idle),
            requests: AtomicUsize::new(0),
            items: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            unknown_signal: AtomicBool::new(false),
        }
    }

    pub fn read(&self) -> SignalState {
        SignalState {
            signal: self.signal.lower(),
            endpoint: self.endpoint.clone(),
            protocol: self.protocol,
            health: self.health.lock().clone(),
            queued_requests: self.requests.load(Relaxed),
            queued_bytes: self.bytes.load(Relaxed),
        }
    }

    pub fn came(&self, request: &Outgoing) {
        self.requests.fetch_add(1, Relaxed);
        self.items.fetch_add(request.items, Relaxed);
        self.bytes.fetch_add(request.payload.len(), Relaxed);
    }

    pub fn went(&self, request: &Outgoing) {
        self.requests.fetch_sub(1, Relaxed);
        self.items.fetch_sub(request.items, Relaxed);
        self.bytes.fetch_sub(request.payload.len(), Relaxed);
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Relaxed)
    }

    pub fn items(&self) -> usize {
        self.items.load(Relaxed)
    }

    /// Whether downstream said that it does not know the signal.
    pub fn unknown_signal(&self) -> bool {
        self.unknown_signal.load(Relaxed)
    }

    /// A success: says so once after failures.
    pub fn succeeded(&self) {
        self.unknown_signal.store(false, Relaxed);
        let mut health = self.health.lock();
        if *health == Health::Connected {
            return;
        }
        let before = std::mem::replace(&mut *health, Health::Connected);
        drop(health);
        let signal = self.signal.lower();
        let endpoint = self.endpoint.as_str();
        match before {
            Health::Failing { since, .. } => {
                let seconds = UnixNs::now().0.saturating_sub(since.0) / 1_000_000_000;
                let queued = self.requests();
                tracing::info!(
                    signal,
                    endpoint,
                    seconds,
                    queued,
                    "Downstream takes data again"
                );
            }
            Health::Idle | Health::Connected => {
                tracing::info!(signal, endpoint, "Downstream takes data");
            }
        }
    }

    /// A failure: says so once.
    pub fn failed(&self, reason: &'static str, error: &str, unknown_signal: bool) {
        self.unknown_signal.store(unknown_signal, Relaxed);
        let mut health = self.health.lock();
        let (since, first) = match &*health {
            Health::Failing { since, .. } => (*since, false),
            Health::Idle | Health::Connected => (UnixNs::now(), true),
        };
        *health = Health::Failing {
            since,
            reason,
            last_error: error.to_owned(),
        };
        drop(health);
        if first {
            let signal = self.signal.lower();
            let endpoint = self.endpoint.as_str();
            tracing::warn!(
                signal,
                endpoint,
                reason,
                error,
                "Downstream takes no data: what was accepted is kept and tried again"
            );
        }
    }
}

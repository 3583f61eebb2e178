//! Keeps the books of one lane: every request and item that came in goes out under exactly
//! one heading.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{batch::Batch, signal::Named, state::Status};
use crate::{
    metrics::{AgentMetrics, Reason},
    otlp::Signal,
};

/// Losses are counted each, but said at most this often.
const LOG_EVERY: Duration = Duration::from_secs(10);

pub(super) struct Account {
    signal: Signal,
    status: Arc<Status>,
    metrics: AgentMetrics,
    quiet_until: Mutex<Option<Instant>>,
}

impl Account {
    pub fn new(signal: Signal, status: Arc<Status>, metrics: AgentMetrics) -> Self {
        Self {
            signal,
            status,
            metrics,
            quiet_until: Mutex::new(None),
        }
    }

    pub fn signal(&self) -> Signal {
        self.signal
    }

    pub fn delivered(&self, batch: &Batch, rejected: u64, message: &str) {
        self.status.succeeded();
        let items = batch.items() as u64;
        if self.signal == Signal::Traces {
            let lost = rejected.min(items);
            self.metrics.spans_forwarded.inc_by(items - lost);
            if lost > 0 {
                self.spans_lost("rejected", lost);
            }
        } else {
            self.metrics.passed_through.inc_by(batch.parts.len() as u64);
        }
        self.close(batch);
        if (rejected > 0 || !message.is_empty()) && self.may_log() {
            let signal = self.signal.lower();
            tracing::warn!(
                signal,
                rejected,
                message,
                "Downstream took data, but complains"
            );
        }
    }

    pub fn lost(&self, batch: &Batch, reason: &'static str, message: &str) {
        let items = batch.items();
        if self.signal == Signal::Traces {
            self.spans_lost(reason, items as u64);
        } else {
            let lost = self
                .metrics
                .passed_through_lost
                .get_or_create(&Reason { reason });
            lost.inc_by(batch.parts.len() as u64);
        }
        self.close(batch);
        if self.may_log() {
            let signal = self.signal.lower();
            let bytes = batch.bytes();
            tracing::error!(
                signal,
                items,
                bytes,
                reason,
                message,
                "Downstream refuses this data for good: given up"
            );
        }
    }

    /// An attempt failed because of downstream's state.
    pub fn retry(&self, reason: &'static str, message: &str, unknown_signal: bool) {
        // Of the signals that are only passed through, a downstream for traces need not
        // know any: then the receiver refuses them.
        let unknown_signal = unknown_signal && self.signal != Signal::Traces;
        self.status.failed(reason, message, unknown_signal);
        self.retry_one(reason);
    }

    /// An attempt failed because of the request.
    pub fn retry_one(&self, reason: &'static str) {
        let retries = &self.metrics.export_retries;
        retries.get_or_create(&Reason { reason }).inc();
    }

    /// Takes a request into the books.
    pub fn open(&self, batch: &Batch) {
        for request in &batch.parts {
            self.status.came(request);
            self.metrics.forward_queue.inc();
        }
    }

    /// Takes a request out of the books.
    pub fn close(&self, batch: &Batch) {
        for request in &batch.parts {
            self.status.went(request);
            self.metrics.forward_queue.dec();
        }
    }

    fn spans_lost(&self, reason: &'static str, spans: u64) {
        let lost = self.metrics.spans_lost.get_or_create(&Reason { reason });
        lost.inc_by(spans);
    }

    fn may_log(&self) -> bool {
        let now = Instant::now();
        let mut quiet_until = self.quiet_until.lock();
        if quiet_until.is_some_and(|until| now < until) {
            return false;
        }
        *quiet_until = Some(now + LOG_EVERY);
        true
    }
}

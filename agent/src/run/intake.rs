//! Between receiver and pipeline: finds the process, takes the bytes from the budget, and
//! only then acknowledges.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc::UnboundedSender};

use crate::{
    forward::{ForwardHandle, Outgoing},
    join::{Joiner, Sender},
    logs::{Board, PROCESSOR_SHARE, share::Share},
    metrics::AgentMetrics,
    otlp::{
        Connection, Intake, Refusal, Signal, ends,
        logs::{FoundRecord, enrich_logs, resources},
    },
    span::{Resource, ResourceSpans, SpanBatch, SpanView},
    time::UnixNs,
    workload::Workload,
};

/// What the receivers share; see the module's head.
#[derive(Clone)]
pub struct SpanIntake {
    inner: Arc<Inner>,
}

struct Inner {
    joiner: Joiner,
    budget: Arc<Semaphore>,
    /// No request counts for more: one that takes more than the budget with its views, or
    /// all of it while a byte of others is held, would be told to try again for ever.
    most: usize,
    /// Unbounded as a channel; what is in it is bounded by `budget`.
    pipeline: UnboundedSender<SpanBatch>,
    forward: Option<ForwardHandle>,
    /// `None`: the sensor `logs` is off.
    logs: Option<LogLines>,
    stopping: AtomicBool,
}

/// Classifies logs that pass through: one request at a time, and within a share of one
/// processor, so that a flood of them leaves the rest to the spans.
pub struct LogLines {
    board: Arc<Board>,
    metrics: AgentMetrics,
    turn: Semaphore,
    share: Mutex<Share>,
}

impl LogLines {
    /// Tells `board` of what it finds.
    #[must_use]
    pub fn new(board: &Arc<Board>, metrics: &AgentMetrics) -> Self {
        Self {
            board: Arc::clone(board),
            metrics: metrics.clone(),
            turn: Semaphore::new(1),
            share: Mutex::new(Share::new(PROCESSOR_SHARE, Instant::now())),
        }
    }

    /// The request with the layer at each record that speaks of one; as it came where
    /// another request has its turn, or the share is used up. `owners` says whose resources are.
    async fn classify(
        &self,
        payload: Bytes,
        owners: impl AsyncFnOnce(Vec<Arc<Resource>>) -> Vec<Workload>,
    ) -> Bytes {
        let turn = self.turn.try_acquire().ok();
        let Some(_turn) = turn.filter(|_| self.share.lock().wait(Instant::now()).is_zero()) else {
            self.metrics.log_requests_unclassified.inc();
            return payload;
        };
        let owners = owners(resources(&payload)).await;
        let (board, untouched) = (Arc::clone(&self.board), payload.clone());
        let at = UnixNs::now();
        let started = Instant::now();
        let classified = tokio::task::spawn_blocking(move || {
            enrich_logs(&payload, &owners, &mut |found: FoundRecord<'_>| {
                board.take(found.hit, found.workload, "otlp", found.body, at);
            })
        });
        let classified = classified.await.unwrap_or(untouched);
        let now = Instant::now();
        self.share.lock().pay(now.duration_since(started), now);
        classified
    }
}

/// How long a sender is told to wait when the budget is used up.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl SpanIntake {
    /// An intake that hands batches to `pipeline` and other signals to `forward`; nothing is
    /// taken of `budget` yet.
    #[must_use]
    pub fn new(
        joiner: Joiner,
        budget: Arc<Semaphore>,
        pipeline: UnboundedSender<SpanBatch>,
        forward: Option<ForwardHandle>,
        logs: Option<LogLines>,
    ) -> Self {
        let stopping = AtomicBool::new(false);
        let most = (budget.available_permits() / 4 * 3).max(1);
        Self {
            inner: Arc::new(Inner {
                joiner,
                budget,
                most,
                pipeline,
                forward,
                logs,
                stopping,
            }),
        }
    }

    /// From now on everything is refused with "try again": the agent is stopping.
    pub fn stop(&self) {
        self.inner.stopping.store(true, Ordering::Release);
    }

    fn permit(&self, bytes: usize) -> Result<tokio::sync::OwnedSemaphorePermit, Refusal> {
        if self.inner.stopping.load(Ordering::Acquire) {
            return Err(Refusal::Stopping);
        }
        // At least one, so that even empty requests are bounded in number.
        let bytes = u32::try_from(bytes.clamp(1, self.inner.most)).unwrap_or(u32::MAX);
        Arc::clone(&self.inner.budget)
            .try_acquire_many_owned(bytes)
            .map_err(|_| Refusal::Busy {
                retry_after: RETRY_AFTER,
            })
    }
}

impl Intake for SpanIntake {
    type Sender = Sender;

    fn connected(&self, connection: Connection) -> Arc<Sender> {
        self.inner.joiner.connected(connection)
    }

    async fn traces(&self, sender: &Arc<Sender>, mut batch: SpanBatch) -> Result<(), Refusal> {
        // The views cost memory too while the batch is held.
        let held = batch.payload.len() + batch.spans.len() * size_of::<SpanView>();
        batch.permit = Some(self.permit(held)?);
        let (payload, spans) = (&batch.payload, &batch.spans);
        let ends = |of: &ResourceSpans| {
            ends::of_spans(payload, spans.get(of.spans.clone()).unwrap_or_default())
        };
        let joiner = &self.inner.joiner;
        joiner.join(sender, &mut batch.resources, &ends).await;
        if sender.is_agent() {
            return Err(Refusal::Loop);
        }
        self.inner
            .pipeline
            .send(batch)
            .map_err(|_| Refusal::Stopping)
    }

    async fn pass_through(
        &self,
        sender: &Arc<Sender>,
        signal: Signal,
        mut payload: Bytes,
    ) -> Result<(), Refusal> {
        let forward = self.inner.forward.as_ref().filter(|f| f.takes(signal));
        let forward = forward.ok_or(Refusal::NoDownstream)?;
        let permit = self.permit(payload.len())?;
        self.inner.joiner.look_at(sender).await;
        if sender.is_agent() {
            return Err(Refusal::Loop);
        }
        if let (Signal::Logs, Some(logs)) = (signal, &self.inner.logs) {
            let joiner = &self.inner.joiner;
            let owners = async |resources| joiner.owners(sender, resources).await;
            payload = logs.classify(payload, owners).await;
        }
        forward.enqueue(Outgoing {
            signal,
            payload,
            items: 0,
            permit: Some(permit),
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> (LogLines, AgentMetrics) {
        let metrics = AgentMetrics::default();
        let board = Arc::new(Board::new("n1", metrics.clone()));
        (LogLines::new(&board, &metrics), metrics)
    }

    async fn nobody(_: Vec<Arc<Resource>>) -> Vec<Workload> {
        Vec::new()
    }

    #[tokio::test]
    async fn logs_beyond_their_turn_or_share_pass_as_they_came() {
        let (lines, metrics) = lines();
        let payload = Bytes::from_static(b"any");
        assert_eq!(lines.classify(payload.clone(), nobody).await, payload);
        assert_eq!(metrics.log_requests_unclassified.get(), 0);
        let turn = lines.turn.try_acquire().unwrap();
        assert_eq!(lines.classify(payload.clone(), nobody).await, payload);
        assert_eq!(metrics.log_requests_unclassified.get(), 1);
        drop(turn);
        let now = Instant::now();
        lines.share.lock().pay(Duration::from_secs(60), now);
        assert_eq!(lines.classify(payload.clone(), nobody).await, payload);
        assert_eq!(metrics.log_requests_unclassified.get(), 2);
    }
}

//! The pipeline's task: the single owner of timeline, span index and baselines. It reads the
//! clocks for the pipeline, and hands what was judged to the store and downstream.

use std::{io, pin::pin, sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    task::JoinHandle,
    time::MissedTickBehavior,
};

use super::{known::Known, recorded::Recorded, supporting};
use crate::{
    config::Config,
    event::Event,
    export::Store,
    forward::{ForwardHandle, Outgoing},
    logs::Board,
    otlp::{
        Signal,
        enrich::{EnrichOptions, enrich},
    },
    span::SpanBatch,
    time::{MonoNs, UnixNs},
    verdict::Judgement,
};

/// Batches of events taken at once, so that batches of spans get their turn.
const EVENTS_AT_ONCE: usize = 64;
/// Batches of spans taken after those.
const BATCHES_BETWEEN: usize = 64;
/// A comparison of the clocks that took longer is not used.
const MAX_SAMPLE_NS: u64 = 50_000;
/// The runtime's timer is this coarse: a span is judged up to so much before its settle time
/// is over rather than after it.
const TIMER_SLACK_NS: u64 = 1_000_000;
/// The clocks are compared this often.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// What is usual is written this often, and at the end.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// See the module's head.
pub struct Judging {
    pipeline: Recorded,
    known: Option<Known>,
    output: Output,
}

struct Output {
    store: Arc<Store>,
    forward: Option<ForwardHandle>,
    board: Arc<Board>,
    options: EnrichOptions,
    /// Sent, and still to be shown.
    sent: Vec<(SpanBatch, Vec<Judgement>)>,
}

impl Judging {
    /// Judges by `pipeline`, shows in `store`, sends to `forward` as `config` says.
    #[must_use]
    pub fn new(
        config: &Config,
        mut pipeline: Recorded,
        store: Arc<Store>,
        forward: Option<ForwardHandle>,
        board: Arc<Board>,
    ) -> Self {
        let options = EnrichOptions {
            node: config.node.clone(),
            child_spans: config.child_spans,
        };
        // A recording begins with nothing known, and so does what it is compared with.
        let directory = config.state_dir.as_deref();
        let known = directory
            .filter(|_| !pipeline.is_recorded())
            .map(Known::new);
        if let Some(known) = &known {
            restore(&mut pipeline, known);
        }
        Self {
            pipeline,
            known,
            output: Output {
                store,
                forward: forward.filter(|f| f.takes(Signal::Traces)),
                board,
                options,
                sent: Vec::new(),
            },
        }
    }

    /// Runs until nobody can send batches any more, then judges what is left.
    pub async fn run(
        mut self,
        mut events: mpsc::Receiver<Vec<Event>>,
        mut batches: mpsc::UnboundedReceiver<SpanBatch>,
    ) {
        let mut sample = tokio::time::interval(SAMPLE_EVERY);
        let mut save = tokio::time::interval(SAVE_EVERY);
        save.set_missed_tick_behavior(MissedTickBehavior::Delay);
        save.reset();
        let mut waiting = Vec::with_capacity(EVENTS_AT_ONCE);
        loop {
            let due = self.pipeline.next_due();
            let mut settled = pin!(sleep_until(due));
            // Events first: a span is judged by those that came before it.
            tokio::select! {
                biased;
                _ = sample.tick() => self.sample_clock(),
                _ = save.tick() => drop(self.save()),
                n = events.recv_many(&mut waiting, EVENTS_AT_ONCE), if !events.is_closed() => {
                    if n > 0 {
                        for events in waiting.drain(..) {
                            self.take_events(&events);
                        }
                    }
                    // However many events come, spans do too.
                    for _ in 0..BATCHES_BETWEEN {
                        let Ok(batch) = batches.try_recv() else { break };
                        self.pipeline.on_batch(batch);
                    }
                }
                batch = batches.recv() => match batch {
                    Some(batch) => self.pipeline.on_batch(batch),
                    None => break,
                },
                () = &mut settled => {}
            }
            let output = &mut self.output;
            self.pipeline.settle(
                MonoNs(MonoNs::now().0 + TIMER_SLACK_NS),
                &mut |batch, judged| output.send(batch, judged),
            );
            if !output.sent.is_empty() {
                // Whoever waits downstream goes first: the forwarder runs before the books.
                tokio::task::yield_now().await;
                output.show();
            }
        }
        while let Ok(rest) = events.try_recv() {
            self.take_events(&rest);
        }
        let saved = self.save();
        let Self {
            pipeline,
            mut output,
            ..
        } = self;
        let mut out = |batch, judged| {
            output.send(batch, judged);
            output.show();
        };
        pipeline.flush(MonoNs::now(), &mut out).await;
        if let Some(saved) = saved {
            // What it says is in the log.
            drop(saved.await);
        }
    }

    /// Writes what is usual, off this task.
    fn save(&self) -> Option<JoinHandle<()>> {
        let known = self.known.clone()?;
        let saved = self.pipeline.save_baselines();
        Some(tokio::task::spawn_blocking(move || {
            if let Err(error) = known.write(saved) {
                tracing::warn!(
                    file = %known.path().display(), %error,
                    "What is usual cannot be kept over a restart; give --state-dir a directory \
                     that can be written"
                );
            }
        }))
    }

    fn take_events(&mut self, events: &[Event]) {
        let now = MonoNs::now();
        for event in events {
            let start = match event {
                Event::Delay(delay) => delay.start,
                Event::Steal(steal) => steal.start,
                Event::Turn(turn) => turn.read,
                Event::Ask(ask) => ask.start,
                Event::Away(away) => away.start,
                Event::Consumption(of) => of.start,
                Event::Loss(loss) => loss.start,
                Event::Saving(saving) => saving.start,
            };
            let start = self.pipeline.clock().wall(start);
            self.output.store.record_event(event, start);
        }
        self.pipeline.on_events(events, now);
    }

    fn sample_clock(&mut self) {
        let before = MonoNs::now();
        let wall = UnixNs::now();
        let mono = MonoNs::now();
        // An interruption in between would look like a step.
        if mono.since(before) > MAX_SAMPLE_NS {
            return;
        }
        if let Some(step_ns) = self.pipeline.sample_clock(mono, wall) {
            tracing::warn!(
                step_ns,
                "The wall clock was stepped; spans are matched across it"
            );
        }
    }
}

/// Goes on from what an earlier run knew; whatever is wrong with it costs that only.
fn restore(pipeline: &mut Recorded, known: &Known) {
    let restored = known.read().and_then(|saved| {
        let restored = saved.map(|saved| pipeline.restore_baselines(saved));
        restored.transpose().map_err(io::Error::other)
    });
    let file = known.path().display();
    match restored {
        Ok(None) => {}
        Ok(Some(operations)) => {
            tracing::info!(%file, operations, "What an earlier run knew as usual is used");
        }
        Err(error) => tracing::warn!(
            %file, %error,
            "What an earlier run knew as usual cannot be used; it is learned anew"
        ),
    }
}

impl Output {
    fn send(&mut self, mut batch: SpanBatch, mut judged: Vec<Judgement>) {
        supporting::add_lines(&self.board, &batch.spans, &mut judged);
        if let Some(forward) = &self.forward {
            let payload = enrich(&batch, &judged, &self.options);
            let permit = batch.permit.take();
            forward.enqueue(Outgoing {
                signal: Signal::Traces,
                items: batch.spans.len(),
                permit: permit.map(|permit| fitted(permit, payload.len())),
                payload,
            });
        }
        self.sent.push((batch, judged));
    }

    fn show(&mut self) {
        for (batch, judged) in self.sent.drain(..) {
            self.store.record(batch, judged);
        }
    }
}

/// The permit for what is held from now on. What the budget does not have for the additions
/// goes uncounted: the spans are acknowledged, and only new ones can still be refused.
fn fitted(mut permit: OwnedSemaphorePermit, bytes: usize) -> OwnedSemaphorePermit {
    let held = permit.num_permits();
    if bytes < held {
        drop(permit.split(held - bytes));
        return permit;
    }
    let budget = Arc::clone(permit.semaphore());
    let more = (bytes - held).min(budget.available_permits());
    let more = u32::try_from(more).ok().filter(|more| *more > 0);
    if let Some(Ok(more)) = more.map(|more| budget.try_acquire_many_owned(more)) {
        permit.merge(more);
    }
    permit
}

/// Sleeps until a monotonic time; for ever when there is none.
async fn sleep_until(due: Option<MonoNs>) {
    match due {
        Some(due) => {
            tokio::time::sleep(Duration::from_nanos(
                due.since(MonoNs(MonoNs::now().0 + TIMER_SLACK_NS)),
            ))
            .await
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    #[test]
    fn a_permit_follows_what_is_held() {
        let budget = Arc::new(Semaphore::new(100));
        let permit = || Arc::clone(&budget).try_acquire_many_owned(40).unwrap();
        for (bytes, counted) in [(70, 70), (10, 10), (40, 40), (1000, 100), (0, 0)] {
            let fitted = fitted(permit(), bytes);
            assert_eq!(fitted.num_permits(), counted, "{bytes}");
            assert_eq!(budget.available_permits(), 100 - counted, "{bytes}");
            drop(fitted);
            assert_eq!(budget.available_permits(), 100, "{bytes}");
        }
    }
}

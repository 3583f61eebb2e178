//! Timeline, correlation, judgement: no I/O, no clock.
//!
//! One task owns a [`Pipeline`] and feeds it events and batches of spans. A batch waits
//! for its settle time, so that late events and late children are there, and then each of
//! its spans is split by cause and judged. Time is passed in; of the same input come the
//! same answers.

pub mod baseline;
pub mod children;
pub mod consumers;
pub mod culprit;
pub mod fault;
pub mod incident;
pub mod intervals;
pub mod judge;
pub mod losses;
pub mod place;
pub mod resends;
pub mod retries;
pub mod split;
pub mod timeline;
pub mod words;

mod asks;
mod behind;
mod by_process;
mod contexts;
mod correlate;
mod evidence;
mod held;
mod kills;
mod requests;
mod ring;
mod scope;
pub mod thread;
mod turns;
mod waits;

use std::{collections::VecDeque, time::Duration};

use self::{
    asks::Asks,
    baseline::{Baselines, Saved, Unusable},
    children::{ChildIndex, ChildTime},
    consumers::Consumers,
    contexts::Contexts,
    correlate::{Context, Correlator},
    judge::Rules,
    losses::Losses,
    place::Unjudged,
    requests::Requests,
    timeline::{Dropped, Timeline, TimelineConfig},
    turns::Turns,
};
use crate::{
    event::Event,
    metrics::{AgentMetrics, Join, Reason},
    span::SpanBatch,
    time::{MonoNs, UnixNs, WallClock},
    verdict::Judgement,
    vocabulary::{Cause, Confidence},
};

/// What can be set.
#[derive(Clone, Debug)]
pub struct PipelineConfig {
    /// How long a batch waits for late events and children.
    pub settle: Duration,
    /// Part of the self time from which a cause is named, 0..1.
    pub share_threshold: f64,
    /// Times its usual time from which a cause is named.
    pub baseline_factor: f64,
    /// What the timeline keeps.
    pub timeline: TimelineConfig,
    /// Children kept in the span index.
    pub max_children: usize,
    /// Operations with a baseline.
    pub max_operations: usize,
    /// What names of operations are hashed with; should be random.
    pub baseline_seed: u64,
    /// Batches that may wait at once; beyond, the oldest are judged before their time.
    pub max_settling: usize,
}

impl Default for PipelineConfig {
    fn default() -> Self {
        Self {
            settle: Duration::from_millis(500),
            share_threshold: 0.30,
            baseline_factor: 3.0,
            timeline: TimelineConfig::default(),
            max_children: 3 << 16,
            max_operations: 2_000,
            baseline_seed: rand::random(),
            max_settling: 16_384,
        }
    }
}

/// The timeline is swept this often.
const SWEEP_NS: u64 = 5_000_000_000;

/// See the module.
#[derive(Debug)]
pub struct Pipeline {
    settle_ns: u64,
    max_settling: usize,
    max_operations: usize,
    clock: WallClock,
    metrics: AgentMetrics,
    timeline: Timeline,
    turns: Turns,
    asks: Asks,
    contexts: Contexts,
    requests: Requests,
    consumers: Consumers,
    losses: Losses,
    children: ChildIndex,
    baselines: Baselines,
    correlator: Correlator,
    settling: VecDeque<SpanBatch>,
    next_sweep: MonoNs,
}

impl Pipeline {
    /// An empty one. `clock` should have been made just before.
    #[must_use]
    pub fn new(config: PipelineConfig, clock: WallClock, metrics: AgentMetrics) -> Self {
        let rules = Rules {
            share_threshold: config.share_threshold,
            baseline_factor: config.baseline_factor,
        };
        Self {
            settle_ns: u64::try_from(config.settle.as_nanos()).unwrap_or(u64::MAX),
            max_settling: config.max_settling,
            max_operations: config.max_operations,
            clock,
            metrics,
            timeline: Timeline::new(config.timeline),
            turns: Turns::default(),
            asks: Asks::default(),
            contexts: Contexts::default(),
            requests: Requests::default(),
            consumers: Consumers::default(),
            losses: Losses::default(),
            children: ChildIndex::new(config.max_children),
            baselines: Baselines::new(config.max_operations, config.baseline_seed),
            correlator: Correlator::new(rules),
            settling: VecDeque::new(),
            next_sweep: MonoNs(0),
        }
    }

    /// Goes on from what an earlier run knew as usual.
    ///
    /// # Errors
    /// [`Unusable`] if that cannot be used; nothing has changed then.
    pub fn restore_baselines(&mut self, saved: Saved) -> Result<usize, Unusable> {
        self.baselines = Baselines::restore(self.max_operations, saved)?;
        Ok(self.baselines.len())
    }

    /// What a restart should know as usual.
    #[must_use]
    pub fn save_baselines(&self) -> Saved {
        self.baselines.save()
    }

    /// The bridge between the two clocks, as of the last sample.
    #[must_use]
    pub const fn clock(&self) -> &WallClock {
        &self.clock
    }

    /// Takes a sample of both clocks, read at the same moment; call it about once a second.
    /// Returns the step in nanoseconds if the wall clock was stepped.
    pub fn sample_clock(&mut self, mono: MonoNs, wall: UnixNs) -> Option<i64> {
        self.clock.sample(mono, wall)
    }

    /// Takes what a sensor saw. `Delay::limiter` should be filled.
    pub fn on_event(&mut self, event: &Event, now: MonoNs) {
        let taken = match event {
            Event::Delay(delay) => {
                if delay.cause == Cause::OomKill {
                    self.timeline.add_to_cgroup(delay, now);
                }
                self.timeline.add(delay, now)
            }
            Event::Steal(steal) => self.timeline.add_steal(steal, now),
            Event::Turn(turn) => self.turns.add(turn, self.timeline.horizon(now), now),
            Event::Ask(ask) => self.asks.add(ask, self.timeline.horizon(now), now),
            Event::Away(away) => self.contexts.add(away, self.timeline.horizon(now), now),
            Event::Loss(loss) => {
                self.losses.add(*loss);
                Ok(())
            }
            Event::Saving(saving) => {
                self.losses.add_saving(*saving);
                Ok(())
            }
            Event::Consumption(of) => self.consumers.add(of, self.timeline.horizon(now), now),
        };
        if let Err(dropped) = taken {
            self.count_dropped(dropped.as_str(), 1);
        }
        self.sweep(now);
    }

    /// Takes a batch; the `joined` of its resources should be filled.
    pub fn on_batch(&mut self, batch: SpanBatch) {
        const CONSUMER: i32 = 5;
        for resource in &batch.resources {
            let by_other_clock = resource.joined.identity.is_none();
            let spans = batch.spans.get(resource.spans.clone());
            for span in spans.unwrap_or_default() {
                if span.parent_span_id != [0; 8]
                    && span.kind != CONSUMER
                    && place::check(span).is_ok()
                {
                    let time = ChildTime {
                        start_unix_ns: span.start_unix_ns,
                        end_unix_ns: span.end_unix_ns,
                        by_other_clock,
                    };
                    self.children.add(span.trace_id, span.parent_span_id, time);
                }
            }
        }
        let horizon = self.timeline.horizon(batch.received);
        scope::note_requests(&batch, &self.clock, horizon, &mut self.requests);
        self.settling.push_back(batch);
        self.metrics.settling.set(self.settling.len() as i64);
    }

    /// When [`Pipeline::settle`] has something to do next.
    #[must_use]
    pub fn next_due(&self) -> Option<MonoNs> {
        let first = self.settling.front()?;
        if self.settling.len() > self.max_settling {
            return Some(first.received);
        }
        Some(MonoNs(first.received.0.saturating_add(self.settle_ns)))
    }

    /// Whether [`Pipeline::settle`] would do anything.
    #[must_use]
    pub fn has_work(&self, now: MonoNs) -> bool {
        now >= self.next_sweep || self.next_due().is_some_and(|due| due <= now)
    }

    /// Judges the batches whose settle time has passed and hands them out in order of
    /// arrival, each with one judgement for each of its spans, in order.
    pub fn settle(&mut self, now: MonoNs, out: &mut impl FnMut(SpanBatch, Vec<Judgement>)) {
        while self.next_due().is_some_and(|due| due <= now) {
            self.judge_first(now, out);
        }
        self.sweep(now);
    }

    /// Judges all batches at once, whether or not their settle time has passed: for a stop.
    pub fn flush(&mut self, now: MonoNs, out: &mut impl FnMut(SpanBatch, Vec<Judgement>)) {
        while !self.settling.is_empty() {
            self.judge_first(now, out);
        }
    }

    fn judge_first(&mut self, now: MonoNs, out: &mut impl FnMut(SpanBatch, Vec<Judgement>)) {
        let Some(batch) = self.settling.pop_front() else {
            return;
        };
        self.metrics.settling.set(self.settling.len() as i64);
        let context = Context {
            clock: &self.clock,
            horizon: self.timeline.horizon(now),
            timeline: &self.timeline,
            turns: &self.turns,
            asks: &self.asks,
            contexts: &self.contexts,
            consumers: &self.consumers,
            losses: &self.losses,
            children: &self.children,
        };
        let (judgements, counts) =
            self.correlator
                .judge(&batch, context, &mut self.requests, &mut self.baselines);
        self.count(&counts);
        out(batch, judgements);
    }

    /// Adds what one batch came to: once for all its spans, as each counter takes a lock.
    fn count(&self, counts: &correlate::Counts) {
        self.metrics.spans_joined.inc_by(counts.joined);
        for (confidence, n) in Confidence::ALL.iter().zip(counts.joins) {
            if n > 0 {
                let join = Join {
                    confidence: confidence.as_str(),
                };
                self.metrics.joins.get_or_create(&join).inc_by(n);
            }
        }
        for (unjudged, n) in Unjudged::ALL.iter().zip(counts.unjudged) {
            if n > 0 {
                let reason = Reason {
                    reason: unjudged.as_str(),
                };
                self.metrics.spans_unjudged.get_or_create(&reason).inc_by(n);
            }
        }
    }

    fn count_dropped(&self, reason: &'static str, n: u64) {
        self.metrics
            .events_dropped
            .get_or_create(&Reason { reason })
            .inc_by(n);
    }

    /// Every few seconds: forgets what is old, brings gauges and eviction counters up to date.
    fn sweep(&mut self, now: MonoNs) {
        if now < self.next_sweep {
            return;
        }
        self.next_sweep = MonoNs(now.0.saturating_add(SWEEP_NS));
        self.timeline.expire(now);
        let horizon = self.timeline.horizon(now);
        self.consumers.expire(horizon);
        self.turns.expire(horizon.0);
        self.asks.expire(horizon.0);
        self.contexts.expire(horizon.0);
        self.requests.expire(horizon.0);
        self.metrics
            .timeline_intervals
            .set(self.timeline.len() as i64);
        for (reason, n) in [
            (Dropped::EVICTED, self.timeline.take_evicted()),
            ("child_evicted", self.children.take_evicted()),
            ("turn_evicted", self.turns.take_evicted()),
            ("ask_evicted", self.asks.take_evicted()),
            ("context_evicted", self.contexts.take_evicted()),
            ("request_evicted", self.requests.take_evicted()),
            ("consumption_evicted", self.consumers.take_evicted()),
        ] {
            if n > 0 {
                self.count_dropped(reason, n);
            }
        }
    }
}

#[cfg(test)]
mod tests;

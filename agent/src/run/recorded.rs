//! The pipeline, and beside it the recorder, where there is one: whatever goes into the one and
//! whatever comes out goes to the other too, in the same order.

use crate::{
    event::Event,
    metrics::AgentMetrics,
    pipeline::{
        Pipeline, PipelineConfig,
        baseline::{Saved, Unusable},
    },
    recording::recorder::Recorder,
    span::SpanBatch,
    time::{MonoNs, UnixNs, WallClock},
    verdict::Judgement,
};

/// See the module's head.
pub struct Recorded {
    pipeline: Pipeline,
    recorder: Option<Recorder>,
    metrics: AgentMetrics,
}

impl Recorded {
    /// A pipeline of these settings that starts with this sample of the clocks, as the
    /// recorder was told.
    #[must_use]
    pub fn new(
        config: PipelineConfig,
        (mono, wall): (MonoNs, UnixNs),
        recorder: Option<Recorder>,
        metrics: AgentMetrics,
    ) -> Self {
        let clock = WallClock::new(mono, wall);
        Self {
            pipeline: Pipeline::new(config, clock, metrics.clone()),
            recorder,
            metrics,
        }
    }

    /// See [`Pipeline::clock`].
    pub const fn clock(&self) -> &WallClock {
        self.pipeline.clock()
    }

    /// Whether there is a recorder.
    pub const fn is_recorded(&self) -> bool {
        self.recorder.is_some()
    }

    /// See [`Pipeline::restore_baselines`].
    ///
    /// # Errors
    /// As that.
    pub fn restore_baselines(&mut self, saved: Saved) -> Result<usize, Unusable> {
        self.pipeline.restore_baselines(saved)
    }

    /// See [`Pipeline::save_baselines`].
    pub fn save_baselines(&self) -> Saved {
        self.pipeline.save_baselines()
    }

    /// See [`Pipeline::next_due`].
    pub fn next_due(&self) -> Option<MonoNs> {
        self.pipeline.next_due()
    }

    /// See [`Pipeline::sample_clock`].
    pub fn sample_clock(&mut self, mono: MonoNs, wall: UnixNs) -> Option<i64> {
        if let Some(recorder) = &self.recorder {
            recorder.clock(mono, wall, &self.metrics);
        }
        self.pipeline.sample_clock(mono, wall)
    }

    /// [`Pipeline::on_event`] for one after the other.
    pub fn on_events(&mut self, events: &[Event], now: MonoNs) {
        if let Some(recorder) = &self.recorder {
            recorder.events(now, events, &self.metrics);
        }
        for event in events {
            self.pipeline.on_event(event, now);
        }
    }

    /// See [`Pipeline::on_batch`].
    pub fn on_batch(&mut self, batch: SpanBatch) {
        if let Some(recorder) = &self.recorder {
            recorder.batch(&batch, &self.metrics);
        }
        self.pipeline.on_batch(batch);
    }

    /// See [`Pipeline::settle`].
    pub fn settle(&mut self, now: MonoNs, out: &mut impl FnMut(SpanBatch, Vec<Judgement>)) {
        if !self.pipeline.has_work(now) {
            return;
        }
        let Some(recorder) = &self.recorder else {
            return self.pipeline.settle(now, out);
        };
        recorder.settle(now, &self.metrics);
        self.pipeline.settle(now, &mut |batch, judged| {
            recorder.judged(&batch, &judged, &self.metrics);
            out(batch, judged);
        });
    }

    /// See [`Pipeline::flush`]; completes the recording.
    pub async fn flush(mut self, now: MonoNs, out: &mut impl FnMut(SpanBatch, Vec<Judgement>)) {
        let Some(recorder) = self.recorder else {
            return self.pipeline.flush(now, out);
        };
        recorder.flush(now, &self.metrics);
        self.pipeline.flush(now, &mut |batch, judged| {
            recorder.judged(&batch, &judged, &self.metrics);
            out(batch, judged);
        });
        match tokio::task::spawn_blocking(|| recorder.finish()).await {
            Ok(Ok(written)) => tracing::info!(
                bytes = written.bytes,
                lost = written.lost,
                reason = ?written.reason,
                "Recorded"
            ),
            Ok(Err(error)) => tracing::error!(%error, "The recording could not be written"),
            Err(error) => tracing::error!(%error, "The recorder did not end well"),
        }
    }
}

//! A future that is worked on in a published context: whichever thread polls it says so while
//! it does.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use libdd_otel_thread_ctx::linux::{SharedThreadContext, ThreadContext};
use opentelemetry::trace::SpanContext;

use crate::cpu_time;

/// See the module.
pub struct Published<F> {
    work: Pin<Box<F>>,
    context: Option<SharedThreadContext>,
    held_up: Arc<HeldUp>,
}

/// Nanoseconds that a thread did not run while it was at work on something, by its own clocks.
#[derive(Debug, Default)]
pub struct HeldUp {
    /// While the context was published.
    pub least: AtomicU64,
    /// The same, and while it was being published and taken back.
    pub most: AtomicU64,
}

/// The clocks of a thread at one moment.
struct Moment {
    wall: Instant,
    ran: Duration,
}

impl<F: Future> Published<F> {
    /// `work` in the context of `span`, if any.
    pub fn new(work: F, span: Option<SpanContext>, held_up: Arc<HeldUp>) -> Self {
        let context = span.map(|span| {
            let (trace, id) = (span.trace_id().to_bytes(), span.span_id().to_bytes());
            let flags = span.trace_flags().to_u8();
            SharedThreadContext::from(Arc::new(ThreadContext::new(trace, id, flags, id, &[])))
        });
        Self {
            work: Box::pin(work),
            context,
            held_up,
        }
    }
}

impl<F: Future> Future for Published<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let before = Moment::now();
        if let Some(context) = self.context.clone() {
            context.attach();
        }
        let began = Moment::now();
        let polled = self.work.as_mut().poll(cx);
        began.add_to(&self.held_up.least);
        if self.context.is_some() {
            SharedThreadContext::detach();
        }
        before.add_to(&self.held_up.most);
        polled
    }
}

impl Moment {
    fn now() -> Self {
        Self {
            wall: Instant::now(),
            ran: cpu_time(),
        }
    }

    /// Adds what has passed since and was not run.
    fn add_to(&self, sum: &AtomicU64) {
        let away = self.wall.elapsed().saturating_sub(cpu_time() - self.ran);
        sum.fetch_add(away.as_nanos() as u64, Ordering::Relaxed);
    }
}

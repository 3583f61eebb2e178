//! When to try again: exponential back-off with jitter, and waits that downstream asks for.

use std::time::Duration;

use tokio::time::Instant;

/// First waits and longest waits, by what failed.
const TRANSIENT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// A wrong key or address is not put right within milliseconds.
const MISCONFIGURED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Longest wait of our own while stopping.
const STOPPING: Duration = Duration::from_millis(500);

/// The pace of one lane.
#[derive(Debug, Default)]
pub(super) struct Pace {
    failures: u32,
    pause: Option<Instant>,
    throttle: Option<Instant>,
    stopping: bool,
    epoch: u64,
}

impl Pace {
    /// Attempts carry the epoch they began in: of several under way when downstream
    /// fails, only the first to say so lengthens the wait.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether the last thing known is a failure: then one request at a time is tried.
    pub fn failing(&self) -> bool {
        self.failures > 0
    }

    /// No attempt before this; `None`: at once.
    pub fn not_before(&self) -> Option<Instant> {
        self.pause.max(self.throttle)
    }

    pub fn succeeded(&mut self, epoch: u64, now: Instant) {
        if epoch == self.epoch {
            self.failures = 0;
            self.pause = None;
        }
        if self.throttle.is_some_and(|until| until <= now) {
            self.throttle = None;
        }
    }

    pub fn failed(&mut self, epoch: u64, now: Instant, misconfigured: bool) {
        if epoch != self.epoch {
            return;
        }
        self.epoch += 1;
        self.pause = Some(now + self.delay(self.failures, misconfigured));
        self.failures = self.failures.saturating_add(1);
    }

    /// Downstream asked to be left alone for `after`.
    pub fn throttled(&mut self, now: Instant, after: Duration) {
        self.throttle = self.throttle.max(Some(now + after));
    }

    /// From now on waits are short, except those that downstream asked for.
    pub fn stop(&mut self) {
        self.stopping = true;
        self.pause = None;
    }

    /// The wait after `failures` failures before this one.
    pub fn delay(&self, failures: u32, misconfigured: bool) -> Duration {
        let (first, longest) = if misconfigured {
            MISCONFIGURED
        } else {
            TRANSIENT
        };
        let factor = 2u32.saturating_pow(failures.min(16));
        let mut delay = first.saturating_mul(factor).min(longest);
        if self.stopping {
            delay = delay.min(STOPPING);
        }
        // Half of it by chance, so that agents do not come back all at once.
        delay.mul_f64(rand::random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests;

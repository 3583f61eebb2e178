//! A share of one processor: what log lines may cost, however many there are.

use std::time::{Duration, Instant};

/// Whoever used more than the share waits until it fits again.
#[derive(Debug)]
pub struct Share {
    share: f64,
    /// Processor time that may be used at once, seconds; below zero it is owed.
    balance: f64,
    at: Instant,
}

/// What may be saved up, in seconds of processor time.
const SAVED: f64 = 0.25;

impl Share {
    /// `share` of a processor, above 0.
    #[must_use]
    pub const fn new(share: f64, now: Instant) -> Self {
        Self {
            share,
            balance: SAVED,
            at: now,
        }
    }

    /// So much was used.
    pub fn pay(&mut self, used: Duration, now: Instant) {
        self.balance = self.saved(now) - used.as_secs_f64();
        self.at = now;
    }

    /// How long to leave the processor to others; zero while within the share.
    #[must_use]
    pub fn wait(&self, now: Instant) -> Duration {
        let owed = -self.saved(now);
        Duration::try_from_secs_f64((owed / self.share).max(0.0)).unwrap_or(Duration::MAX)
    }

    fn saved(&self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.balance + passed * self.share).min(SAVED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_a_minute_no_more_than_the_share_is_used() {
        let start = Instant::now();
        let (mut share, mut now) = (Share::new(0.25, start), start);
        let (mut used, step) = (Duration::ZERO, Duration::from_millis(100));
        while now - start < Duration::from_secs(60) {
            now += share.wait(now);
            // It runs alone: what it uses is what passes.
            now += step;
            used += step;
            share.pay(step, now);
        }
        let part = used.as_secs_f64() / (now - start).as_secs_f64();
        assert!((0.24..0.27).contains(&part), "{part}");
    }

    #[test]
    fn who_was_idle_does_not_wait_and_has_not_saved_for_ever() {
        let start = Instant::now();
        let mut share = Share::new(0.5, start);
        let later = start + Duration::from_secs(3600);
        assert_eq!(share.wait(later), Duration::ZERO);
        share.pay(Duration::from_secs(1), later);
        assert_eq!(share.wait(later), Duration::from_millis(1500));
        assert_eq!(share.wait(later + Duration::from_secs(2)), Duration::ZERO);
    }
}

//! How much of the processors searching may take: a flood of connections must not turn into
//! a flood of reads of `/proc`. Pure: time comes in.

use std::time::{Duration, Instant};

/// Saved up while idle: enough for the senders of a whole node after a restart.
const MOST_SAVED: Duration = Duration::from_secs(2);
/// One part in so many of one processor's time.
const SHARE: u32 = 4;

/// A bucket of processor time.
#[derive(Debug)]
pub(super) struct Allowance {
    saved: Duration,
    /// Spent beyond what was saved.
    debt: Duration,
    at: Instant,
}

impl Allowance {
    /// Full.
    pub const fn new(now: Instant) -> Self {
        Self {
            saved: MOST_SAVED,
            debt: Duration::ZERO,
            at: now,
        }
    }

    /// How long until there is something to spend; zero: now.
    pub fn wait(&mut self, now: Instant) -> Duration {
        let earned = now.saturating_duration_since(self.at) / SHARE;
        self.at = self.at.max(now);
        let left = earned.saturating_sub(self.debt);
        self.debt = self.debt.saturating_sub(earned);
        self.saved = (self.saved + left).min(MOST_SAVED);
        self.debt * SHARE
    }

    /// A search took this much.
    pub fn spent(&mut self, time: Duration) {
        self.debt += time.saturating_sub(self.saved);
        self.saved = self.saved.saturating_sub(time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_a_flood_gets_its_share() {
        let mut now = Instant::now();
        let mut allowance = Allowance::new(now);
        let search = Duration::from_millis(20);
        for _ in 0..100 {
            assert_eq!(allowance.wait(now), Duration::ZERO);
            allowance.spent(search);
        }
        // What was saved is used up: from now on each search is paid for.
        let start = now;
        for _ in 0..50 {
            now += allowance.wait(now);
            assert_eq!(allowance.wait(now), Duration::ZERO);
            allowance.spent(search);
        }
        assert_eq!(now - start, 49 * search * SHARE);
        // Idle again, it saves, but no more than the most.
        now += Duration::from_secs(3600);
        assert_eq!(allowance.wait(now), Duration::ZERO);
        assert_eq!(allowance.saved, MOST_SAVED);
    }
}

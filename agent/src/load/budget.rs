//! What a sensor may cost, and what happens when it costs more: it tells of fewer single
//! events, visibly, until it is cheap enough again. (What is counted in the kernel stays
//! exact.) Pure: measuring and acting are [`super::upkeep`]'s.

/// Most doublings of the lengths from which intervals are told: from 1 ms to 1 s.
pub const MAX_LEVEL: u32 = 10;
/// Steps of one decision: twice two doublings is four times fewer events of most loads.
const STEP: u32 = 2;
/// A sensor must be this much below its budget before it tells more again, so that it does
/// not swing.
const CALM: f64 = 0.25;
/// For so many measurements in a row.
const CALM_FOR: u32 = 3;

/// How much a sensor is thinned.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Thinning {
    /// Doublings of its thresholds; 0: everything is told.
    level: u32,
    calm: u32,
}

impl Thinning {
    /// Doublings of its thresholds.
    pub const fn level(self) -> u32 {
        self.level
    }

    /// Takes a measurement, in cores, of a sensor that may cost `budget` cores. True if the
    /// level has changed.
    pub fn measured(&mut self, cores: f64, budget: f64) -> bool {
        let before = self.level;
        if cores > budget {
            self.calm = 0;
            self.level = (self.level + STEP).min(MAX_LEVEL);
        } else if cores <= budget * CALM && self.level > 0 {
            self.calm += 1;
            if self.calm >= CALM_FOR {
                self.calm = 0;
                self.level = self.level.saturating_sub(STEP);
            }
        } else {
            self.calm = 0;
        }
        self.level != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_budget_it_thins_at_once_and_returns_when_it_has_been_calm() {
        let mut thinning = Thinning::default();
        assert!(!thinning.measured(0.01, 0.01), "at its budget all is well");
        for level in [2, 4, 6, 8, 10] {
            assert!(thinning.measured(0.02, 0.01));
            assert_eq!(thinning.level(), level);
        }
        assert!(!thinning.measured(0.02, 0.01), "there is no more to thin");
        for level in [8, 6, 4, 2, 0] {
            assert!(!thinning.measured(0.002, 0.01));
            assert!(!thinning.measured(0.002, 0.01));
            assert!(thinning.measured(0.002, 0.01));
            assert_eq!(thinning.level(), level);
        }
        assert!(!thinning.measured(0.0, 0.01));
    }

    #[test]
    fn a_busy_moment_in_between_starts_the_calm_anew() {
        let mut thinning = Thinning::default();
        thinning.measured(1.0, 0.01);
        for _ in 0..10 {
            thinning.measured(0.001, 0.01);
            thinning.measured(0.001, 0.01);
            thinning.measured(0.009, 0.01);
        }
        assert_eq!(thinning.level(), 2);
    }
}

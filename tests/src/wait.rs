//! Waiting for something to become true, with an end.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Generous: a bound against hanging, not a measure of speed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Polls `probe` until it gives a value.
///
/// # Errors
/// After `limit` without one: says what was waited for.
pub fn until<T>(
    what: &str,
    limit: Duration,
    probe: impl FnMut() -> Option<T>,
) -> anyhow::Result<T> {
    every(Duration::from_millis(50), what, limit, probe)
}

/// The same with another pause between two looks: for those that cost what is looked at.
///
/// # Errors
/// As [`until`].
pub fn every<T>(
    pause: Duration,
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Option<T>,
) -> anyhow::Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = probe() {
            return Ok(value);
        }
        anyhow::ensure!(Instant::now() < end, "waited {limit:?} for {what}");
        thread::sleep(pause);
    }
}

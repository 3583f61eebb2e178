//! Who waited for a process that was killed: the kill is a moment, but a thread that waited for a
//! child process of its own container got nothing out of that wait. Its time until the kill is the
//! kill's.
//!
//! A kill is known to every process of the cgroup in which it happened, see
//! [`Timeline::add_to_cgroup`](super::timeline::Timeline::add_to_cgroup); it takes time only where
//! a thread waited for a child just then.

use std::mem::take;

use super::retries::Stretch;
use crate::{event::Particulars, vocabulary::Cause};

/// System calls in which a thread waits for a child process.
const WAITS: &[&str] = &["wait4", "waitid"];

/// Finds them; kept from span to span to save allocations.
#[derive(Debug, Default)]
pub struct Kills {
    /// Moments.
    kills: Vec<u64>,
    /// `(start, end)`.
    waits: Vec<(u64, u64)>,
}

/// Whether it is a wait for a child process.
#[must_use]
pub fn is_for_a_child(particulars: &Particulars) -> bool {
    matches!(particulars, Particulars::SystemCall(call) if WAITS.contains(&&*call.name))
}

impl Kills {
    /// Takes what the span's threads met from `start` to `end`.
    pub fn note(&mut self, cause: Cause, (start, end): (u64, u64), particulars: &Particulars) {
        match cause {
            Cause::OomKill => self.kills.push(end),
            Cause::LockWait if is_for_a_child(particulars) => self.waits.push((start, end)),
            _ => {}
        }
    }

    /// The waits in which somebody was killed, until then; forgets what was noted.
    pub fn stretches(&mut self) -> Vec<Stretch> {
        let (mut kills, waits) = (take(&mut self.kills), take(&mut self.waits));
        kills.sort_unstable();
        let stretch = |(start, end): &(u64, u64)| {
            // Of several, the last one that it can have waited for.
            let at = *kills[..kills.partition_point(|at| at <= end)].last()?;
            (at > *start).then_some(Stretch {
                cause: Cause::OomKill,
                start: *start,
                end: at,
            })
        };
        waits.iter().filter_map(stretch).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::SystemCall;

    fn call(name: &str) -> Particulars {
        Particulars::SystemCall(Arc::new(SystemCall {
            name: name.into(),
            action: String::new(),
        }))
    }

    fn stretches(kills: &[u64], waits: &[(&str, u64, u64)]) -> Vec<(u64, u64)> {
        let mut all = Kills::default();
        for at in kills {
            all.note(Cause::OomKill, (*at, *at), &Particulars::None);
        }
        for (name, start, end) in waits {
            all.note(Cause::LockWait, (*start, *end), &call(name));
        }
        let found = all.stretches();
        assert_eq!(all.stretches(), [], "forgotten");
        found.iter().map(|s| (s.start, s.end)).collect()
    }

    #[test]
    fn the_wait_for_a_killed_child_is_the_kills() {
        assert_eq!(stretches(&[90], &[("wait4", 10, 91)]), [(10, 90)]);
        assert_eq!(
            stretches(&[30, 80, 200], &[("waitid", 10, 91), ("wait4", 95, 205)]),
            [(10, 80), (95, 200)]
        );
    }

    #[test]
    fn other_waits_are_not() {
        assert_eq!(stretches(&[90], &[("futex", 10, 91)]), []);
        assert_eq!(
            stretches(&[90], &[("wait4", 10, 89)]),
            [],
            "it ended before"
        );
        assert_eq!(stretches(&[9], &[("wait4", 10, 89)]), [], "nobody in it");
        assert_eq!(stretches(&[], &[("wait4", 10, 89)]), []);
    }
}
